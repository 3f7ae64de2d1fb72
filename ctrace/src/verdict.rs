//! One verdict per death: the end of a process, held against the signals and OOM kills before it. Pure.
//!
//! Invariants:
//! - The signal of the verdict is one that was seen to be sent, and that the process's status names.
//! - A sender is a container runtime's only where it is in no container but one around the victim's:
//!   any process can give itself a runtime's name.
//! - What was not seen is [`CauseKind::Unknown`], but for SIGSYS: a seccomp filter that kills a thread
//!   sends no signal (seccomp(2)).

use std::collections::VecDeque;
use std::hash::Hash;

use rustc_hash::FxHashMap;

use crate::event::{
    Cause, CauseKind, Deadliness, Exit, Oom, OomCause, Payload, SeccompAction, Signal, SignalCause,
    SignalVia, Subject, Via,
};

#[cfg(test)]
mod tests;

/// Processes that are remembered until they end: the newest.
const MAX_PROCESSES: usize = 4096;
/// Signals that are remembered of each.
const MAX_SIGNALS: usize = 8;
/// Containers whose OOM kills are remembered, and kills of each.
const MAX_CONTAINERS: usize = 1024;
const MAX_KILLS: usize = 1024;
/// How long before its end a container may have been asked to end, nanoseconds: the longest grace
/// period that people give, and some.
const MAX_GRACE_NS: u64 = 600_000_000_000;

/// Names of the processes that stop containers, as `task_struct.comm` cuts them.
/// A name that ends in `*` is the start of one.
const RUNTIMES: [&str; 16] = [
    "dockerd",
    "containerd",
    "containerd-shim*",
    "runc*",
    "crun",
    "conmon",
    "conmonrs",
    "podman",
    "crio",
    "kubelet",
    "nerdctl",
    "youki",
    "runsc*",
    "kata-runtime",
    "lxc-*",
    "lxd",
];

/// A process: its id in the initial pid namespace, and its start.
type ProcessKey = (u32, u64);

/// What was seen of deaths to come.
#[derive(Default)]
pub struct Verdicts {
    processes: Recent<ProcessKey, Seen>,
    /// When OOM kills were, and of whom, by container id.
    kills: Recent<String, VecDeque<(u64, u32)>>,
}

/// What may end a process.
#[derive(Default)]
struct Seen {
    /// Those that end it, as they came, and the last that asked it to end.
    signals: Vec<Noted>,
    oom: Option<OomCause>,
    /// The system call that a seccomp filter ended it for.
    refused: Option<&'static str>,
}

struct Noted {
    time_ns: u64,
    deadliness: Deadliness,
    by_runtime: Option<bool>,
    cause: SignalCause,
}

impl Verdicts {
    /// Takes in what an event says of a death to come. `time_ns`: since boot.
    pub fn note(&mut self, subject: &Subject, payload: &Payload, time_ns: u64) {
        match payload {
            Payload::OomKill(oom) => self.note_oom(subject, oom, time_ns),
            Payload::Signal(signal) => self.note_signal(subject, signal, time_ns),
            Payload::Seccomp(seccomp)
                if seccomp.action.is_kill() || seccomp.action == SeccompAction::Trap =>
            {
                let seen = self.processes.entry(key(subject), MAX_PROCESSES);
                seen.refused = seccomp.syscall;
            }
            _ => {}
        }
    }

    fn note_oom(&mut self, subject: &Subject, oom: &Oom, time_ns: u64) {
        let process = &subject.process;
        let pid = process.pid.unwrap_or(process.tid);
        if let Some(container) = subject.container() {
            let kills = self.kills.entry(container.id.clone(), MAX_CONTAINERS);
            if kills.len() >= MAX_KILLS {
                kills.pop_front();
            }
            kills.push_back((time_ns, pid));
        }
        let cgroup = oom.oom_cgroup().map(str::to_owned);
        let seen = self.processes.entry(key(subject), MAX_PROCESSES);
        seen.oom = Some(OomCause { id: oom.id, why: oom.why(), cgroup });
    }

