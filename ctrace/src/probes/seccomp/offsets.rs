//! Where the kernel keeps registers, filters and signals.

use ctrace_common::offsets::{MISSING, SeccompOffsets};

use crate::{
    kernel::Btf,
    probes::{
        Unsupported,
        offsets::{any_member, member},
    },
};

/// Registers of system calls in `pt_regs`, by their names there.
struct Registers {
    nr: u32,
    result: u32,
    args: [u32; 6],
    compat_args: [u32; 6],
    /// A word of `thread_info` and its bit: a call of the 32-bit ABI.
    compat: (u32, u32),
    /// The bit of `thread_info.flags` that tells `PTRACE_SYSEMU`, where `syscall_work` does not.
    emulated_mask: u32,
}

const SIGSYS: u32 = 31;
/// `thread_info.flags` of x86 up to 5.10: `TIF_SYSCALL_EMU`; of arm64.
const X86_EMULATED: u32 = 1 << 6;
const ARM64_EMULATED: u32 = 1 << 12;
/// `thread_info.status` of x86: `TS_COMPAT`.
const X86_COMPAT: u32 = 2;
/// `thread_info.flags` of arm64: `TIF_32BIT`.
const ARM64_COMPAT: u32 = 1 << 22;
/// Bytes of a kernel stack with pages of 4 KiB, on x86-64 and arm64. Only needed before 5.15.
const STACK: u32 = 16 << 10;
/// Bytes of a register.
const REGISTER: u32 = 8;

/// For the global `SECCOMP_OFFSETS`; what is asked for stays unset.
///
/// # Errors
/// Where the kernel has no filters, or registers that are not known here.
pub fn offsets(btf: &Btf) -> Result<SeccompOffsets, Unsupported> {
    let at = |ty, path| member(btf, ty, path);
    let missing = |feature: &str| Unsupported { feature: feature.to_owned(), min_kernel: None };
    let mode =
        btf.offset("task_struct", "seccomp.mode").ok_or_else(|| missing("CONFIG_SECCOMP"))?;
    let Registers { nr, result, args, compat_args, compat, emulated_mask } =
        registers(btf).ok_or_else(|| missing("a pt_regs of x86-64 or arm64"))?;
    let work =
        btf.enum_value("SYSCALL_WORK_BIT_SYSCALL_EMU").and_then(|bit| u32::try_from(bit).ok());
    let (emulated, emulated_mask) =
        match work.zip(btf.offset("task_struct", "thread_info.syscall_work")) {
            Some((bit, word)) if bit < u32::BITS => (word, 1 << bit),
            _ => (at("task_struct", "thread_info.flags"), emulated_mask),
        };
    let action = at("sighand_struct", "action");
    let actions = btf.size_of("k_sigaction").zip(btf.offset("k_sigaction", "sa.sa_flags"));
    let sigsys_flags = match actions {
        Some((size, flags)) if action != MISSING => action + (SIGSYS - 1) * size + flags,
        _ => MISSING,
    };
    Ok(SeccompOffsets {
        mode,
        filter: at("task_struct", "seccomp.filter"),
        filter_prev: at("seccomp_filter", "prev"),
        filter_notif: at("seccomp_filter", "notif"),
        ptrace: at("task_struct", "ptrace"),
        pending: at("task_struct", "pending.signal"),
        stack: at("task_struct", "stack"),
        sighand: at("task_struct", "sighand"),
        sigsys_flags,
        compat: compat.0,
        compat_mask: compat.1,
        emulated,
        emulated_mask,
        has_task_pt_regs: btf.enum_value("BPF_FUNC_task_pt_regs").is_some().into(),
        stack_to_regs: btf.size_of("pt_regs").map_or(MISSING, |size| STACK.saturating_sub(size)),
        nr,
        result,
        arg0: args[0],
        arg1: args[1],
        arg2: args[2],
        arg3: args[3],
        arg4: args[4],
        arg5: args[5],
        compat_arg0: compat_args[0],
        compat_arg1: compat_args[1],
        compat_arg2: compat_args[2],
        compat_arg3: compat_args[3],
        compat_arg4: compat_args[4],
        compat_arg5: compat_args[5],
        info_errno: at("kernel_siginfo", "si_errno"),
        info_code: at("kernel_siginfo", "si_code"),
        info_syscall: at("kernel_siginfo", "_sifields._sigsys._syscall"),
        fold: MISSING,
        is_paired: MISSING,
        keep_ended: MISSING,
    })
}

/// The calling conventions: syscall(2).
fn registers(btf: &Btf) -> Option<Registers> {
    let in_regs = |name: &str| any_member(btf, "pt_regs", &[name]);
    if let Some(nr) = btf.offset("pt_regs", "orig_ax") {
        return Some(Registers {
            nr,
            result: btf.offset("pt_regs", "ax")?,
            args: ["di", "si", "dx", "r10", "r8", "r9"].map(in_regs),
            compat_args: ["bx", "cx", "dx", "si", "di", "bp"].map(in_regs),
            compat: (member(btf, "task_struct", "thread_info.status"), X86_COMPAT),
            emulated_mask: X86_EMULATED,
        });
    }
    // The result replaces the first argument, which is kept beside.
    let nr = btf.offset("pt_regs", "syscallno")?;
    let (first, regs) = (btf.offset("pt_regs", "orig_x0")?, btf.offset("pt_regs", "regs")?);
    let register = |index: u32| regs + index * REGISTER;
    let args = [first, register(1), register(2), register(3), register(4), register(5)];
    Some(Registers {
        nr,
        result: regs,
        args,
        compat_args: args,
        compat: (member(btf, "task_struct", "thread_info.flags"), ARM64_COMPAT),
        emulated_mask: ARM64_EMULATED,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel() {
        let Ok(btf) = Btf::of_kernel() else { return println!("skipped: no BTF") };
        let offsets = offsets(&btf).expect("seccomp");
        let SeccompOffsets {
            filter, filter_prev, filter_notif, info_syscall, sigsys_flags, ..
        } = offsets;
        for known in [filter, filter_prev, filter_notif, info_syscall, sigsys_flags] {
            assert_ne!(known, MISSING, "{offsets:?}");
        }
    }
}
