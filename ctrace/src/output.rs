//! The writer: renders events and writes them, on a thread of its own.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    num::NonZeroU64,
    thread::JoinHandle,
};

use anyhow::{Context, Result, anyhow};
use tokio::sync::mpsc::{Receiver, error::TryRecvError};

use crate::{
    event::{Event, Payload},
    report::Report,
    sink::Sink,
};

/// A format and where it goes.
pub struct Output {
    pub sink: Box<dyn Sink>,
    pub out: Box<dyn Write + Send>,
}

/// What was written.
#[derive(Debug, Default)]
pub struct Written {
    /// Events by type, gaps not included.
    pub events: BTreeMap<&'static str, u64>,
    /// The same by container.
    pub report: Report,
}

/// The writer's thread.
pub struct Writer(JoinHandle<io::Result<Written>>);

impl Output {
    /// Starts writing what the channel gives. It ends, and closes the channel, after `count`
    /// events, with the channel, or when nobody reads any more.
    ///
    /// # Errors
    /// Where the system has no thread to give.
    pub fn spawn(self, events: Receiver<Event>, count: Option<NonZeroU64>) -> Result<Writer> {
        let write = move || self.write_all(events, count);
        Ok(Writer(std::thread::Builder::new().name("writer".to_owned()).spawn(write)?))
    }

    fn write_all(
        mut self,
        mut events: Receiver<Event>,
        count: Option<NonZeroU64>,
    ) -> io::Result<Written> {
        let mut written = Written::default();
        let mut left = count.map(NonZeroU64::get);
        while let Some(event) = self.next(&mut events)? {
            self.sink.write(&event, &mut self.out)?;
            if matches!(event.payload, Payload::Lost(_)) {
                continue;
            }
            written.report.note(&event);
            *written.events.entry(event.payload.detail().type_name()).or_default() += 1;
            left = left.map(|left| left - 1);
            if left == Some(0) {
                break;
            }
        }
        self.out.flush()?;
        Ok(written)
    }

    /// The next event. What is written is flushed before the thread waits.
    fn next(&mut self, events: &mut Receiver<Event>) -> io::Result<Option<Event>> {
        match events.try_recv() {
            Ok(event) => Ok(Some(event)),
            Err(TryRecvError::Disconnected) => Ok(None),
            Err(TryRecvError::Empty) => {
                self.out.flush()?;
                Ok(events.blocking_recv())
            }
        }
    }
}

impl Writer {
    /// Waits for the writer. That nobody reads the output any more is no error.
    ///
    /// # Errors
    /// Where the output could not be written.
    pub fn join(self) -> Result<Written> {
        match self.0.join().map_err(|_| anyhow!("the writer panicked"))? {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Written::default()),
            written => written.context("cannot write to standard output"),
        }
    }
}