    fn note_signal(&mut self, subject: &Subject, signal: &Signal, time_ns: u64) {
        let by_runtime = match &signal.sender {
            Some(sender) => is_runtime(sender, subject),
            None => Some(false),
        };
        let is_asking = signal.deadliness == Deadliness::None;
        if is_asking && by_runtime != Some(true) && !asks_to_end(signal.number) {
            return;
        }
        let noted = Noted {
            time_ns,
            deadliness: signal.deadliness,
            by_runtime,
            cause: SignalCause {
                number: signal.number,
                code: signal.code,
                via: signal.via,
                sender: signal.sender.clone(),
                is_own: signal.is_own(Some(subject)),
                init: signal.init.clone(),
                address: signal.address,
                syscall: signal.syscall,
                before_ns: 0,
            },
        };
        let signals = &mut self.processes.entry(key(subject), MAX_PROCESSES).signals;
        if is_asking {
            signals.retain(|one| one.deadliness != Deadliness::None);
        }
        if signals.len() >= MAX_SIGNALS {
            // The first and the last are those that verdicts go by.
            signals.remove(1);
        }
        signals.push(noted);
    }

    /// Completes an event by what was seen. True: what is missing may still come, because OOM kills
    /// are recorded while their victims end.
    pub fn complete(&self, subject: &Subject, payload: &mut Payload, time_ns: u64) -> bool {
        match payload {
            Payload::Exit(exit) => self.judge(subject, exit, time_ns),
            Payload::Signal(signal) if is_kill_of_the_kernel(signal.number, signal.via) => {
                let is_oom = self.oom(subject).is_some();
                if is_oom {
                    signal.via = SignalVia::Oom;
                }
                !is_oom
            }
            _ => false,
        }
    }

    fn judge(&self, subject: &Subject, exit: &mut Exit, time_ns: u64) -> bool {
        if exit.container_end {
            exit.oom_kills_inside = Some(self.kills_inside(subject));
        }
        let seen = self.processes.get(&key(subject));
        let signals = seen.map(|seen| seen.signals.as_slice()).unwrap_or_default();
        let Some(number) = exit.signal else {
            exit.cause = Some(Box::new(of_own_accord(signals, time_ns)));
            return false;
        };
        let of_number = || {
            let is_it = |one: &&Noted| one.cause.number == number;
            signals.iter().filter(|one| one.deadliness != Deadliness::None).filter(is_it)
        };
        // The first begins the end, but a tracer may have kept it from the process, and one that only
        // a certain thread takes may be taken late.
        let is_certain = |one: &&Noted| one.deadliness == Deadliness::Fatal;
        let noted = match is_dumping(number) {
            false => of_number().find(is_certain).or_else(|| of_number().next_back()),
            true => of_number().rfind(is_certain).or_else(|| of_number().next_back()),
        };
        let via = noted.map(|noted| noted.cause.via);
        let oom = self.oom(subject).filter(|_| {
            number == SIGKILL && via.is_none_or(|via| is_kill_of_the_kernel(number, via))
        });
        let kind = match via {
            _ if oom.is_some() => CauseKind::Oom,
            Some(SignalVia::Fault) => CauseKind::Fault,
            Some(SignalVia::Seccomp) => CauseKind::Seccomp,
            Some(_) => CauseKind::Signal,
            None if number == SIGSYS => CauseKind::Seccomp,
            None => CauseKind::Unknown,
        };
        let is_open = kind == CauseKind::Unknown
            || (kind == CauseKind::Signal
                && via.is_some_and(|via| is_kill_of_the_kernel(number, via)));
        let mut signal = noted.map(|noted| cause_of(noted, time_ns));
        if let (CauseKind::Oom, Some(signal)) = (kind, &mut signal) {
            signal.via = SignalVia::Oom;
        }
        exit.cause = Some(Box::new(Cause {
            kind,
            oom: oom.cloned(),
            syscall: seen.filter(|_| kind == CauseKind::Seccomp).and_then(|seen| seen.refused),
            by_runtime: noted.map_or(Some(false), |noted| noted.by_runtime),
            signal,
        }));
        is_open
    }

    /// The OOM kill of this process. Of some only the pid was known to the kernel.
    fn oom(&self, subject: &Subject) -> Option<&OomCause> {
        let (pid, start) = key(subject);
        let seen = [(pid, start), (pid, 0)].map(|key| self.processes.get(&key));
        seen.into_iter().flatten().find_map(|seen| seen.oom.as_ref())
    }

