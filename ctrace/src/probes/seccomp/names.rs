//! Names of system calls, by ABI.

use syscalls::{Errno, aarch64, arm, x86, x86_64};

/// What a number is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Abi {
    X86_64,
    I386,
    X32,
    Aarch64,
    Arm,
}

/// `AUDIT_ARCH_*`: `include/uapi/linux/audit.h`
const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
const AUDIT_ARCH_I386: u32 = 0x4000_0003;
const AUDIT_ARCH_AARCH64: u32 = 0xc000_00b7;
const AUDIT_ARCH_ARM: u32 = 0x4000_0028;

/// `__X32_SYSCALL_BIT`: `arch/x86/include/uapi/asm/unistd.h`
const X32_BIT: i32 = 0x4000_0000;
/// The first number of x32's own calls.
const X32_FIRST: i32 = 512;
/// x32's own calls, by number: `arch/x86/entry/syscalls/syscall_64.tbl`.
const X32: [&str; 36] = [
    "rt_sigaction",
    "rt_sigreturn",
    "ioctl",
    "readv",
    "writev",
    "recvfrom",
    "sendmsg",
    "recvmsg",
    "execve",
    "ptrace",
    "rt_sigpending",
    "rt_sigtimedwait",
    "rt_sigqueueinfo",
    "sigaltstack",
    "timer_create",
    "mq_notify",
    "kexec_load",
    "waitid",
    "set_robust_list",
    "get_robust_list",
    "vmsplice",
    "move_pages",
    "preadv",
    "pwritev",
    "rt_tgsigqueueinfo",
    "recvmmsg",
    "sendmmsg",
    "process_vm_readv",
    "process_vm_writev",
    "setsockopt",
    "getsockopt",
    "io_setup",
    "io_submit",
    "execveat",
    "preadv2",
    "pwritev2",
];

impl Abi {
    /// The ABI of a call on this machine. `nr` is -1 where it is none.
    pub fn of_call(nr: i32, is_compat: bool) -> Self {
        match (cfg!(target_arch = "aarch64"), is_compat) {
            (true, true) => Self::Arm,
            (true, false) => Self::Aarch64,
            (false, true) => Self::I386,
            (false, false) => Self::of_x86_64(nr),
        }
    }

    /// From the kernel's audit log.
    pub fn of_audit(arch: u32, nr: i32) -> Option<Self> {
        match arch {
            AUDIT_ARCH_X86_64 => Some(Self::of_x86_64(nr)),
            AUDIT_ARCH_I386 => Some(Self::I386),
            AUDIT_ARCH_AARCH64 => Some(Self::Aarch64),
            AUDIT_ARCH_ARM => Some(Self::Arm),
            _ => None,
        }
    }

    fn of_x86_64(nr: i32) -> Self {
        if nr >= 0 && nr & X32_BIT != 0 { Self::X32 } else { Self::X86_64 }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::I386 => "i386",
            Self::X32 => "x32",
            Self::Aarch64 => "aarch64",
            Self::Arm => "arm",
        }
    }

    /// The number in the table of the ABI, and its name there.
    pub fn call(self, nr: i32) -> (i32, Option<&'static str>) {
        let nr = if self == Self::X32 { nr & !X32_BIT } else { nr };
        (nr, usize::try_from(nr).ok().and_then(|index| self.name_of(nr, index)))
    }

    fn name_of(self, nr: i32, index: usize) -> Option<&'static str> {
        match self {
            Self::X32 if nr >= X32_FIRST => X32.get(index - X32_FIRST as usize).copied(),
            Self::X86_64 | Self::X32 => Some(x86_64::Sysno::new(index)?.name()),
            Self::I386 => Some(x86::Sysno::new(index)?.name()),
            Self::Aarch64 => Some(aarch64::Sysno::new(index)?.name()),
            Self::Arm => Some(arm::Sysno::new(index)?.name()),
        }
    }
}

/// The name of an error; none for 0 and for numbers without a name.
pub fn errno(number: u32) -> Option<&'static str> {
    let number = i32::try_from(number).ok().filter(|number| *number != 0)?;
    Errno::new(number).name()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_by_abi() {
        let name = |abi: Abi, nr| abi.call(nr).1;
        assert_eq!(name(Abi::X86_64, 165), Some("mount"));
        assert_eq!(name(Abi::I386, 21), Some("mount"));
        assert_eq!(name(Abi::Aarch64, 40), Some("mount"));
        assert_eq!(name(Abi::Arm, 21), Some("mount"));
        assert_eq!(Abi::X32.call(X32_BIT | 165), (165, Some("mount")));
        assert_eq!(Abi::X32.call(X32_BIT | 512), (512, Some("rt_sigaction")));
        assert_eq!(Abi::X32.call(X32_BIT | 547), (547, Some("pwritev2")));
        assert_eq!(name(Abi::X32, X32_BIT | 548), None);
        assert_eq!((name(Abi::X86_64, -1), name(Abi::X86_64, 100_000)), (None, None));
    }

    #[test]
    fn abis() {
        assert_eq!(Abi::of_audit(AUDIT_ARCH_X86_64, X32_BIT | 1), Some(Abi::X32));
        assert_eq!(Abi::of_audit(AUDIT_ARCH_X86_64, -1), Some(Abi::X86_64));
        assert_eq!(Abi::of_audit(0, 1), None);
        if cfg!(target_arch = "x86_64") {
            assert_eq!(Abi::of_call(1, true), Abi::I386);
            assert_eq!(Abi::of_call(X32_BIT | 1, false), Abi::X32);
            assert_eq!(Abi::of_call(1, false), Abi::X86_64);
        }
    }

    #[test]
    fn errors() {
        assert_eq!(
            (errno(1), errno(38), errno(95)),
            (Some("EPERM"), Some("ENOSYS"), Some("EOPNOTSUPP"))
        );
        assert_eq!((errno(0), errno(4000), errno(u32::MAX)), (None, None, None));
    }

    proptest! {
        #[test]
        fn any_number(nr in any::<i32>(), is_compat in any::<bool>(), number in any::<u32>()) {
            let _ = Abi::of_call(nr, is_compat).call(nr);
            let _ = errno(number);
        }
    }
}
