//! From records to events.

use ctrace_common::{
    Kind,
    event::seccomp::{Action, Seccomp, Via},
};
use zerocopy::FromBytes;

use super::{
    audit::Listener,
    folds::Folds,
    names::{self, Abi},
};
use crate::{
    event::{self, Payload, SeccompAction, Subject},
    probes::{DecodeError, Decoder},
};

pub struct SeccompDecoder {
    folds: Folds,
    log: Option<Listener>,
    no_fold: bool,
}

impl SeccompDecoder {
    pub fn new(folds: Folds, log: Option<Listener>, no_fold: bool) -> Self {
        Self { folds, log, no_fold }
    }
}

impl Decoder for SeccompDecoder {
    fn kinds(&self) -> &'static [Kind] {
        &[Kind::Seccomp]
    }

    fn decode(&mut self, record: &[u8]) -> Result<(Subject, Payload), DecodeError> {
        decode(record)
    }

    fn tick(&mut self, _now_ns: u64) -> Vec<(Subject, Payload)> {
        // What the programs made is of this build.
        let folded = self.folds.take().into_iter().filter_map(|denial| event_of(&denial));
        let mut events: Vec<_> = folded.collect();
        if let Some(log) = &mut self.log {
            events.extend(log.take(self.no_fold));
        }
        events
    }
}

fn decode(record: &[u8]) -> Result<(Subject, Payload), DecodeError> {
    let (denial, _) = Seccomp::read_from_prefix(record)
        .map_err(|_| DecodeError::Short { got: record.len(), want: size_of::<Seccomp>() })?;
    event_of(&denial).ok_or(DecodeError::Kind(denial.header.kind))
}

/// The event of a denial; none where its action or its way is of no build that this one knows.
fn event_of(denial: &Seccomp) -> Option<(Subject, Payload)> {
    let Seccomp { header: _, count, process, args, nr, data, action, via, flags, several } =
        *denial;
    let abi = Abi::of_call(nr, flags & Seccomp::COMPAT != 0);
    let (syscall_nr, syscall) = abi.call(nr);
    let action = match Action::try_from(action).ok()? {
        Action::Errno => SeccompAction::Errno,
        Action::Trap => SeccompAction::Trap,
        Action::KillThread => SeccompAction::KillThread,
        Action::KillProcess => SeccompAction::KillProcess,
        Action::Log => SeccompAction::Log,
        Action::Unknown => SeccompAction::Unknown,
    };
    let data = (flags & Seccomp::HAS_DATA != 0).then_some(data);
    let returns_error = matches!(action, SeccompAction::Errno | SeccompAction::Unknown);
    let via = match Via::try_from(via).ok()? {
        Via::SecureComputing => "fexit",
        Via::Pairing => "pairing",
        Via::Signal => "signal",
        Via::Exit => "exit",
        Via::AuditSeccomp => "fentry",
    };
    let payload = event::Seccomp {
        syscall,
        syscall_nr: syscall_nr.into(),
        arch: Some(abi.name()),
        args: args.to_vec(),
        action,
        errno: data.filter(|_| returns_error).and_then(names::errno),
        data,
        count,
        several_processes: several != 0,
        via,
    };
    Some((Subject::of_record(&process, None), Payload::Seccomp(payload)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zerocopy::{FromZeros, IntoBytes};

    use super::*;

    fn record(action: Action, data: u32) -> Seccomp {
        let mut record = Seccomp::new_zeroed();
        (record.nr, record.data, record.count) = (0, data, 1);
        (record.action, record.via) = (action as u16, Via::Pairing as u16);
        record.flags = Seccomp::HAS_DATA;
        record.process.tgid = 7;
        record
    }

    fn payload(record: &Seccomp) -> event::Seccomp {
        match decode(record.as_bytes()) {
            Ok((_, Payload::Seccomp(seccomp))) => seccomp,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn errors_have_names() {
        let seen = payload(&record(Action::Errno, 1));
        assert_eq!((seen.errno, seen.data, seen.count), (Some("EPERM"), Some(1), 1));
        assert_eq!((seen.via, seen.action), ("pairing", SeccompAction::Errno));
        let skipped = payload(&record(Action::Errno, 0));
        assert_eq!((skipped.errno, skipped.data), (None, Some(0)));
        assert!(payload(&record(Action::Errno, 38)).is_enosys());
    }

    #[test]
    fn the_data_of_a_trap_is_no_error() {
        let seen = payload(&record(Action::Trap, 1));
        assert_eq!((seen.errno, seen.data), (None, Some(1)));
        let killed = payload(&Seccomp { flags: 0, ..record(Action::KillThread, 0) });
        assert_eq!((killed.errno, killed.data), (None, None));
    }

    #[test]
    fn every_action_and_way_is_known() {
        for action in Action::ALL {
            for via in Via::ALL {
                let record = Seccomp { via: via as u16, ..record(action, 1) };
                assert!(event_of(&record).is_some(), "{action:?} {via:?}");
            }
        }
        let unknown = Seccomp { action: 99, ..record(Action::Log, 0) };
        assert_eq!(decode(unknown.as_bytes()).unwrap_err(), DecodeError::Kind(0));
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..size_of::<Seccomp>() + 8)) {
            let _ = decode(&bytes);
        }
    }
}
