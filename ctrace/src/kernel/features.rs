//! Which ways of tracing this kernel lets this process use, found by using them.
//!
//! Each probe loads a program of two instructions and attaches it to a function or tracepoint that
//! only runs when the host is out of memory.

use std::{fmt, fs, mem, os::fd::OwnedFd, thread};

use super::{
    btf::Btf,
    host::{Capabilities, Lockdown},
};

mod sys;

use sys::{AttachType, ProgType};

/// A tracepoint that fires only when the OOM killer chooses a victim. Every kernel has it.
const RARE_TRACEPOINT: &str = "mark_victim";
/// A function that runs only when memory cannot be had, never inlined.
const RARE_FUNCTION: &str = "out_of_memory";

/// Why something does not work here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The kernel's error number, where it was the kernel that refused.
    pub errno: Option<i32>,
    /// A sentence for people, with the error's name.
    pub reason: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Refusal {}

impl Refusal {
    fn because(reason: impl Into<String>) -> Self {
        Self { errno: None, reason: reason.into() }
    }
}

/// What loads and attaches on this host.
#[derive(Clone, Debug)]
pub struct Features {
    /// BTF-typed tracepoint programs (`tp_btf`, kernel 5.5).
    pub tp_btf: Result<(), Refusal>,
    /// Raw tracepoint programs (4.17).
    pub raw_tp: Result<(), Refusal>,
    /// Function entry and exit through BPF trampolines (5.5; arm64 6.4).
    pub fentry: Result<(), Refusal>,
    /// Kernel probes through perf.
    pub kprobe: Result<(), Refusal>,
    /// The BPF ring buffer (5.8).
    pub ring_buffer: Result<(), Refusal>,
}

/// The hooks of a trial, in place until this is dropped.
///
/// Keep it until the real programs are attached: the kernel lets whoever attaches to a hook soon
/// after it became empty wait for RCU grace periods (10 to 30 ms on a tracepoint).
#[must_use = "dropping it makes the next attach wait"]
pub struct Trial(Vec<OwnedFd>);

impl Drop for Trial {
    fn drop(&mut self) {
        let hooks = mem::take(&mut self.0);
        if !hooks.is_empty() {
            // Taking hooks out waits for grace periods too: on a thread of its own.
            thread::spawn(move || drop(hooks));
        }
    }
}

/// Attaches programs that do nothing to raw tracepoints, until the trial is dropped: what any program
/// there costs at least.
///
/// # Errors
/// [`Refusal`] where this kernel lacks a tracepoint, or refuses the program.
pub fn idle(tracepoints: &[&str]) -> Result<Trial, Refusal> {
    let host = Host::this();
    let hooks = tracepoints.iter().map(|name| raw_tp(name, &host)).collect::<Result<_, _>>();
    hooks.map(Trial)
}

impl Features {
    /// Tries everything, in a few milliseconds. The hooks go when the trial is dropped.
    ///
    /// `btf` is the kernel's own; without it `tp_btf` and `fentry` cannot be tried.
    pub fn probe(btf: Option<&Btf>) -> (Self, Trial) {
        let host = Host::this();
        let kernel_btf =
            || btf.ok_or_else(|| Refusal::because("the kernel publishes no BTF to read"));
        let mut hooks = Vec::new();
        let mut keep = |hook: Result<OwnedFd, Refusal>| hook.map(|hook| hooks.push(hook));
        let features = Self {
            tp_btf: keep(kernel_btf().and_then(|btf| tp_btf(btf, &host))),
            raw_tp: keep(raw_tp(RARE_TRACEPOINT, &host)),
            fentry: keep(kernel_btf().and_then(|btf| fentry(btf, &host))),
            kprobe: keep(kprobe(&host)),
            ring_buffer: host.explain(Feature::RingBuffer, sys::create_ring_buffer()).map(drop),
        };
        (features, Trial(hooks))
    }
}

/// What the errors are read against.
struct Host {
    may_trace: bool,
    lockdown: Option<Lockdown>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Feature {
    TpBtf,
    RawTp,
    Fentry,
    Kprobe,
    RingBuffer,
}

// The hooks hold their programs: a link or a perf event is all that has to stay open.

fn tp_btf(btf: &Btf, host: &Host) -> Result<OwnedFd, Refusal> {
    let name = format!("btf_trace_{RARE_TRACEPOINT}");
    let id = btf
        .typedef_id(&name)
        .ok_or_else(|| Refusal::because(format!("the kernel's BTF has no {name}")))?;
    let prog = sys::load(ProgType::Tracing, AttachType::TraceRawTp, id);
    let prog = host.explain(Feature::TpBtf, prog)?;
    host.explain(Feature::TpBtf, sys::raw_tracepoint_open(&prog, None))
}

fn raw_tp(tracepoint: &str, host: &Host) -> Result<OwnedFd, Refusal> {
    let prog = sys::load(ProgType::RawTracepoint, AttachType::None, 0);
    let prog = host.explain(Feature::RawTp, prog)?;
    host.explain(Feature::RawTp, sys::raw_tracepoint_open(&prog, Some(tracepoint)))
}

fn fentry(btf: &Btf, host: &Host) -> Result<OwnedFd, Refusal> {
    let id = btf
        .func_id(RARE_FUNCTION)
        .ok_or_else(|| Refusal::because(format!("the kernel's BTF has no {RARE_FUNCTION}")))?;
    let prog = sys::load(ProgType::Tracing, AttachType::TraceFentry, id);
    let prog = host.explain(Feature::Fentry, prog)?;
    host.explain(Feature::Fentry, sys::raw_tracepoint_open(&prog, None))
}

fn kprobe(host: &Host) -> Result<OwnedFd, Refusal> {
    let path = "/sys/bus/event_source/devices/kprobe/type";
    let pmu = fs::read_to_string(path)
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .ok_or_else(|| Refusal::because(format!("no CONFIG_KPROBES: {path} is missing")))?;
    let prog = sys::load(ProgType::Kprobe, AttachType::None, 0);
    let prog = host.explain(Feature::Kprobe, prog)?;
    let event = host.explain(Feature::Kprobe, sys::open_kprobe(pmu, RARE_FUNCTION))?;
    host.explain(Feature::Kprobe, sys::set_bpf(&event, &prog))?;
    Ok(event)
}

impl Host {
    fn this() -> Self {
        Self {
            // Without /proc nothing is known about rights: blame nothing on them.
            may_trace: Capabilities::of_self().map_or(true, Capabilities::may_trace),
            lockdown: Lockdown::of_kernel(),
        }
    }

