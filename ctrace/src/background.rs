//! A value that is worked out beside the start-up, because it is needed only later.

use std::{cell::OnceCell, thread::JoinHandle};

/// A value that a thread of its own makes.
pub struct Background<T> {
    thread: std::cell::Cell<Option<JoinHandle<T>>>,
    value: OnceCell<T>,
}

impl<T: Default + Send + 'static> Background<T> {
    /// Starts making it.
    pub fn new(make: impl FnOnce() -> T + Send + 'static) -> Self {
        Self {
            thread: std::cell::Cell::new(Some(std::thread::spawn(make))),
            value: OnceCell::new(),
        }
    }

    /// The value; waits for it where it is not there yet. The default where its thread panicked.
    pub fn get(&self) -> &T {
        self.value.get_or_init(|| {
            self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or_default()
        })
    }
}
