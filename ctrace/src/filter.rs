//! Which events the user asked for. Pure.

use crate::event::{Event, matches};

/// What an event must be to be shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Container names or id prefixes; empty: all events.
    pub containers: Vec<String>,
}

impl Filter {
    /// Whether an event is wanted. Gaps in the stream always are.
    pub fn wants(&self, event: &Event) -> bool {
        let Some(subject) = &event.subject else { return true };
        self.containers.is_empty()
            || subject.container.iter().chain(&subject.outer).any(|container| {
                self.containers.iter().any(|selector| matches(container, selector))
            })
    }
}