    /// OOM kills in its container since it started, its own left out.
    fn kills_inside(&self, init: &Subject) -> u64 {
        let kills = init.container().and_then(|container| self.kills.get(&container.id));
        let (pid, start) = key(init);
        let is_inside = |(time_ns, victim): &&(u64, u32)| *time_ns >= start && *victim != pid;
        kills.map_or(0, |kills| kills.iter().filter(is_inside).count() as u64)
    }
}

/// It ended with an exit code; what asked it to, if anything did.
fn of_own_accord(signals: &[Noted], time_ns: u64) -> Cause {
    let is_recent = |one: &&Noted| time_ns.saturating_sub(one.time_ns) < MAX_GRACE_NS;
    let is_asking = |one: &&Noted| one.deadliness == Deadliness::None;
    let asked = signals.iter().rfind(is_asking).filter(is_recent);
    Cause {
        kind: CauseKind::Exit,
        oom: None,
        syscall: None,
        by_runtime: asked.map_or(Some(false), |asked| asked.by_runtime),
        signal: asked.map(|asked| cause_of(asked, time_ns)),
    }
}

fn cause_of(noted: &Noted, time_ns: u64) -> SignalCause {
    SignalCause { before_ns: time_ns.saturating_sub(noted.time_ns), ..noted.cause.clone() }
}

/// The process that an event is about.
fn key(subject: &Subject) -> ProcessKey {
    let process = &subject.process;
    (process.pid.unwrap_or(process.tid), process.start_boottime_ns.unwrap_or(0))
}

/// SIGHUP, SIGINT, SIGQUIT and SIGTERM ask a process to end; with others only a runtime does.
fn asks_to_end(number: u32) -> bool {
    matches!(number, 1 | 2 | 3 | 15)
}

const SIGKILL: u32 = 9;
const SIGSYS: u32 = 31;

/// SIGKILL of the kernel's own, for a reason that the signal does not tell.
fn is_kill_of_the_kernel(number: u32, via: SignalVia) -> bool {
    number == SIGKILL && via == SignalVia::Kernel
}

/// Whether a process takes the signal before it begins to end: those that dump a core, signal(7).
fn is_dumping(number: u32) -> bool {
    matches!(number, 3..=8 | 11 | 24 | 25 | 31)
}

/// Whether the sender is the runtime of the victim's container. It is not known of a program that was
/// run by a file descriptor, as crun and runc do: before Linux 6.14 its name is the descriptor's number
/// (fexecve(3), <https://github.com/torvalds/linux/commit/543841d18060>).
fn is_runtime(sender: &Subject, victim: &Subject) -> Option<bool> {
    match sender.attribution.via {
        Via::RuntimeHelper => return Some(true),
        // It may be in a container, and call itself what it likes.
        Via::Unknown => return None,
        _ => {}
    }
    let is_outside = match sender.container() {
        None => true,
        Some(of_sender) => victim.attribution.outer.iter().any(|outer| outer.id == of_sender.id),
    };
    let comm = sender.process.comm.as_deref().unwrap_or_default();
    let is_name = |name: &&str| match name.strip_suffix('*') {
        Some(start) => comm.starts_with(start),
        None => comm == *name,
    };
    let is_nameless = comm.bytes().all(|byte| byte.is_ascii_digit());
    match is_outside && is_nameless {
        true => None,
        false => Some(is_outside && RUNTIMES.iter().any(is_name)),
    }
}

/// A map that forgets the oldest keys.
struct Recent<K, V> {
    map: FxHashMap<K, V>,
    order: VecDeque<K>,
}

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self { map: FxHashMap::default(), order: VecDeque::new() }
    }
}

impl<K: Hash + Eq + Clone, V: Default> Recent<K, V> {
    fn get(&self, key: &K) -> Option<&V> {
        self.map.get(key)
    }

    /// The value of `key`, made where there is none; there are at most `max`.
    fn entry(&mut self, key: K, max: usize) -> &mut V {
        if !self.map.contains_key(&key) {
            while self.order.len() >= max {
                if let Some(oldest) = self.order.pop_front() {
                    self.map.remove(&oldest);
                }
            }
            self.order.push_back(key.clone());
        }
        self.map.entry(key).or_default()
    }
}
