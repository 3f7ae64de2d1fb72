//! Processes that run another program, and those that end: `sched:sched_process_exec` and
//! `sched:sched_process_exit`.

use aya::Ebpf;
use ctrace_common::{
    Kind,
    event::process::{Exec, Exit},
    offsets::ExitOptions,
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{
    Asked, Attach, DecodeError, Decoder, Hook, Probe, ProbePlan, Program, Strategy, Unsupported,
};
use crate::{
    event::{self, Attribution, Payload, Subject, Via},
    kernel::Facts,
};

pub struct ExecProbe;
pub struct ExitProbe;

impl Probe for ExecProbe {
    fn name(&self) -> &'static str {
        "exec"
    }

    fn doc(&self) -> &'static str {
        "processes that run another program, with its arguments"
    }

    fn by_default(&self) -> bool {
        false
    }

    fn events(&self) -> &'static [&'static str] {
        &["exec"]
    }

    fn plan(&self, facts: &Facts, _asked: &Asked) -> Result<ProbePlan, Unsupported> {
        plan(facts, "sched:sched_process_exec", "sched_process_exec", "every exec")
    }

    fn decoder(
        &self,
        _facts: &Facts,
        _asked: &Asked,
        _object: &mut Ebpf,
    ) -> anyhow::Result<Box<dyn Decoder>> {
        Ok(Box::new(ExecDecoder))
    }
}

impl Probe for ExitProbe {
    fn name(&self) -> &'static str {
        "exit"
    }

    fn doc(&self) -> &'static str {
        "containers that end, and processes that a signal ends, with the cause"
    }

    fn needs(&self) -> &'static [&'static str] {
        &["oom", "signal"]
    }

    fn events(&self) -> &'static [&'static str] {
        &["exit"]
    }

    fn plan(&self, facts: &Facts, asked: &Asked) -> Result<ProbePlan, Unsupported> {
        let mut plan =
            plan(facts, "sched:sched_process_exit", "sched_process_exit", "the ends of processes")?;
        let options = ExitOptions { all: asked.all.into() };
        plan.globals.push(("EXIT_OPTIONS", options.as_bytes().to_vec()));
        Ok(plan)
    }

    fn decoder(
        &self,
        _facts: &Facts,
        asked: &Asked,
        _object: &mut Ebpf,
    ) -> anyhow::Result<Box<dyn Decoder>> {
        Ok(Box::new(ExitDecoder { all: asked.all }))
    }
}

/// One raw tracepoint is all that either takes.
fn plan(
    facts: &Facts,
    name: &'static str,
    tracepoint: &'static str,
    gives: &'static str,
) -> Result<ProbePlan, Unsupported> {
    if facts.features.raw_tp.is_err() {
        return Err(Unsupported { feature: "raw_tp".to_owned(), min_kernel: Some("4.17") });
    }
    let program = Program { name: tracepoint, attach: Attach::RawTracepoint(tracepoint) };
    let strategy = Some(Strategy { name: "raw_tp", programs: vec![program] });
    let hook =
        Hook { name, strategy, required: true, fallback: None, gives, lost: None, why: None };
    Ok(ProbePlan { hooks: vec![hook], ..ProbePlan::default() })
}

struct ExecDecoder;
struct ExitDecoder {
    all: bool,
}

impl Decoder for ExecDecoder {
    fn kinds(&self) -> &'static [Kind] {
        &[Kind::Exec]
    }

    fn decode(&mut self, record: &[u8]) -> Result<(Subject, Payload), DecodeError> {
        let (exec, text) = fixed::<Exec>(record)?;
        let short = DecodeError::Short {
            got: text.len(),
            want: exec.filename_len as usize + exec.args_len as usize,
        };
        let (filename, rest) =
            text.split_at_checked(exec.filename_len as usize).ok_or_else(|| short.clone())?;
        let args = rest.get(..exec.args_len as usize).ok_or(short)?;
        let payload = event::Exec {
            filename: filename.strip_suffix(&[0]).map(lossy).filter(|name| !name.is_empty()),
            args: words(args),
            args_cut_bytes: exec.args_total.saturating_sub(exec.args_len).into(),
        };
        Ok((Subject::of_record(&exec.process, None), Payload::Exec(payload)))
    }
}

impl Decoder for ExitDecoder {
    fn kinds(&self) -> &'static [Kind] {
        &[Kind::Exit, Kind::Death]
    }

    fn decode(&mut self, record: &[u8]) -> Result<(Subject, Payload), DecodeError> {
        let (Exit { header, process, status, reserved: _ }, _) = fixed::<Exit>(record)?;
        let started = process.start_boottime_ns;
        let payload = event::Exit {
            runtime_ns: (started != 0).then(|| header.time_ns.saturating_sub(started)),
            ..event::Exit::of_status(status)
        };
        Ok((Subject::of_record(&process, None), Payload::Exit(payload)))
    }

    fn complete(&mut self, subject: &Subject, payload: &mut Payload) {
        let Payload::Exit(exit) = payload else { return };
        exit.container_end = is_container_end(subject);
    }

    /// The programs let the first processes of all pid namespaces pass: containers are told here. One
    /// of which nothing is known may be of a container.
    fn shows(&mut self, subject: &Subject, payload: &Payload) -> bool {
        let Payload::Exit(exit) = payload else { return true };
        let is_unknown = subject.attribution.via == Via::Unknown;
        self.all || exit.signal.is_some() || exit.container_end || is_unknown
    }
}

