//! What is shared by all tests and has to go when the last has ended: statics are not dropped.

use std::sync::{Mutex, Once, PoisonError};

type Action = Box<dyn FnOnce() + Send>;

static ACTIONS: Mutex<Vec<Action>> = Mutex::new(Vec::new());

/// Runs when the test process exits, the last registered first.
pub fn at_exit(action: impl FnOnce() + Send + 'static) {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| {
        // SAFETY: the handler is a plain function that lives as long as the program.
        let refused = unsafe { libc::atexit(run_actions) };
        assert_eq!(refused, 0, "atexit has no room");
    });
    ACTIONS.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(action));
}

extern "C" fn run_actions() {
    loop {
        // The lock is free while an action runs.
        let action = ACTIONS.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match action {
            Some(action) => action(),
            None => return,
        }
    }
}
