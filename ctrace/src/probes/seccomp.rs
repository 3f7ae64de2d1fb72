//! System calls that a seccomp filter denies or logs: containers have one by default.
//!
//! There is no tracepoint for it: what the eBPF side says of each way to see it is in
//! `ctrace-ebpf/src/probes/seccomp.rs`.

mod audit;
mod decode;
mod folds;
mod names;
mod offsets;

use aya::{Ebpf, maps::HashMap};
use zerocopy::IntoBytes;

use super::{Asked, Attach, Decoder, Hook, Probe, ProbePlan, Program, Strategy, Unsupported};
use crate::kernel::{AuditLog, Btf, Facts};

pub struct SeccompProbe;

/// How the denials are seen that return an error: nothing but the call's own way through the kernel
/// tells of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Pairing {
    /// By `__secure_computing` where functions can be hooked, else by pairing.
    #[default]
    Auto,
    /// By pairing.
    On,
    /// By `__secure_computing` where functions can be hooked, else not.
    Off,
}

/// How they are seen on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Errors {
    /// At the return of `__secure_computing`, by this program.
    Function(&'static str),
    Pairing,
    No,
}

/// Where the calls are seen that are logged and allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Logged {
    Function,
    AuditLog,
    No,
}

const FUNCTION: &str = "__secure_computing";
const AUDIT_FUNCTION: &str = "audit_seccomp";

impl Probe for SeccompProbe {
    fn name(&self) -> &'static str {
        "seccomp"
    }

    fn doc(&self) -> &'static str {
        "system calls that a seccomp profile denies or logs"
    }

    fn events(&self) -> &'static [&'static str] {
        &["seccomp"]
    }

    fn plan(&self, facts: &Facts, asked: &Asked) -> Result<ProbePlan, Unsupported> {
        if facts.features.raw_tp.is_err() {
            return Err(Unsupported { feature: "raw_tp".to_owned(), min_kernel: Some("4.17") });
        }
        let mut offsets = offsets::offsets(&facts.btf)?;
        offsets.fold = (!tells_each(asked)).into();
        let logged = logged(facts);
        offsets.is_paired = (errors(facts, asked.seccomp_pairing) == Errors::Pairing).into();
        offsets.keep_ended = (logged == Logged::AuditLog).into();
        let hooks = vec![
            Hook {
                name: "signal:signal_generate",
                strategy: raw_tracepoints(&[
                    ("seccomp_process_fork", "sched_process_fork"),
                    ("seccomp_signal_generate", "signal_generate"),
                    ("seccomp_process_exit", "sched_process_exit"),
                ]),
                required: false,
                fallback: None,
                gives: "traps and kills",
                lost: None,
                why: None,
            },
            errors_hook(errors(facts, asked.seccomp_pairing), facts, asked.seccomp_pairing),
            logged_hook(logged, facts),
        ];
        Ok(ProbePlan { globals: vec![("SECCOMP_OFFSETS", offsets.as_bytes().to_vec())], hooks })
    }

    fn decoder(
        &self,
        facts: &Facts,
        asked: &Asked,
        object: &mut Ebpf,
    ) -> anyhow::Result<Box<dyn Decoder>> {
        let folds = folds::Folds::new(object)?;
        let log = match logged(facts) {
            Logged::AuditLog => {
                let map = object.take_map("SECCOMP_ENDED");
                let ended = map.map(HashMap::try_from).transpose()?;
                let is_sole = errors(facts, asked.seccomp_pairing) == Errors::No;
                AuditLog::open().ok().zip(ended).map(|(log, ended)| {
                    audit::Listener::start(log, ended, facts.cgroups.clone(), is_sole)
                })
            }
            Logged::Function | Logged::No => None,
        };
        Ok(Box::new(decode::SeccompDecoder::new(folds, log, tells_each(asked))))
    }
}

/// Whether each denial is an event of its own.
fn tells_each(asked: &Asked) -> bool {
    asked.no_fold || asked.all || asked.has_conditions
}

fn raw_tracepoints(programs: &[(&'static str, &'static str)]) -> Option<Strategy> {
    let program = |&(name, tracepoint)| Program { name, attach: Attach::RawTracepoint(tracepoint) };
    Some(Strategy { name: "raw_tp", programs: programs.iter().map(program).collect() })
}

/// The program that fits the prototype of `__secure_computing`: its result comes after its arguments,
/// of which there is none from 6.15 on.
fn function_program(btf: &Btf) -> Option<&'static str> {
    match btf.function(FUNCTION)?.args.len() {
        0 => Some("secure_computing_of_none"),
        1 => Some("secure_computing_of_one"),
        _ => None,
    }
}

