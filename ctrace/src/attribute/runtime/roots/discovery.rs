//! The search of users' homes, apart: one on a server that is gone never answers.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use super::Roots;

/// Finds the runtimes' directories again and again; users' in the background.
#[derive(Default)]
pub struct Discovery {
    /// What was found in the homes last.
    users: Roots,
    /// Where the search of the homes that is under way says what it found.
    search: Option<Receiver<Roots>>,
}

impl Discovery {
    /// Begins to search the homes, unless that is under way.
    pub fn begin(&mut self) {
        self.begin_with(Roots::of_hosts_users);
    }

    fn begin_with(&mut self, search: impl FnOnce() -> Roots + Send + 'static) {
        if self.search.is_some() {
            return;
        }
        let (sender, receiver) = mpsc::channel();
        let name = "ctrace-homes".to_owned();
        // Refused where nobody waits any more.
        let run = move || drop(sender.send(search()));
        // Without a thread there are no users' directories.
        self.search = thread::Builder::new().name(name).spawn(run).ok().map(|_| receiver);
    }

    /// Whether the search has ended since; waits for that at most so long.
    pub fn has_ended(&mut self, wait: Duration) -> bool {
        let Some(search) = &self.search else { return false };
        match search.recv_timeout(wait) {
            Ok(users) => self.users = users,
            Err(RecvTimeoutError::Timeout) => return false,
            Err(RecvTimeoutError::Disconnected) => {}
        }
        self.search = None;
        true
    }

    /// The directories of this host, with those of users that were found last. Takes some
    /// milliseconds.
    pub fn roots(&self) -> Roots {
        Roots::of_host().with_users(self.users.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_home_that_does_not_answer_holds_nothing_up() {
        let (server, home) = mpsc::channel::<()>();
        let found = Roots { crun: vec!["/run/user/1/crun".into()], ..Roots::default() };
        let mut discovery = Discovery::default();
        assert!(!discovery.has_ended(Duration::ZERO), "it has not begun");
        let users = found.clone();
        discovery.begin_with(move || {
            home.recv().unwrap();
            users
        });
        assert!(!discovery.has_ended(Duration::from_millis(1)));
        let roots = discovery.roots();
        assert_eq!((roots.users, roots.docker.is_empty()), (None, false));
        discovery.begin_with(|| unreachable!("one is under way"));
        server.send(()).unwrap();
        assert!(discovery.has_ended(Duration::from_secs(60)));
        assert_eq!(discovery.roots().users, Some(Box::new(found.clone())));
        // Its end is said once; what was found stays until something else is.
        assert!(!discovery.has_ended(Duration::ZERO));
        discovery.begin_with(|| panic!("a search that fails (this message is meant)"));
        assert!(discovery.has_ended(Duration::from_secs(60)));
        assert_eq!(discovery.roots().users, Some(Box::new(found)));
        discovery.begin_with(Roots::default);
        assert!(discovery.has_ended(Duration::from_secs(60)));
        assert_eq!(discovery.roots().users, None);
    }
}
