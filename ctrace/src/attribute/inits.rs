//! Which mount namespaces the first processes of containers are in.
//!
//! A container that is older than ctrace, and idle, has sent nothing that tells whose its mounts are.
//! When somebody else's process is seen in mounts that nobody is known to have, all containers'
//! first processes are looked at, at once and seldom.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use super::runtime::Init;
use crate::event::{CgroupKey, Listed};

/// The time that looking takes is at most this part of all time.
const SHARE: u32 = 50;
/// It is not done more often.
const MIN_WAIT: Duration = Duration::from_secs(1);

#[derive(Default)]
pub struct Inits {
    /// By inode of the mount namespace; none where several containers have it.
    by_inode: FxHashMap<u32, Option<(CgroupKey, Init)>>,
    /// Cgroups that had been made when this was looked up.
    births: Option<u64>,
    /// When it may be looked up again.
    due: Option<Instant>,
}

impl Inits {
    /// Whether to look again; `births`: cgroups that have been made so far.
    pub fn is_due(&self, births: u64) -> bool {
        self.births != Some(births) && self.due.is_none_or(|due| Instant::now() >= due)
    }

    /// Takes in the containers that live, as found since `began`.
    pub fn set(&mut self, listed: &[Listed], births: u64, began: Instant) {
        self.by_inode.clear();
        for Listed { cgroups, process, .. } in listed {
            let (Some(place), Some(process)) = (cgroups.first(), process) else { continue };
            let init = Init { pid: process.pid, start_ticks: process.start_ticks };
            let Some(inode) = namespace(init) else { continue };
            let owner = Some((place.key, init));
            self.by_inode.entry(inode).and_modify(|owner| *owner = None).or_insert(owner);
        }
        self.births = Some(births);
        self.due = Some(Instant::now() + (began.elapsed() * SHARE).max(MIN_WAIT));
    }

    /// A cgroup of the container whose first process, which lives, has the mount namespace with that
    /// inode.
    pub fn cgroup_of(&self, inode: u32) -> Option<CgroupKey> {
        let (key, init) = (*self.by_inode.get(&inode)?)?;
        // The inode has been this namespace's as long as the process has been in it.
        (namespace(init) == Some(inode)).then_some(key)
    }
}

/// Inode of the mount namespace that the process is in now.
pub fn namespace(init: Init) -> Option<u32> {
    let inode = fs::metadata(format!("/proc/{}/ns/mnt", init.pid)).ok()?.ino();
    u32::try_from(inode).ok().filter(|_| init.is_running())
}

impl Init {
    /// Whether there is that process; where its start is not known, one with its pid.
    pub fn is_running(self) -> bool {
        let Self { pid, start_ticks } = self;
        let process =
            i32::try_from(pid).ok().and_then(|pid| procfs::process::Process::new(pid).ok());
        process
            .and_then(|process| process.stat().ok())
            .is_some_and(|stat| start_ticks.is_none_or(|start| stat.starttime == start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{CgroupPlace, FirstProcess};

    fn own() -> Init {
        let own = procfs::process::Process::myself().unwrap().stat().unwrap();
        Init { pid: std::process::id(), start_ticks: Some(own.starttime) }
    }

    fn listed(id: u64, Init { pid, start_ticks }: Init) -> Listed {
        let key = CgroupKey { hierarchy: 0, id };
        let place = CgroupPlace { key, controllers: Vec::new(), path: "/".into() };
        let namespaces = Default::default();
        let process = FirstProcess { pid, start_ticks, started_ns: None, namespaces };
        Listed { cgroups: vec![place], process: Some(process), ..Listed::default() }
    }

    #[test]
    fn a_process_is_known_by_its_start_where_that_is_known() {
        let Init { pid, start_ticks } = own();
        let running = |pid, start_ticks| Init { pid, start_ticks }.is_running();
        assert!(running(pid, None) && running(pid, start_ticks));
        assert!(!running(pid, start_ticks.map(|ticks| ticks + 1)));
        assert!(!running(0, None) && !running(u32::MAX, None));
    }

    #[test]
    fn a_namespace_is_its_first_processs_while_that_lives() {
        let own = own();
        let inode = namespace(own).unwrap();
        let gone = Init { start_ticks: own.start_ticks.map(|ticks| ticks + 1), ..own };
        let mut inits = Inits::default();
        assert!(inits.is_due(0));
        inits.set(&[listed(7, own), listed(8, gone)], 0, Instant::now());
        assert_eq!(inits.cgroup_of(inode), Some(CgroupKey { hierarchy: 0, id: 7 }));
        assert_eq!(inits.cgroup_of(inode + 1), None);
        assert!(!inits.is_due(0) && !inits.is_due(1), "nothing new, or too early");
        inits.set(&[listed(7, own), listed(9, own)], 1, Instant::now());
        assert_eq!(inits.cgroup_of(inode), None, "of two containers it is neither's");
    }
}
