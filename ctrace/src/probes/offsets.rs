//! The offsets that every probe needs, from the kernel's BTF.

use ctrace_common::offsets::{CgroupOffsets, MISSING, SchedOffsets, TaskOffsets};

use crate::kernel::{Btf, cgroups::CgroupLayout};

/// A member's offset; [`MISSING`] where this kernel has none.
pub fn member(btf: &Btf, ty: &str, path: &str) -> u32 {
    btf.offset(ty, path).unwrap_or(MISSING)
}

/// The first of several names that this kernel knows: members are renamed over the years.
pub fn any_member(btf: &Btf, ty: &str, paths: &[&str]) -> u32 {
    paths.iter().find_map(|path| btf.offset(ty, path)).unwrap_or(MISSING)
}

/// An array element's offset.
fn element(array: u32, index: Option<i64>, size: u32) -> u32 {
    let index = index.and_then(|index| u32::try_from(index).ok());
    match index {
        Some(index) if array != MISSING => array + index * size,
        _ => MISSING,
    }
}

/// Whether `sched_process_exit` is `(task, bool group_dead)`, from 6.16 on, and not `(task)`.
fn exit_group_dead(btf: &Btf) -> bool {
    btf.tracepoint("sched_process_exit").is_some_and(|prototype| prototype.args.len() == 2)
}

const POINTER: u32 = size_of::<u64>() as u32;

/// For the global `TASK_OFFSETS`.
pub fn task(btf: &Btf) -> TaskOffsets {
    let at = |ty, path| member(btf, ty, path);
    TaskOffsets {
        pid: at("task_struct", "pid"),
        tgid: at("task_struct", "tgid"),
        comm: at("task_struct", "comm"),
        flags: at("task_struct", "flags"),
        exit_code: at("task_struct", "exit_code"),
        group_leader: at("task_struct", "group_leader"),
        real_parent: at("task_struct", "real_parent"),
        // `real_start_time` before 5.5.
        start_boottime: any_member(btf, "task_struct", &["start_boottime", "real_start_time"]),
        real_cred: at("task_struct", "real_cred"),
        cgroups: at("task_struct", "cgroups"),
        nsproxy: at("task_struct", "nsproxy"),
        signal: at("task_struct", "signal"),
        mm: at("task_struct", "mm"),
        mems_allowed: at("task_struct", "mems_allowed"),
        mempolicy: at("task_struct", "mempolicy"),
        cred_uid: at("cred", "uid"),
        signal_oom_score_adj: at("signal_struct", "oom_score_adj"),
        signal_live: at("signal_struct", "live"),
        exit_group_dead: exit_group_dead(btf).into(),
        signal_flags: at("signal_struct", "flags"),
        signal_group_exit_code: at("signal_struct", "group_exit_code"),
        mm_arg_start: at("mm_struct", "arg_start"),
        mm_arg_end: at("mm_struct", "arg_end"),
        binprm_filename: at("linux_binprm", "filename"),
        signal_tgid_pid: element(
            at("signal_struct", "pids"),
            btf.enum_value("PIDTYPE_TGID"),
            POINTER,
        ),
        pid_level: at("pid", "level"),
        pid_numbers: at("pid", "numbers"),
        upid_size: btf.size_of("upid").unwrap_or(MISSING),
        upid_nr: at("upid", "nr"),
        upid_ns: at("upid", "ns"),
        pid_ns_inum: at("pid_namespace", "ns.inum"),
        pid_ns_id: at("pid_namespace", "ns.ns_id"),
        nsproxy_mnt: at("nsproxy", "mnt_ns"),
        mnt_ns_inum: at("mnt_namespace", "ns.inum"),
        mnt_ns_id: any_member(btf, "mnt_namespace", &["ns.ns_id", "seq"]),
        nsproxy_net: at("nsproxy", "net_ns"),
        net_inum: at("net", "ns.inum"),
        // From 5.12 on; an atomic counter of 8 bytes before 5.14.
        net_id: any_member(btf, "net", &["ns.ns_id", "net_cookie"]),
        mempolicy_mode: at("mempolicy", "mode"),
        // A union `v` before 5.14.
        mempolicy_nodes: any_member(btf, "mempolicy", &["nodes", "v.nodes"]),
    }
}

/// `css_set.subsys[X]`, X by the subsystem's name, which is `io` for blkio too.
pub fn css_of_subsystem(btf: &Btf, name: &str) -> u32 {
    // The enumerators carry the name: `pids_cgrp_id`.
    let index = btf.enum_value(&format!("{name}_cgrp_id"));
    element(member(btf, "css_set", "subsys"), index, POINTER)
}

/// For the global `CGROUP_OFFSETS`.
pub fn cgroup(btf: &Btf, layout: &CgroupLayout) -> CgroupOffsets {
    let at = |ty, path| member(btf, ty, path);
    let css = |controller: &str| css_of_subsystem(btf, controller);
    CgroupOffsets {
        css_set_dfl: at("css_set", "dfl_cgrp"),
        css_set_v1: layout.identity_v1().map_or(MISSING, |(_, controller)| css(controller)),
        css_set_memory: css("memory"),
        css_cgroup: at("cgroup_subsys_state", "cgroup"),
        cgroup_kn: at("cgroup", "kn"),
        cgroup_root: at("cgroup", "root"),
        cgroup_level: at("cgroup", "level"),
        root_hierarchy: at("cgroup_root", "hierarchy_id"),
        kn_id: at("kernfs_node", "id"),
        kn_name: at("kernfs_node", "name"),
        kn_parent: any_member(btf, "kernfs_node", &["__parent", "parent"]),
    }
}

/// For the global `SCHED_OFFSETS`.
pub fn sched(btf: &Btf) -> SchedOffsets {
    let at = |ty, path| member(btf, ty, path);
    SchedOffsets {
        task_pcount: at("task_struct", "sched_info.pcount"),
        task_run_delay: at("task_struct", "sched_info.run_delay"),
        task_last_arrival: at("task_struct", "sched_info.last_arrival"),
        task_last_queued: at("task_struct", "sched_info.last_queued"),
        task_nvcsw: at("task_struct", "nvcsw"),
        task_nivcsw: at("task_struct", "nivcsw"),
        task_state: any_member(btf, "task_struct", &["__state", "state"]),
        task_on_cpu: at("task_struct", "on_cpu"),
        task_on_rq: at("task_struct", "on_rq"),
        task_cpu: any_member(btf, "task_struct", &["thread_info.cpu", "cpu"]),
        task_sched_delayed: at("task_struct", "se.sched_delayed"),
        task_exec_start: at("task_struct", "se.exec_start"),
        task_cfs_rq: at("task_struct", "se.cfs_rq"),
        cfs_rq_rq: at("cfs_rq", "rq"),
        cfs_rq_throttled: any_member(
            btf,
            "cfs_rq",
            &[
                "throttled_clock_self_time",
                "throttled_clock_pelt_time",
                "throttled_clock_task_time",
            ],
        ),
        rq_clock: at("rq", "clock"),
        rq_clock_task: at("rq", "clock_task"),
    }
}
