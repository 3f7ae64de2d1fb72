use std::sync::Arc;

use super::*;
use crate::event::{Attribution, Constraint, Container, Process, Seccomp};

const SECOND: u64 = 1_000_000_000;

fn process(pid: u32, comm: &str, container: Option<&str>) -> Subject {
    let container = container.map(|id| Arc::new(Container { id: id.into(), ..Default::default() }));
    let comm = Some(comm.to_owned());
    let process = Process {
        pid: Some(pid),
        tid: pid,
        comm,
        start_boottime_ns: Some(SECOND),
        ..Process::default()
    };
    let via = if container.is_some() { Via::Cgroup } else { Via::Unit };
    let attribution = Attribution { container, via, ..Default::default() }.into();
    Subject { process, attribution, ..Subject::default() }
}

fn signal(number: u32, via: SignalVia, sender: Option<Subject>) -> Signal {
    Signal {
        number,
        code: 0,
        via,
        sender,
        is_group: true,
        result: 0,
        address: None,
        syscall: None,
        deadliness: Deadliness::Fatal,
        init: None,
    }
}

fn handled(number: u32, sender: Subject) -> Signal {
    let deadliness = Deadliness::None;
    Signal { deadliness, ..signal(number, SignalVia::Process, Some(sender)) }
}

/// What comes to pass with one process.
struct Scene {
    verdicts: Verdicts,
    victim: Subject,
    now: u64,
}

impl Scene {
    fn new() -> Self {
        let victim = process(7, "java", Some("web"));
        Self { verdicts: Verdicts::default(), victim, now: 10 * SECOND }
    }

    fn signal(&mut self, signal: Signal) -> &mut Self {
        self.now += SECOND;
        self.verdicts.note(&self.victim, &Payload::Signal(Box::new(signal)), self.now);
        self
    }

    fn oom(&mut self, victim: &Subject) -> &mut Self {
        self.now += SECOND;
        let constraint = Some(Constraint::Global);
        let oom = Oom { id: 5, constraint, ..Oom::default() };
        self.verdicts.note(victim, &Payload::OomKill(Box::new(oom)), self.now);
        self
    }

    fn denial(&mut self, action: SeccompAction) -> &mut Self {
        let denial = Seccomp {
            syscall: Some("keyctl"),
            syscall_nr: 250,
            arch: Some("x86_64"),
            args: Vec::new(),
            action,
            errno: None,
            data: None,
            count: 1,
            several_processes: false,
            via: "signal",
        };
        self.verdicts.note(&self.victim, &Payload::Seccomp(denial), self.now);
        self
    }

    /// The exit, and whether more may come.
    fn exit(&mut self, status: u32) -> (Exit, bool) {
        self.now += SECOND;
        let exit = Exit { container_end: true, ..Exit::of_status(status) };
        let mut payload = Payload::Exit(exit);
        let is_open = self.verdicts.complete(&self.victim, &mut payload, self.now);
        let Payload::Exit(exit) = payload else { panic!("it was an exit") };
        (exit, is_open)
    }

    fn cause(&mut self, status: u32) -> Cause {
        *self.exit(status).0.cause.expect("a verdict")
    }
}

fn bash() -> Option<Subject> {
    Some(process(9, "bash", None))
}

#[test]
fn an_oom_kill_comes_late() {
    let mut scene = Scene::new();
    scene.signal(signal(9, SignalVia::Kernel, None));
    let (exit, is_open) = scene.exit(9);
    assert_eq!(exit.cause.map(|cause| cause.kind), Some(CauseKind::Signal));
    assert!(is_open, "the OOM kill may still come");
    let victim = scene.victim.clone();
    scene.oom(&victim);
    let (exit, is_open) = scene.exit(9);
    let cause = exit.cause.expect("a verdict");
    assert_eq!((cause.kind, is_open), (CauseKind::Oom, false));
    assert_eq!(cause.oom.as_ref().map(|oom| oom.id), Some(5));
    assert_eq!(cause.text(), "the OOM killer (the host is out of memory)");
    assert_eq!(exit.oom_kills_inside, Some(0), "its own is not one of others");
}

#[test]
fn an_oom_kill_of_a_pid_alone() {
    let mut scene = Scene::new();
    let mut victim = scene.victim.clone();
    (victim.process.pid, victim.process.start_boottime_ns) = (None, None);
    assert_eq!(scene.oom(&victim).cause(9).kind, CauseKind::Oom);
}