fn errors(facts: &Facts, pairing: Pairing) -> Errors {
    let function = function_program(&facts.btf).filter(|_| facts.features.fentry.is_ok());
    match (pairing, function) {
        (Pairing::On, _) | (Pairing::Auto, None) => Errors::Pairing,
        (Pairing::Auto | Pairing::Off, Some(program)) => Errors::Function(program),
        (Pairing::Off, None) => Errors::No,
    }
}

fn errors_hook(errors: Errors, facts: &Facts, pairing: Pairing) -> Hook {
    let why = match (&facts.features.fentry, pairing) {
        (_, Pairing::On) => Some("--seccomp-pairing on".to_owned()),
        (Err(refusal), _) => Some(format!("fexit of {FUNCTION}: {refusal}")),
        (Ok(()), _) => Some(format!("the kernel's BTF has no {FUNCTION} that ctrace knows")),
    };
    let gives = "denials that return an error";
    match errors {
        Errors::Function(name) => {
            let program = Program { name, attach: Attach::Fexit(FUNCTION) };
            let strategy = Some(Strategy { name: "fexit", programs: vec![program] });
            let by_pairing = || Box::new(errors_hook(Errors::Pairing, facts, pairing));
            let fallback = (pairing != Pairing::Off).then(by_pairing);
            Hook {
                name: FUNCTION,
                strategy,
                required: false,
                fallback,
                gives,
                lost: None,
                why: None,
            }
        }
        Errors::Pairing => {
            // In this order: an exit is only of use once entries, forks and execs are seen.
            let strategy = raw_tracepoints(&[
                ("seccomp_sys_enter", "sys_enter"),
                ("seccomp_process_exec", "sched_process_exec"),
                ("seccomp_sys_exit", "sys_exit"),
            ])
            .map(|raw| Strategy { name: "pairing", ..raw });
            let lost = Some(
                "the time of two small programs in every system call of the host \
                 (--seccomp-pairing off leaves them out)",
            );
            Hook {
                name: "raw_syscalls:*",
                strategy,
                required: false,
                fallback: None,
                gives,
                lost,
                why,
            }
        }
        Errors::No => {
            let lost = Some(
                "denials that return an error are not seen, because of --seccomp-pairing off, but \
                 those of filters that ask for a log",
            );
            Hook {
                name: "raw_syscalls:*",
                strategy: None,
                required: false,
                fallback: None,
                gives,
                lost,
                why,
            }
        }
    }
}

fn logged(facts: &Facts) -> Logged {
    // (syscall, signr, code)
    let is_known = facts.btf.function(AUDIT_FUNCTION).is_some_and(|known| known.args.len() == 3);
    match (&facts.features.fentry, &facts.audit) {
        (Ok(()), _) if is_known => Logged::Function,
        (_, Ok(())) => Logged::AuditLog,
        (_, Err(_)) => Logged::No,
    }
}

fn logged_hook(logged: Logged, facts: &Facts) -> Hook {
    let refusal = facts.features.fentry.as_ref().err();
    let fentry = refusal.map(|refusal| format!("fentry of {AUDIT_FUNCTION}: {refusal}"));
    let gives = "calls that a profile logs and allows";
    let hook = Hook {
        name: AUDIT_FUNCTION,
        strategy: None,
        required: false,
        fallback: None,
        gives,
        lost: None,
        why: fentry,
    };
    match logged {
        Logged::Function => {
            let program = Program { name: AUDIT_FUNCTION, attach: Attach::Fentry(AUDIT_FUNCTION) };
            let strategy = Some(Strategy { name: "fentry", programs: vec![program] });
            Hook { strategy, why: None, ..hook }
        }
        Logged::AuditLog => {
            let strategy = Some(Strategy { name: "audit log", programs: Vec::new() });
            let lost = Some(
                "arguments, and which of two kills it was where a process has one thread; up to a \
                 second later",
            );
            Hook { strategy, lost, ..hook }
        }
        Logged::No => {
            let lost = Some("calls that a profile logs and allows are not seen");
            let audit = facts.audit.as_ref().err().map(|error| format!("audit log: {error}"));
            let why =
                [hook.why.clone(), audit].into_iter().flatten().collect::<Vec<_>>().join("; ");
            Hook { lost, why: Some(why), ..hook }
        }
    }
}