/// Whether a process that ends was the first of its container's pid namespace. One that is deeper than
/// the containers around it account for is the container's own affair (`unshare --pid`).
///
/// Wrong in two cases, where a container shares its pid namespace or one is around it that is no
/// container's: `unshare --pid` in a container of the host's pid namespace passes for its end, and
/// the end of a container below `rootlesskit --pidns` is not seen.
fn is_container_end(subject: &Subject) -> bool {
    let Attribution { container, outer, .. } = &*subject.attribution;
    let level = subject.namespaces.pid_level as usize;
    let is_first = subject.process.container_pid == Some(1) && level > 0;
    container.is_some() && is_first && level <= 1 + outer.len()
}

/// The fixed part of a record, copied (a replayed one need not be aligned), and what follows.
fn fixed<T: FromBytes + KnownLayout + Immutable>(record: &[u8]) -> Result<(T, &[u8]), DecodeError> {
    T::read_from_prefix(record)
        .map_err(|_| DecodeError::Short { got: record.len(), want: size_of::<T>() })
}

/// Words that each end in a NUL; the last may be cut.
fn words(bytes: &[u8]) -> Vec<String> {
    let bytes = bytes.strip_suffix(&[0]).unwrap_or(bytes);
    if bytes.is_empty() { Vec::new() } else { bytes.split(|byte| *byte == 0).map(lossy).collect() }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use ctrace_common::TaskIdentity;
    use proptest::prelude::*;
    use zerocopy::FromZeros;

    use super::*;

    fn exits() -> ExitDecoder {
        ExitDecoder { all: false }
    }

    fn exec(text: &[u8], filename_len: u32, args_total: u32) -> Vec<u8> {
        let mut exec = Exec::new_zeroed();
        exec.filename_len = filename_len;
        exec.args_len = text.len() as u32 - filename_len;
        exec.args_total = args_total;
        [exec.as_bytes(), text].concat()
    }

    fn decode(record: &[u8]) -> event::Exec {
        match ExecDecoder.decode(record) {
            Ok((_, Payload::Exec(exec))) => exec,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn file_and_arguments() {
        let seen = decode(&exec(b"/bin/echo\0echo\0a b\0", 10, 9));
        assert_eq!(seen.filename.as_deref(), Some("/bin/echo"));
        assert_eq!((seen.args, seen.args_cut_bytes), (vec!["echo".into(), "a b".into()], 0));
    }

    #[test]
    fn cut_and_empty_arguments() {
        assert_eq!(decode(&exec(b"x\0a\0\0b", 2, 100)).args, ["a", "", "b"]);
        assert_eq!(decode(&exec(b"x\0a\0\0b", 2, 100)).args_cut_bytes, 96);
        assert_eq!(decode(&exec(b"", 0, 0)), event::Exec::default());
        assert_eq!(decode(&exec(b"\0", 1, 0)).filename, None);
    }

    #[test]
    fn the_first_process_ends_its_container() {
        let mut exit = Exit::new_zeroed();
        exit.header.time_ns = 5_000;
        exit.process.start_boottime_ns = 2_000;
        exit.process.tgid = 77;
        exit.process.pid_in_ns = 1;
        exit.process.pid_ns_level = 1;
        exit.status = 137 << 8;
        let (mut subject, mut payload) = exits().decode(exit.as_bytes()).expect("whole");
        exits().complete(&subject, &mut payload);
        let expected =
            event::Exit { code: Some(137), runtime_ns: Some(3_000), ..event::Exit::default() };
        assert_eq!(payload, Payload::Exit(expected.clone()), "no container, no end of one");
        let container = Some(event::Container::default().into());
        subject.attribution = event::Attribution { container, ..Default::default() }.into();
        exits().complete(&subject, &mut payload);
        assert_eq!(payload, Payload::Exit(event::Exit { container_end: true, ..expected }));
    }

    #[test]
    fn ends_that_matter() {
        let shows = |all, exit, via| {
            let attribution = Attribution { via, ..Default::default() }.into();
            let subject = Subject { attribution, ..Subject::default() };
            (ExitDecoder { all }).shows(&subject, &Payload::Exit(exit))
        };
        let plain = || event::Exit::of_status(3 << 8);
        assert!(!shows(false, plain(), Via::Host) && shows(true, plain(), Via::Host));
        assert!(shows(false, event::Exit::of_status(9), Via::Host), "a signal");
        let end = event::Exit { container_end: true, ..plain() };
        assert!(shows(false, end, Via::Cgroup), "the end of a container");
        assert!(shows(false, plain(), Via::Unknown), "the end of what may be one");
    }

    #[test]
    fn a_pid_namespace_inside_a_container_ends_alone() {
        let is_end = |pid_in_ns, level, outer: usize| {
            let mut process = TaskIdentity::new_zeroed();
            (process.pid_in_ns, process.pid_ns_level) = (pid_in_ns, level);
            let mut subject = Subject::of_record(&process, None);
            let one = || std::sync::Arc::new(event::Container::default());
            let outer = (0..outer).map(|_| one()).collect();
            let container = Some(one());
            subject.attribution = Attribution { container, outer, ..Default::default() }.into();
            is_container_end(&subject)
        };
        assert!(is_end(1, 1, 0) && !is_end(2, 1, 0), "a container");
        assert!(!is_end(1, 2, 0), "unshare in it");
        assert!(is_end(1, 2, 1) && !is_end(1, 3, 1), "a container in it, unshare in that");
        assert!(is_end(1, 1, 1), "a container in one of the host's pid namespace");
        assert!(!is_end(1, 0, 0), "the host's first process");
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..size_of::<Exec>() + 64)) {
            let _ = ExecDecoder.decode(&bytes);
            let _ = exits().decode(&bytes);
        }
    }
}