#[test]
fn a_signal_event_of_the_oom_killer() {
    let mut scene = Scene::new();
    let complete = |scene: &Scene| {
        let mut payload = Payload::Signal(Box::new(signal(9, SignalVia::Kernel, None)));
        let is_open = scene.verdicts.complete(&scene.victim, &mut payload, scene.now);
        match payload {
            Payload::Signal(signal) => (signal.via, is_open),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(complete(&scene), (SignalVia::Kernel, true));
    let victim = scene.victim.clone();
    scene.oom(&victim);
    assert_eq!(complete(&scene), (SignalVia::Oom, false));
}

#[test]
fn one_that_was_killed_before_the_oom_killer_chose_it() {
    let mut scene = Scene::new();
    let victim = scene.victim.clone();
    scene.signal(signal(9, SignalVia::Process, bash())).oom(&victim);
    let cause = scene.cause(9);
    assert_eq!((cause.kind, cause.by_runtime), (CauseKind::Signal, Some(false)));
    assert_eq!(cause.text(), "bash[9] (unknown cgroup)");
}

#[test]
fn the_first_that_ends_it_counts() {
    let mut scene = Scene::new();
    scene.signal(signal(15, SignalVia::Process, bash()));
    scene.signal(signal(9, SignalVia::Process, Some(process(10, "other", None))));
    let cause = scene.cause(15);
    assert_eq!(cause.sender().and_then(|sender| sender.process.pid), Some(9));
    assert_eq!(cause.signal.map(|signal| signal.before_ns), Some(2 * SECOND));
}

#[test]
fn one_that_dumps_a_core_counts_as_the_last() {
    let mut scene = Scene::new();
    // A tracer kept the first from it.
    let fault = |address| Signal { address, ..signal(11, SignalVia::Fault, None) };
    scene.signal(fault(Some(1))).signal(fault(Some(2)));
    let cause = scene.cause(11 | 0x80);
    assert_eq!(cause.kind, CauseKind::Fault);
    assert_eq!(cause.signal.and_then(|signal| signal.address), Some(2));
}

#[test]
fn a_stop_and_a_strangers_kill() {
    let by = |sender: Subject| {
        let mut scene = Scene::new();
        scene.signal(signal(9, SignalVia::Process, Some(sender))).cause(9).by_runtime
    };
    for comm in ["runc", "containerd-shim", "dockerd", "runc:[1:CHILD]", "crun", "podman"] {
        assert_eq!(by(process(9, comm, None)), Some(true), "{comm}");
    }
    for comm in ["bash", "dockerd2", "kill", "7zip"] {
        assert_eq!(by(process(9, comm, None)), Some(false), "{comm}");
    }
    for comm in ["4", "17", ""] {
        assert_eq!(by(process(9, comm, None)), None, "{comm}");
    }
    for (comm, container) in [("runc", "db"), ("runc", "web"), ("4", "db")] {
        let cause = by(process(9, comm, Some(container)));
        assert_eq!(cause, Some(false), "a name that {container} gave itself");
    }
    let mut nobodys = process(9, "runc", None);
    nobodys.attribution = Attribution::default().into();
    assert_eq!(by(nobodys), None, "perhaps in a container");
    let mut helper = process(9, "sh", None);
    helper.attribution = Attribution { via: Via::RuntimeHelper, ..Default::default() }.into();
    assert_eq!(by(helper), Some(true), "in a runtime's own cgroup");
}

#[test]
fn the_runtime_of_a_container_in_a_container() {
    let mut scene = Scene::new();
    let outer = process(9, "runc", Some("kind"));
    let mut attribution = (*scene.victim.attribution).clone();
    attribution.outer = outer.container().cloned().into_iter().collect();
    scene.victim.attribution = attribution.into();
    let cause = scene.signal(signal(9, SignalVia::Process, Some(outer))).cause(9);
    assert_eq!(cause.by_runtime, Some(true));
}

#[test]
fn an_exit_that_was_asked_for() {
    let mut scene = Scene::new();
    scene.signal(handled(15, process(9, "runc", None)));
    let (exit, is_open) = scene.exit(143 << 8);
    assert_eq!((exit.runtime_code(), is_open), (Some(143), false));
    let cause = exit.cause.expect("a verdict");
    assert_eq!((cause.kind, cause.by_runtime), (CauseKind::Exit, Some(true)));
    assert_eq!(
        cause.text(),
        "asked to by SIGTERM from the container runtime, runc[9] (unknown cgroup) 1.000 s before"
    );
    scene.now += MAX_GRACE_NS;
    assert_eq!(scene.cause(0).text(), "by itself", "long ago");
}

#[test]
fn signals_that_ask_for_nothing() {
    let mut scene = Scene::new();
    scene.signal(handled(10, process(9, "bash", None)));
    assert_eq!(scene.cause(1 << 8).signal, None);
    scene.signal(handled(10, process(9, "runc", None)));
    assert_eq!(scene.cause(1 << 8).signal.map(|signal| signal.number), Some(10));
    scene.signal(handled(15, process(9, "bash", None)));
    let cause = scene.cause(1 << 8);
    assert_eq!(
        (cause.by_runtime, cause.signal.map(|signal| signal.number)),
        (Some(false), Some(15))
    );
    assert_eq!(scene.cause(9).kind, CauseKind::Unknown, "a signal that was handled ends nothing");
}

#[test]
fn seccomp() {
    let refused = Signal { syscall: Some(101), ..signal(31, SignalVia::Seccomp, None) };
    let cause = Scene::new().signal(refused).cause(31 | 0x80);
    assert_eq!(cause.text(), "a seccomp filter refused system call 101");
    for (action, text) in [
        (SeccompAction::KillThread, "a seccomp filter refused keyctl"),
        (SeccompAction::Trap, "a seccomp filter refused keyctl"),
        (SeccompAction::Errno, "a seccomp filter"),
    ] {
        assert_eq!(Scene::new().denial(action).cause(31).text(), text, "{action:?}");
    }
    let by_itself = Scene::new().denial(SeccompAction::Trap).cause(1 << 8);
    assert_eq!((by_itself.kind, by_itself.syscall), (CauseKind::Exit, None), "it handled the trap");
    let thread = Scene::new().cause(31);
    assert_eq!((thread.kind, thread.text().as_str()), (CauseKind::Seccomp, "a seccomp filter"));
    let sent = Scene::new().signal(signal(31, SignalVia::Process, bash())).cause(31);
    assert_eq!(sent.kind, CauseKind::Signal, "kill -SYS is no filter's");
}

#[test]
fn nobody_was_seen() {
    let (exit, is_open) = Scene::new().exit(9);
    assert!(is_open);
    assert_eq!(exit.runtime_code(), Some(137));
    let cause = exit.cause.expect("a verdict");
    assert_eq!(
        (cause.kind, cause.text().as_str()),
        (CauseKind::Unknown, "who sent it was not seen")
    );
}

#[test]
fn oom_kills_of_children() {
    let mut scene = Scene::new();
    let inside = |pid| process(pid, "child", Some("web"));
    scene.oom(&inside(8)).oom(&inside(9)).oom(&process(10, "child", Some("db")));
    assert_eq!(scene.exit(0).0.oom_kills_inside, Some(2));
    // The same container, started again.
    scene.victim.process.start_boottime_ns = Some(scene.now);
    assert_eq!(scene.exit(0).0.oom_kills_inside, Some(0));
}

#[test]
fn memory_is_bounded() {
    let mut scene = Scene::new();
    for pid in 1..3 * MAX_PROCESSES as u32 {
        scene.victim = process(pid, "x", Some(&pid.to_string()));
        let victim = scene.victim.clone();
        scene.oom(&victim);
        for _ in 0..2 * MAX_SIGNALS {
            scene.signal(signal(9, SignalVia::Process, bash()));
        }
    }
    let Verdicts { processes, kills } = &scene.verdicts;
    assert_eq!((processes.map.len(), processes.order.len()), (MAX_PROCESSES, MAX_PROCESSES));
    assert_eq!((kills.map.len(), kills.order.len()), (MAX_CONTAINERS, MAX_CONTAINERS));
    assert!(processes.map.values().all(|seen| seen.signals.len() <= MAX_SIGNALS));
    let (victim, other) = (process(1, "x", Some("web")), process(2, "x", Some("web")));
    for _ in 0..2 * MAX_KILLS {
        scene.oom(&other);
    }
    scene.victim = victim;
    assert_eq!(scene.exit(0).0.oom_kills_inside, Some(MAX_KILLS as u64));
}