    fn explain<T>(&self, feature: Feature, result: Result<T, i32>) -> Result<T, Refusal> {
        result.map_err(|errno| Refusal {
            errno: Some(errno),
            reason: match errno_name(errno) {
                Some(name) => format!("{name}: {}", self.meaning(feature, errno)),
                None => format!("error {errno}: {}", self.meaning(feature, errno)),
            },
        })
    }

    fn meaning(&self, feature: Feature, errno: i32) -> &'static str {
        match (errno, feature) {
            (libc::EPERM | libc::EACCES, _) if !self.may_trace => {
                "needs CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN"
            }
            (libc::EPERM | libc::EACCES, _) if self.lockdown == Some(Lockdown::Confidentiality) => {
                "refused by lockdown=confidentiality"
            }
            (libc::EPERM, Feature::RingBuffer) => {
                "the memory lock limit (before kernel 5.11) or a security policy"
            }
            (libc::EPERM | libc::EACCES, Feature::Fentry) => {
                "BPF trampolines are refused by this kernel (hardened or lockdown)"
            }
            (libc::EPERM | libc::EACCES, _) => {
                "refused in spite of the capabilities: lockdown, seccomp or a security policy"
            }
            (libc::ENOSYS, _) => "this kernel has no bpf or perf_event_open system call",
            (libc::EINVAL, Feature::TpBtf) => "not known to this kernel (needs 5.5)",
            (libc::EINVAL, Feature::RingBuffer) => "not known to this kernel (needs 5.8)",
            (libc::EINVAL | libc::EOPNOTSUPP | sys::ENOTSUPP, Feature::Fentry) => {
                "no BPF trampolines on this kernel (x86-64 needs 5.5, arm64 6.4)"
            }
            (libc::ENOENT, _) => "this kernel lacks the hook",
            (libc::EBUSY, _) => "another tracer holds the hook",
            (libc::ENOMEM, _) => "the kernel had no memory for it",
            _ => "refused by this kernel",
        }
    }
}

/// The names of the errors that bpf(2) and perf_event_open(2) give.
fn errno_name(errno: i32) -> Option<&'static str> {
    Some(match errno {
        libc::EPERM => "EPERM",
        libc::ENOENT => "ENOENT",
        libc::E2BIG => "E2BIG",
        libc::EBADF => "EBADF",
        libc::ENOMEM => "ENOMEM",
        libc::EACCES => "EACCES",
        libc::EFAULT => "EFAULT",
        libc::EBUSY => "EBUSY",
        libc::EEXIST => "EEXIST",
        libc::ENODEV => "ENODEV",
        libc::EINVAL => "EINVAL",
        libc::EMFILE => "EMFILE",
        libc::ENOSPC => "ENOSPC",
        libc::ENOSYS => "ENOSYS",
        libc::EOPNOTSUPP => "EOPNOTSUPP",
        sys::ENOTSUPP => "ENOTSUPP",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons() {
        let refused = |may_trace, lockdown, feature, errno| {
            Host { may_trace, lockdown }.explain::<()>(feature, Err(errno)).unwrap_err().reason
        };
        assert_eq!(
            refused(false, None, Feature::Fentry, libc::EPERM),
            "EPERM: needs CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN"
        );
        assert_eq!(
            refused(true, Some(Lockdown::Integrity), Feature::Fentry, libc::EPERM),
            "EPERM: BPF trampolines are refused by this kernel (hardened or lockdown)"
        );
        assert_eq!(
            refused(true, Some(Lockdown::Confidentiality), Feature::Kprobe, libc::EPERM),
            "EPERM: refused by lockdown=confidentiality"
        );
        assert_eq!(refused(true, None, Feature::RawTp, 999), "error 999: refused by this kernel");
    }

    #[test]
    fn this_host() {
        let btf = Btf::of_kernel().ok();
        let start = std::time::Instant::now();
        let (features, _trial) = Features::probe(btf.as_ref());
        println!("{:?} {features:#?}", start.elapsed());
        if !Capabilities::of_self().unwrap().may_trace() {
            println!("skipped: no capability to trace");
            return;
        }
        assert_eq!(features.ring_buffer, Ok(()));
        assert_eq!(features.raw_tp, Ok(()));
        assert_eq!(features.tp_btf.is_ok(), btf.is_some());
    }
}
