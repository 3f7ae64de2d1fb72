//! Signals and their codes by name.

/// The name of a signal, as signal(7) has it: `SIGKILL`, `SIGRTMIN+3`.
pub fn signal_name(number: u32) -> String {
    // The kernel's first real-time signal; the C library keeps two for itself.
    const RT_MIN: u32 = 32;
    let signal =
        i32::try_from(number).ok().and_then(|n| nix::sys::signal::Signal::try_from(n).ok());
    match signal {
        Some(signal) => signal.as_str().to_owned(),
        None if (RT_MIN..=64).contains(&number) => format!("SIGRTMIN+{}", number - RT_MIN),
        None => format!("signal {number}"),
    }
}

/// The name of `siginfo.si_code` for this signal, as sigaction(2) has it, else the number:
/// `include/uapi/asm-generic/siginfo.h`.
pub fn signal_code(number: u32, code: i32) -> String {
    let number = i32::try_from(number).unwrap_or(0);
    let of_signal: &[&str] = match number {
        libc::SIGILL => &[
            "ILL_ILLOPC",
            "ILL_ILLOPN",
            "ILL_ILLADR",
            "ILL_ILLTRP",
            "ILL_PRVOPC",
            "ILL_PRVREG",
            "ILL_COPROC",
            "ILL_BADSTK",
            "ILL_BADIADDR",
        ],
        libc::SIGFPE => &[
            "FPE_INTDIV",
            "FPE_INTOVF",
            "FPE_FLTDIV",
            "FPE_FLTOVF",
            "FPE_FLTUND",
            "FPE_FLTRES",
            "FPE_FLTINV",
            "FPE_FLTSUB",
        ],
        libc::SIGSEGV => &[
            "SEGV_MAPERR",
            "SEGV_ACCERR",
            "SEGV_BNDERR",
            "SEGV_PKUERR",
            "SEGV_ACCADI",
            "SEGV_ADIDERR",
            "SEGV_ADIPERR",
            "SEGV_MTEAERR",
            "SEGV_MTESERR",
            "SEGV_CPERR",
        ],
        libc::SIGBUS => {
            &["BUS_ADRALN", "BUS_ADRERR", "BUS_OBJERR", "BUS_MCEERR_AR", "BUS_MCEERR_AO"]
        }
        libc::SIGTRAP => {
            &["TRAP_BRKPT", "TRAP_TRACE", "TRAP_BRANCH", "TRAP_HWBKPT", "TRAP_UNK", "TRAP_PERF"]
        }
        libc::SIGCHLD => &[
            "CLD_EXITED",
            "CLD_KILLED",
            "CLD_DUMPED",
            "CLD_TRAPPED",
            "CLD_STOPPED",
            "CLD_CONTINUED",
        ],
        libc::SIGIO => &["POLL_IN", "POLL_OUT", "POLL_MSG", "POLL_ERR", "POLL_PRI", "POLL_HUP"],
        libc::SIGSYS => &["SYS_SECCOMP", "SYS_USER_DISPATCH"],
        _ => &[],
    };
    let name = match code {
        0 => Some("SI_USER"),
        0x80 => Some("SI_KERNEL"),
        -1 => Some("SI_QUEUE"),
        -2 => Some("SI_TIMER"),
        -3 => Some("SI_MESGQ"),
        -4 => Some("SI_ASYNCIO"),
        -5 => Some("SI_SIGIO"),
        -6 => Some("SI_TKILL"),
        -7 => Some("SI_DETHREAD"),
        -60 => Some("SI_ASYNCNL"),
        _ => usize::try_from(code - 1).ok().and_then(|index| of_signal.get(index).copied()),
    };
    name.map_or_else(|| code.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_of_signals() {
        for (number, name) in [
            (9, "SIGKILL"),
            (31, "SIGSYS"),
            (34, "SIGRTMIN+2"),
            (64, "SIGRTMIN+32"),
            (99, "signal 99"),
        ] {
            assert_eq!(signal_name(number), name);
        }
    }

    /// The numbers are the C library's.
    #[test]
    fn names_of_codes() {
        for (number, code, name) in [
            (libc::SIGSEGV, 1, "SEGV_MAPERR"),
            (libc::SIGSEGV, 2, "SEGV_ACCERR"),
            (libc::SIGBUS, libc::BUS_ADRERR, "BUS_ADRERR"),
            (libc::SIGFPE, 1, "FPE_INTDIV"),
            (libc::SIGCHLD, libc::CLD_CONTINUED, "CLD_CONTINUED"),
            (libc::SIGTRAP, libc::TRAP_BRKPT, "TRAP_BRKPT"),
            (libc::SIGTERM, libc::SI_USER, "SI_USER"),
            (libc::SIGTERM, libc::SI_TKILL, "SI_TKILL"),
            (libc::SIGSEGV, libc::SI_KERNEL, "SI_KERNEL"),
            (libc::SIGALRM, libc::SI_TIMER, "SI_TIMER"),
            (libc::SIGSYS, 1, "SYS_SECCOMP"),
            (libc::SIGTERM, 3, "3"),
            (libc::SIGSEGV, 99, "99"),
        ] {
            assert_eq!(signal_code(number as u32, code), name);
        }
    }

    proptest! {
        #[test]
        fn every_code_has_a_name(number in any::<u32>(), code in any::<i32>()) {
            prop_assert!(!signal_code(number, code).is_empty());
            prop_assert!(!signal_name(number).is_empty());
        }
    }
}
