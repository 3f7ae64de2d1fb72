//! Calls that are logged and allowed, from the kernel's audit log: on a thread of its own, because a
//! process may be gone a moment later.

use std::{
    collections::BTreeMap,
    mem,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use aya::maps::{HashMap, MapData};
use ctrace_common::{COMM_LEN, TaskIdentity, event::seccomp::Ended};

use super::names::Abi;
use crate::{
    event::{self, Lost, Payload, SeccompAction, Subject},
    kernel::{AuditLog, AuditRead, AuditSeccomp, CgroupLayout, clock, process},
};

/// `include/uapi/linux/seccomp.h`
const RET_ERRNO: u32 = 0x0005_0000;
const RET_LOG: u32 = 0x7ffc_0000;

/// How long the thread waits before it looks whether it is to end.
const WAIT_MS: i32 = 500;
/// How far the log's time is behind, at most: a tick of the kernel's clock, and of `/proc`'s.
const SLACK_MS: u64 = 20;
/// Calls that wait for the next tick; more are counted as lost.
const MAX_WAITING: usize = 64 << 10;

/// [`Ended`], which has no padding.
type EndedBytes = [u8; size_of::<Ended>()];
pub type EndedMap = HashMap<MapData, u32, EndedBytes>;

/// What was read and not yet taken.
#[derive(Default)]
struct Waiting {
    calls: Vec<(AuditSeccomp, TaskIdentity)>,
    lost: u64,
}

/// The thread that listens; it ends when this is dropped.
pub struct Listener {
    waiting: Arc<Mutex<Waiting>>,
    is_over: Arc<AtomicBool>,
}

impl Listener {
    /// Starts listening. `ended`: the processes that ended last. `is_sole`: nothing else sees the
    /// denials that return an error.
    pub fn start(log: AuditLog, ended: EndedMap, layout: CgroupLayout, is_sole: bool) -> Self {
        let waiting = Arc::<Mutex<Waiting>>::default();
        let is_over = Arc::<AtomicBool>::default();
        let this = Self { waiting: waiting.clone(), is_over: is_over.clone() };
        thread::spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                let Ok(read) = log.read(WAIT_MS) else {
                    // Nobody listens any more: what follows is lost, however much it is.
                    waiting.lock().unwrap_or_else(PoisonError::into_inner).lost += 1;
                    return;
                };
                let is_lost = match read {
                    AuditRead::Seccomp(call) if is_wanted(call.code, is_sole) => {
                        let identity = identity(&call, &ended, &layout);
                        let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
                        let has_room = waiting.calls.len() < MAX_WAITING;
                        if has_room {
                            waiting.calls.push((call, identity));
                        }
                        !has_room
                    }
                    AuditRead::Lost => true,
                    AuditRead::Seccomp(_) | AuditRead::Nothing => false,
                };
                if is_lost {
                    waiting.lock().unwrap_or_else(PoisonError::into_inner).lost += 1;
                }
            }
        });
        this
    }

    /// The events since the last call, those alike as one unless each is wanted.
    pub fn take(&mut self, no_fold: bool) -> Vec<(Subject, Payload)> {
        let Waiting { calls, lost } =
            mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        let mut events = fold(calls, no_fold);
        if lost > 0 {
            let lost = Lost { ring: "audit", kind: "seccomp", count: lost };
            events.push((Subject::default(), Payload::Lost(lost)));
        }
        events
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

/// Traps and kills are seen elsewhere, and so are errors, unless nothing else sees them.
fn is_wanted(code: u32, is_sole: bool) -> bool {
    code == RET_LOG || (is_sole && code == RET_ERRNO)
}

/// Whose call it was: a process that has ended since, or lives. Where it is neither, only what the
/// log says is known.
fn identity(call: &AuditSeccomp, ended: &EndedMap, layout: &CgroupLayout) -> TaskIdentity {
    let comm = comm(&call.comm);
    // One that began later has the same id by accident, and one that had ended before.
    let is_begun = |started_ns: u64| wall_ms(started_ns) <= call.time_ms.saturating_add(SLACK_MS);
    let gone = || {
        let bytes = ended.get(&call.pid, 0).ok()?;
        let Ended { time_ns, process } = zerocopy::transmute!(bytes);
        let is_it = wall_ms(time_ns) + SLACK_MS >= call.time_ms;
        (is_it && is_begun(process.start_boottime_ns)).then_some(process)
    };
    let living = || {
        let (identity, started) = process::identity(call.pid, layout)?;
        is_begun(started).then_some(identity)
    };
    // It may end between the two.
    let found = gone().or_else(living).or_else(gone);
    let mut identity = found.unwrap_or_else(|| TaskIdentity {
        tgid: call.pid,
        uid: call.uid.unwrap_or(0),
        flags: if call.uid.is_some() { TaskIdentity::HAS_UID } else { 0 },
        ..TaskIdentity::default()
    });
    // The log has the name of the thread, but not its id.
    (identity.comm, identity.tid) = (comm, call.pid);
    identity
}

/// Milliseconds since the epoch.
fn wall_ms(boot_ns: u64) -> u64 {
    u64::try_from(clock::wall_of_boot(boot_ns) / 1_000_000).unwrap_or(0)
}

fn comm(name: &[u8]) -> [u8; COMM_LEN] {
    let mut comm = [0; COMM_LEN];
    for (to, from) in comm[..COMM_LEN - 1].iter_mut().zip(name) {
        *to = *from;
    }
    comm
}

/// One event for the calls of a process that are alike, in the order of the first of each.
fn fold(calls: Vec<(AuditSeccomp, TaskIdentity)>, no_fold: bool) -> Vec<(Subject, Payload)> {
    let mut events: Vec<(Subject, event::Seccomp)> = Vec::new();
    let mut known = BTreeMap::new();
    for (call, identity) in calls {
        let AuditSeccomp { time_ms: _, pid, comm: _, uid: _, arch, syscall, code } = call;
        let key = (pid, identity.comm, arch, syscall, code);
        match known.get(&key) {
            Some(&index) if !no_fold => {
                let (_, seccomp): &mut (Subject, event::Seccomp) = &mut events[index];
                seccomp.count += 1;
            }
            _ => {
                known.insert(key, events.len());
                events.push((Subject::of_record(&identity, None), event_of(arch, syscall, code)));
            }
        }
    }
    events.into_iter().map(|(subject, seccomp)| (subject, Payload::Seccomp(seccomp))).collect()
}

fn event_of(arch: u32, syscall: i64, code: u32) -> event::Seccomp {
    // The kernel prints an int.
    let nr = syscall as i32;
    let abi = Abi::of_audit(arch, nr);
    let (syscall_nr, syscall) = abi.map_or((nr, None), |abi| abi.call(nr));
    event::Seccomp {
        syscall,
        syscall_nr: syscall_nr.into(),
        arch: abi.map(Abi::name),
        args: Vec::new(),
        action: if code == RET_LOG { SeccompAction::Log } else { SeccompAction::Errno },
        errno: None,
        data: None,
        count: 1,
        several_processes: false,
        via: "audit",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(pid: u32, syscall: i64) -> (AuditSeccomp, TaskIdentity) {
        let call = AuditSeccomp {
            pid,
            arch: 0xc000_003e,
            syscall,
            code: RET_LOG,
            comm: b"sh".to_vec(),
            ..AuditSeccomp::default()
        };
        (call, TaskIdentity { tgid: pid, comm: comm(b"sh"), ..TaskIdentity::default() })
    }

    #[test]
    fn those_alike_are_one() {
        let calls = || vec![call(5, 165), call(5, 165), call(6, 165), call(5, 166), call(5, 165)];
        let counts = |no_fold| {
            let events = fold(calls(), no_fold);
            let count = |(subject, payload): &(Subject, Payload)| match payload {
                Payload::Seccomp(one) => (subject.process.pid, one.syscall, one.count),
                other => panic!("{other:?}"),
            };
            events.iter().map(count).collect::<Vec<_>>()
        };
        let folded = [
            (Some(5), Some("mount"), 3),
            (Some(6), Some("mount"), 1),
            (Some(5), Some("umount2"), 1),
        ];
        assert_eq!(counts(false), folded);
        assert_eq!(counts(true).len(), 5);
    }

    #[test]
    fn what_is_seen_elsewhere_is_left_out() {
        assert!(is_wanted(RET_LOG, false) && is_wanted(RET_ERRNO, true));
        assert!(
            !is_wanted(RET_ERRNO, false) && !is_wanted(0, true) && !is_wanted(0x8000_0000, true)
        );
    }

    #[test]
    fn numbers_of_no_abi() {
        assert_eq!(event_of(0, 165, RET_LOG).syscall, None);
        assert_eq!(event_of(0xc000_003e, i64::MIN, RET_LOG).syscall, Some("read"));
        assert_eq!(event_of(0xc000_003e, -1, RET_LOG).syscall, None);
    }
}
