//! Signals that end processes: `signal:signal_generate`.

use aya::Ebpf;
use ctrace_common::{
    Kind,
    event::signal::Signal as Record,
    offsets::{MISSING, SignalOffsets},
};
use zerocopy::{FromBytes, IntoBytes};

use super::{
    Asked, Attach, DecodeError, Decoder, Hook, Probe, ProbePlan, Program, Strategy, Unsupported,
    offsets::member,
};
use crate::{
    event::{Deadliness, Payload, Signal, SignalVia, Subject},
    kernel::{Btf, Facts},
};

pub struct SignalProbe;

impl Probe for SignalProbe {
    fn name(&self) -> &'static str {
        "signal"
    }

    fn doc(&self) -> &'static str {
        "signals that end processes, and who sent them"
    }

    fn events(&self) -> &'static [&'static str] {
        &["signal"]
    }

    fn plan(&self, facts: &Facts, asked: &Asked) -> Result<ProbePlan, Unsupported> {
        if facts.features.raw_tp.is_err() {
            return Err(Unsupported { feature: "raw_tp".to_owned(), min_kernel: Some("4.17") });
        }
        let offsets = offsets(&facts.btf, asked.all)?;
        let attach = Attach::RawTracepoint("signal_generate");
        let programs = vec![Program { name: "signal_generate", attach }];
        let hook = Hook {
            name: "signal:signal_generate",
            strategy: Some(Strategy { name: "raw_tp", programs }),
            required: true,
            fallback: None,
            gives: "every signal, with its sender",
            lost: None,
            why: None,
        };
        let globals = vec![("SIGNAL_OFFSETS", offsets.as_bytes().to_vec())];
        Ok(ProbePlan { globals, hooks: vec![hook] })
    }

    fn decoder(
        &self,
        _facts: &Facts,
        asked: &Asked,
        _object: &mut Ebpf,
    ) -> anyhow::Result<Box<dyn Decoder>> {
        Ok(Box::new(SignalDecoder { all: asked.all }))
    }
}

/// What a process does with a signal must be read, not guessed.
fn offsets(btf: &Btf, all: bool) -> Result<SignalOffsets, Unsupported> {
    let must = |ty: &str, path: &str| match member(btf, ty, path) {
        MISSING => Err(unknown(&format!("{ty}.{path}"))),
        offset => Ok(offset),
    };
    Ok(SignalOffsets {
        all: all.into(),
        task_sighand: must("task_struct", "sighand")?,
        task_blocked: must("task_struct", "blocked")?,
        task_ptrace: must("task_struct", "ptrace")?,
        signal_nr_threads: must("signal_struct", "nr_threads")?,
        sighand_action: must("sighand_struct", "action")?,
        sigaction_size: btf.size_of("k_sigaction").ok_or_else(|| unknown("k_sigaction"))?,
        sigaction_handler: must("k_sigaction", "sa.sa_handler")?,
        info_code: must("kernel_siginfo", "si_code")?,
        info_address: must("kernel_siginfo", "_sifields._sigfault._addr")?,
        info_syscall: must("kernel_siginfo", "_sifields._sigsys._syscall")?,
    })
}

fn unknown(what: &str) -> Unsupported {
    Unsupported { feature: format!("{what} in the kernel's BTF"), min_kernel: None }
}

struct SignalDecoder {
    all: bool,
}

impl Decoder for SignalDecoder {
    fn kinds(&self) -> &'static [Kind] {
        &[Kind::Signal]
    }

    fn decode(&mut self, record: &[u8]) -> Result<(Subject, Payload), DecodeError> {
        let short = DecodeError::Short { got: record.len(), want: size_of::<Record>() };
        // Copied: a replayed record need not be aligned.
        let (record, _) = Record::read_from_prefix(record).map_err(|_| short)?;
        let Record {
            header: _,
            victim,
            running,
            address,
            number,
            code,
            result,
            syscall,
            flags,
            reserved: _,
        } = record;
        let has = |flag| flags & flag != 0;
        let victim = Subject::of_record(&victim, None);
        let running = Subject::of_record(&running, None);
        let via = via(number, code, flags, &running, &victim);
        let deadliness = match (has(Record::FATAL), has(Record::MAYBE_FATAL)) {
            (true, _) => Deadliness::Fatal,
            (false, true) => Deadliness::Perhaps,
            (false, false) => Deadliness::None,
        };
        let signal = Signal {
            number,
            code,
            via,
            init: (via == SignalVia::PidNamespaceEnd).then(|| running.clone()),
            sender: has(Record::HAS_SENDER).then_some(running),
            is_group: has(Record::GROUP),
            result,
            address: (via == SignalVia::Fault && code != SI_KERNEL).then_some(address),
            syscall: (via == SignalVia::Seccomp).then_some(syscall),
            deadliness,
        };
        Ok((victim, Payload::Signal(Box::new(signal))))
    }

    /// What does not end the process is for the verdict alone, and seccomp has events of its own.
    fn shows(&mut self, _subject: &Subject, payload: &Payload) -> bool {
        let Payload::Signal(signal) = payload else { return true };
        let is_fatal = signal.deadliness != Deadliness::None;
        self.all || (is_fatal && signal.via != SignalVia::Seccomp)
    }
}

