//! Where the running kernel keeps what the eBPF programs read.
//!
//! Rust's eBPF target has no CO-RE relocations: the collector resolves every offset from the
//! kernel's BTF and hands these structs to the programs as read-only globals. A member that this
//! kernel does not have is [`MISSING`]; the program then leaves the field out.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The kernel has no such member, index or value.
pub const MISSING: u32 = u32::MAX;

/// A struct of `u32`s, each in bytes unless it says otherwise.
macro_rules! offsets {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
        #[repr(C)]
        pub struct $name { $($(#[$field_doc])* pub $field: u32,)+ }

        impl $name {
            /// Nothing is known: every field is [`MISSING`].
            pub const UNKNOWN: Self = Self { $($field: MISSING,)+ };
        }
    };
}

offsets! {
    /// `task_struct` and what hangs on it, for [`crate::TaskIdentity`].
    TaskOffsets {
        /// `task_struct.pid`
        pid,
        /// `task_struct.tgid`
        tgid,
        /// `task_struct.comm`
        comm,
        /// `task_struct.flags`
        flags,
        /// `task_struct.exit_code`
        exit_code,
        /// `task_struct.group_leader`
        group_leader,
        /// `task_struct.real_parent`
        real_parent,
        /// `task_struct.start_boottime`
        start_boottime,
        /// `task_struct.real_cred`
        real_cred,
        /// `task_struct.cgroups`
        cgroups,
        /// `task_struct.nsproxy`
        nsproxy,
        /// `task_struct.signal`
        signal,
        /// `task_struct.mm`
        mm,
        /// `task_struct.mems_allowed`
        mems_allowed,
        /// `task_struct.mempolicy`
        mempolicy,
        /// `cred.uid`
        cred_uid,
        /// `signal_struct.oom_score_adj`
        signal_oom_score_adj,
        /// `signal_struct.live`
        signal_live,
        /// 1 where `sched_process_exit` says whether the thread is the last of its process.
        exit_group_dead,
        /// `signal_struct.flags`
        signal_flags,
        /// `signal_struct.group_exit_code`
        signal_group_exit_code,
        /// `mm_struct.arg_start`
        mm_arg_start,
        /// `mm_struct.arg_end`
        mm_arg_end,
        /// `linux_binprm.filename`
        binprm_filename,
        /// `signal_struct.pids[PIDTYPE_TGID]`
        signal_tgid_pid,
        /// `pid.level`
        pid_level,
        /// `pid.numbers`
        pid_numbers,
        /// Size of one `struct upid`.
        upid_size,
        /// `upid.nr`
        upid_nr,
        /// `upid.ns`
        upid_ns,
        /// `pid_namespace.ns.inum`
        pid_ns_inum,
        /// `pid_namespace.ns.ns_id`
        pid_ns_id,
        /// `nsproxy.mnt_ns`
        nsproxy_mnt,
        /// `mnt_namespace.ns.inum`
        mnt_ns_inum,
        /// `mnt_namespace.ns.ns_id`, before 6.18 `mnt_namespace.seq`
        mnt_ns_id,
        /// `nsproxy.net_ns`
        nsproxy_net,
        /// `net.ns.inum`
        net_inum,
        /// `net.ns.ns_id`, before 6.18 `net.net_cookie`
        net_id,
        /// `mempolicy.mode`
        mempolicy_mode,
        /// `mempolicy.nodes`
        mempolicy_nodes,
    }
}

offsets! {
    /// `cgroup` and what hangs on it.
    CgroupOffsets {
        /// `css_set.dfl_cgrp`
        css_set_dfl,
        /// `css_set.subsys[X]`, X the v1 controller that stands for a task; missing on pure v2.
        css_set_v1,
        /// `css_set.subsys[memory_cgrp_id]`
        css_set_memory,
        /// `cgroup_subsys_state.cgroup`
        css_cgroup,
        /// `cgroup.kn`
        cgroup_kn,
        /// `cgroup.root`
        cgroup_root,
        /// `cgroup.level`
        cgroup_level,
        /// `cgroup_root.hierarchy_id`
        root_hierarchy,
        /// `kernfs_node.id`
        kn_id,
        /// `kernfs_node.name`
        kn_name,
        /// `kernfs_node.__parent`, before 6.15 `parent`
        kn_parent,
    }
}

offsets! {
    /// `mm_struct`, `mem_cgroup` and `oom_control`, for [`crate::event::oom::OomKill`].
    OomOffsets {
        /// 1 where `mark_victim` passes the victim's `task_struct`, 0 where it passes its pid.
        mark_victim_task,
        /// `mm_struct.total_vm`, pages
        mm_total_vm,
        /// `mm_struct.pgtables_bytes`
        mm_pgtables,
        /// The first of `mm_struct.rss_stat`'s counts.
        mm_rss,
        /// Bytes from one count to the next.
        mm_rss_stride,
        /// `mem_cgroup.css`
        memcg_css,
        /// `mem_cgroup.memory`
        memcg_memory,
        /// `mem_cgroup.memsw`; with v2 the same place is `swap`
        memcg_swap,
        /// `mem_cgroup.oom_lock`
        memcg_oom_lock,
        /// `mem_cgroup.under_oom`
        memcg_under_oom,
        /// `mem_cgroup.oom_group`
        memcg_oom_group,
        /// `mem_cgroup.memory_events`
        memcg_events,
        /// Counters in `mem_cgroup.memory_events`, a number.
        memcg_events_len,
        /// `page_counter.usage`
        counter_usage,
        /// `page_counter.max`
        counter_max,
        /// `page_counter.failcnt`
        counter_failcnt,
        /// `page_counter.parent`
        counter_parent,
        /// `oom_control.memcg`
        control_memcg,
        /// `oom_control.gfp_mask`
        control_gfp_mask,
        /// `oom_control.order`
        control_order,
        /// `oom_control.constraint`
        control_constraint,
        /// `oom_control.chosen`
        control_chosen,
    }
}

offsets! {
    /// Registers, filters and signals, for [`crate::event::seccomp::Seccomp`].
    SeccompOffsets {
        /// `task_struct.seccomp.mode`
        mode,
        /// `task_struct.seccomp.filter`
        filter,
        /// `seccomp_filter.prev`
        filter_prev,
        /// `seccomp_filter.notif`
        filter_notif,
        /// `task_struct.ptrace`
        ptrace,
        /// `task_struct.pending.signal`
        pending,
        /// `task_struct.stack`
        stack,
        /// `task_struct.sighand`
        sighand,
        /// `sighand_struct.action[SIGSYS - 1].sa.sa_flags`
        sigsys_flags,
        /// The word of `task_struct.thread_info` that tells a call of the 32-bit ABI.
        compat,
        /// Its bit, a mask.
        compat_mask,
        /// The word of `task_struct.thread_info` that tells `PTRACE_SYSEMU`.
        emulated,
        /// Its bit, a mask.
        emulated_mask,
        /// 1 where the kernel has the helper `bpf_task_pt_regs`.
        has_task_pt_regs,
        /// Bytes from the bottom of a task's stack to its `pt_regs`.
        stack_to_regs,
        /// `pt_regs`: the system call's number.
        nr,
        /// `pt_regs`: what the system call returns.
        result,
        /// `pt_regs`: the first argument.
        arg0,
        /// The second.
        arg1,
        /// The third.
        arg2,
        /// The fourth.
        arg3,
        /// The fifth.
        arg4,
        /// The sixth.
        arg5,
        /// `pt_regs`: the first argument of the 32-bit ABI.
        compat_arg0,
        /// The second.
        compat_arg1,
        /// The third.
        compat_arg2,
        /// The fourth.
        compat_arg3,
        /// The fifth.
        compat_arg4,
        /// The sixth.
        compat_arg5,
        /// `kernel_siginfo.si_errno`
        info_errno,
        /// `kernel_siginfo.si_code`
        info_code,
        /// `kernel_siginfo._sifields._sigsys._syscall`
        info_syscall,
        /// 1: repeated denials are counted and not sent.
        fold,
        /// 1: the entry and exit of system calls are paired.
        is_paired,
        /// 1: processes with a filter are remembered when they end.
        keep_ended,
    }
}

offsets! {
    /// Of the probe of processes that end.
    ExitOptions {
        /// 1: every end; else those by a signal, and of first processes of pid namespaces.
        all,
    }
}

offsets! {
    /// `siginfo` and how a task takes signals, for [`crate::event::signal::Signal`].
    SignalOffsets {
        /// 1: every signal; else those that end a process or ask a container to end.
        all,
        /// `task_struct.sighand`
        task_sighand,
        /// `task_struct.blocked`
        task_blocked,
        /// `task_struct.ptrace`
        task_ptrace,
        /// `signal_struct.nr_threads`
        signal_nr_threads,
        /// `sighand_struct.action`
        sighand_action,
        /// Size of one `struct k_sigaction`.
        sigaction_size,
        /// `k_sigaction.sa.sa_handler`
        sigaction_handler,
        /// `kernel_siginfo.si_code`
        info_code,
        /// `kernel_siginfo._sifields._sigfault._addr`
        info_address,
        /// `kernel_siginfo._sifields._sigsys._syscall`
        info_syscall,
    }
}

offsets! {
    /// `request`, `bio` and what hangs on them, for [`crate::event::block::Block`], and what the
    /// programs are to send.
    BlockOffsets {
        /// Microseconds: what took so long or longer is sent.
        slower_us,
        /// 1: all is sent.
        all,
        /// 1 where `block_rq_complete` passes an errno below zero, 0 where a `blk_status_t`.
        complete_errno,
        /// Bits of `request.rq_flags`: the request is part of a flush sequence (`RQF_FLUSH_SEQ`).
        flush_seq,
        /// `request.q`
        rq_queue,
        /// `request.rq_disk`, before 5.15
        rq_disk,
        /// `request.cmd_flags`
        rq_cmd_flags,
        /// `request.rq_flags`
        rq_flags,
        /// `request.__data_len`
        rq_data_len,
        /// `request.__sector`
        rq_sector,
        /// `request.bio`
        rq_bio,
        /// `request.start_time_ns`
        rq_start_time,
        /// `request_queue.disk`, from 5.15 on
        queue_disk,
        /// `bio.bi_next`
        bio_next,
        /// `bio.bi_bdev`, from 5.12 on
        bio_bdev,
        /// `bio.bi_disk`, before 5.12
        bio_disk,
        /// `bio.bi_opf`
        bio_opf,
        /// `bio.bi_status`
        bio_status,
        /// `bio.bi_iter.bi_sector`
        bio_sector,
        /// `bio.bi_iter.bi_size`
        bio_size,
        /// `bio.bi_private`
        bio_private,
        /// `bio.bi_blkg`
        bio_blkg,
        /// `block_device.bd_disk`
        bdev_disk,
        /// `gendisk.major`, which `first_minor` follows
        disk_major,
        /// `gendisk.disk_name`
        disk_name,
        /// `blkcg_gq.blkcg`
        blkg_blkcg,
        /// `blkcg.css`
        blkcg_css,
        /// `css_set.subsys[io_cgrp_id]`
        css_set_io,
        /// Number of the hierarchy that the io controller is in; 0 is v2.
        io_hierarchy,
    }
}

offsets! {
    /// The scheduler's own book-keeping of a task, for the run queue's delays and for blocked tasks.
    SchedOffsets {
        /// `task_struct.sched_info.pcount`: how often it got a CPU.
        task_pcount,
        /// `task_struct.sched_info.run_delay`: nanoseconds that it waited for a CPU.
        task_run_delay,
        /// `task_struct.sched_info.last_arrival`: when it got a CPU last, by the run queue's clock.
        task_last_arrival,
        /// `task_struct.sched_info.last_queued`: since when it waits; 0: it does not.
        task_last_queued,
        /// `task_struct.nvcsw`
        task_nvcsw,
        /// `task_struct.nivcsw`
        task_nivcsw,
        /// `task_struct.__state`, before 5.14 `state`
        task_state,
        /// `task_struct.on_cpu`
        task_on_cpu,
        /// `task_struct.on_rq`
        task_on_rq,
        /// `task_struct.thread_info.cpu`, before 5.16 `task_struct.cpu`: the CPU that it is on, or
        /// was last.
        task_cpu,
        /// `task_struct.se.sched_delayed`, from 6.12 on
        task_sched_delayed,
        /// `task_struct.se.exec_start`: up to when its time on a CPU is counted, by the clock of tasks.
        task_exec_start,
        /// `task_struct.se.cfs_rq`
        task_cfs_rq,
        /// `cfs_rq.rq`
        cfs_rq_rq,
        /// `cfs_rq.throttled_clock_self_time` from 6.7 on, before that `throttled_clock_pelt_time` or
        /// `throttled_clock_task_time`: grows when a quota's use-up is over.
        cfs_rq_throttled,
        /// `rq.clock`
        rq_clock,
        /// `rq.clock_task`: stands still while interrupts or the hypervisor have the CPU.
        rq_clock_task,
    }
}