/// `include/uapi/asm-generic/siginfo.h`
const SI_KERNEL: i32 = 0x80;
const SI_TIMER: i32 = -2;
const SYS_SECCOMP: i32 = 1;

/// By what a signal came, as far as its code and the task that was running tell.
fn via(number: u32, code: i32, flags: u32, running: &Subject, victim: &Subject) -> SignalVia {
    let has = |flag| flags & flag != 0;
    let number = i32::try_from(number).unwrap_or(0);
    let is_own = running.process.pid == victim.process.pid;
    let exits = has(Record::RUNNING_EXITS);
    match number {
        // No system call gives the kernel no siginfo.
        _ if has(Record::NO_INFO) && has(Record::HAS_SENDER) && exits => SignalVia::ParentDeath,
        libc::SIGKILL if has(Record::NO_INFO) && has(Record::HAS_SENDER) => SignalVia::CgroupKill,
        libc::SIGPIPE if has(Record::NO_INFO) => SignalVia::BrokenPipe,
        _ if has(Record::NO_INFO) => SignalVia::Kernel,
        libc::SIGKILL if has(Record::PRIVILEGED) && exits && is_init_of(running, victim) => {
            SignalVia::PidNamespaceEnd
        }
        // setitimer(2), alarm(2)
        libc::SIGALRM | libc::SIGVTALRM | libc::SIGPROF if has(Record::PRIVILEGED) => {
            SignalVia::Timer
        }
        _ if has(Record::PRIVILEGED) => SignalVia::Kernel,
        _ if has(Record::HAS_SENDER) => SignalVia::Process,
        _ if code == SI_TIMER => SignalVia::Timer,
        libc::SIGSYS if code == SYS_SECCOMP => SignalVia::Seccomp,
        libc::SIGSEGV | libc::SIGBUS | libc::SIGFPE | libc::SIGILL | libc::SIGTRAP
            if code > 0 && is_own =>
        {
            SignalVia::Fault
        }
        _ => SignalVia::Kernel,
    }
}

/// Whether the running task is the first of the victim's pid namespace, or of one around it.
fn is_init_of(running: &Subject, victim: &Subject) -> bool {
    let (outer, inner) = (&running.namespaces, &victim.namespaces);
    let may_hold = match outer.pid_level.cmp(&inner.pid_level) {
        std::cmp::Ordering::Less => true,
        std::cmp::Ordering::Equal => outer.pid.inode == inner.pid.inode,
        std::cmp::Ordering::Greater => false,
    };
    running.process.container_pid == Some(1) && outer.is_pid_nested && may_hold
}

#[cfg(test)]
mod tests {
    use ctrace_common::TaskIdentity;
    use proptest::prelude::*;
    use zerocopy::FromZeros;

    use super::*;

    fn task(tgid: u32, pid_in_ns: u32, pid_ns: u32, level: u16) -> TaskIdentity {
        let mut task = TaskIdentity::new_zeroed();
        (task.tgid, task.tid, task.start_boottime_ns) = (tgid, tgid, 1);
        (task.pid_in_ns, task.pid_ns, task.pid_ns_level) = (pid_in_ns, pid_ns, level);
        task
    }

    fn decode(number: i32, code: i32, flags: u32, of: [TaskIdentity; 2]) -> Signal {
        let mut record = Record::new_zeroed();
        [record.victim, record.running] = of;
        (record.number, record.code, record.flags) = (number as u32, code, flags);
        (record.address, record.syscall) = (0x10, 101);
        match (SignalDecoder { all: false }).decode(record.as_bytes()) {
            Ok((_, Payload::Signal(signal))) => *signal,
            other => panic!("{other:?}"),
        }
    }

    const SENDER: u32 = Record::HAS_SENDER | Record::FATAL;

    #[test]
    fn who_is_behind_it() {
        let [victim, other] = [task(7, 7, 1, 0), task(9, 9, 1, 0)];
        let via = |number, code, flags, running| decode(number, code, flags, [victim, running]).via;
        assert_eq!(via(libc::SIGKILL, 0, SENDER, other), SignalVia::Process);
        let no_info = SENDER | Record::NO_INFO;
        assert_eq!(via(libc::SIGKILL, 0, no_info, other), SignalVia::CgroupKill);
        let death = no_info | Record::RUNNING_EXITS;
        assert_eq!(via(libc::SIGKILL, 0, death, other), SignalVia::ParentDeath);
        assert_eq!(via(libc::SIGTERM, 0, death, other), SignalVia::ParentDeath);
        assert_eq!(via(libc::SIGPIPE, 0, Record::NO_INFO, victim), SignalVia::BrokenPipe);
        assert_eq!(via(libc::SIGKILL, 0x80, Record::PRIVILEGED, other), SignalVia::Kernel);
        assert_eq!(via(libc::SIGALRM, 0x80, Record::PRIVILEGED, other), SignalVia::Timer);
        assert_eq!(via(libc::SIGUSR1, SI_TIMER, 0, other), SignalVia::Timer);
        assert_eq!(via(libc::SIGSEGV, 1, 0, victim), SignalVia::Fault);
        assert_eq!(via(libc::SIGSEGV, SI_KERNEL, 0, victim), SignalVia::Fault);
        assert_eq!(via(libc::SIGBUS, 5, 0, other), SignalVia::Kernel, "memory that failed");
        assert_eq!(via(libc::SIGSYS, 1, 0, victim), SignalVia::Seccomp);
        assert_eq!(via(libc::SIGSYS, 0, SENDER, other), SignalVia::Process);
    }

    #[test]
    fn a_pid_namespaces_end() {
        let flags = Record::PRIVILEGED | Record::RUNNING_EXITS;
        let via = |victim, running| decode(libc::SIGKILL, 0x80, flags, [victim, running]).via;
        let init = task(7, 1, 50, 1);
        assert_eq!(via(task(8, 2, 50, 1), init), SignalVia::PidNamespaceEnd);
        assert_eq!(via(task(8, 1, 60, 2), init), SignalVia::PidNamespaceEnd);
        assert_eq!(via(task(8, 2, 51, 1), init), SignalVia::Kernel, "of another namespace");
        assert_eq!(via(task(8, 2, 50, 1), task(9, 3, 50, 1)), SignalVia::Kernel, "not the first");
        assert_eq!(via(task(8, 2, 1, 0), task(1, 1, 1, 0)), SignalVia::Kernel, "the host's");
    }

    #[test]
    fn only_what_is_known() {
        let both = [task(7, 7, 1, 0), task(7, 7, 1, 0)];
        let fault = decode(libc::SIGSEGV, 1, Record::FATAL, both);
        assert_eq!((fault.address, fault.syscall, fault.sender), (Some(0x10), None, None));
        let general = decode(libc::SIGSEGV, SI_KERNEL, Record::FATAL, both);
        assert_eq!(general.address, None, "a general protection fault has no address");
        let refused = decode(libc::SIGSYS, SYS_SECCOMP, Record::FATAL, both);
        assert_eq!((refused.address, refused.syscall), (None, Some(101)));
    }

    #[test]
    fn what_is_shown() {
        let shows = |all, deadliness, via| {
            let both = [task(7, 7, 1, 0), task(9, 9, 1, 0)];
            let signal = Signal { deadliness, via, ..decode(libc::SIGTERM, 0, SENDER, both) };
            SignalDecoder { all }.shows(&Subject::default(), &Payload::Signal(Box::new(signal)))
        };
        assert!(shows(false, Deadliness::Fatal, SignalVia::Process));
        assert!(shows(false, Deadliness::Perhaps, SignalVia::Process));
        assert!(!shows(false, Deadliness::None, SignalVia::Process));
        assert!(!shows(false, Deadliness::Fatal, SignalVia::Seccomp));
        assert!(shows(true, Deadliness::None, SignalVia::Seccomp));
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..size_of::<Record>() + 8)) {
            let _ = SignalDecoder { all: true }.decode(&bytes);
        }
    }
}
