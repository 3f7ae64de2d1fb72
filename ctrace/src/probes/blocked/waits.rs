//! What a task waits for, by the functions that it is in.

/// A wait and how it shows in a stack: one of these names in each of the groups. A `*` at the end
/// stands for any end. `fs/` and the like say where in the kernel's sources the functions are.
struct Wait {
    name: &'static str,
    shows: &'static [&'static [&'static str]],
}

const fn wait(name: &'static str, shows: &'static [&'static [&'static str]]) -> Wait {
    Wait { name, shows }
}

/// The sleep of `msleep` and the like, which kernel threads spend their time in.
pub const TIMER: &str = "a timer";

/// The first that fits counts: what is served by someone else comes before locks, a lock before
/// what its holder may wait for, and the plain sleeps last.
const WAITS: &[Wait] = &[
    // fs/fuse, fs/nfs and net/sunrpc, fs/smb, fs/9p and net/9p, fs/ceph
    wait("a FUSE server", &[&["request_wait_answer", "fuse_wait*", "__fuse_*request*"]]),
    wait("an NFS server", &[&["rpc_wait_bit_killable", "nfs_*", "nfs4_*", "nfs3_*"]]),
    wait("an SMB server", &[&["cifs_*", "smb2_*", "SMB2_*"]]),
    wait("a 9P server", &[&["p9_client_*", "p9_virtio_*", "v9fs_*"]]),
    wait("a Ceph cluster", &[&["ceph_*"]]),
    // fs/super.c: the sb_writers of a file system that FIFREEZE or a snapshot has frozen
    wait(
        "a frozen file system",
        &[
            &["percpu_rwsem_wait", "__percpu_down_read", "__sb_start_write"],
            &[
                "vfs_*",
                "mnt_want_write*",
                "do_open",
                "open_last_lookups",
                "path_openat",
                "filename_create",
                "do_unlinkat",
                "do_truncate",
                "*_page_mkwrite",
                "ext4_*",
                "xfs_*",
                "btrfs_*",
                "iter_file_splice_write",
                "touch_atime",
            ],
        ],
    ),
    // fs/jbd2, fs/xfs/xfs_log*.c
    wait("the file system's journal", &[&["jbd2_*", "xlog_*", "xfs_log_*", "btrfs_commit_*"]]),
    // mm/page-writeback.c
    wait("dirty pages to be written (throttled)", &[&["balance_dirty_pages*"]]),
    // block/blk-rq-qos.c, block/blk-throttle.c
    wait(
        "block I/O (throttled)",
        &[&["rq_qos_wait", "wbt_wait", "iocg_*", "blk_cgroup_*", "__blk_throtl_*"]],
    ),
    wait("a frozen block queue", &[&["blk_queue_enter", "bio_queue_enter", "__bio_queue_enter"]]),
    wait("a free slot of a block device", &[&["blk_mq_get_tag"]]),
    // mm
    wait("swap-in", &[&["do_swap_page", "swap_read*", "swapin_*"]]),
    wait("an OOM kill", &[&["mem_cgroup_oom_synchronize", "mem_cgroup_oom*"]]),
    wait(
        "memory to be reclaimed",
        &[&["reclaim_throttle", "throttle_direct_reclaim", "congestion_wait"]],
    ),
    wait(
        "memory.high (throttled)",
        &[&["mem_cgroup_handle_over_high", "__mem_cgroup_handle_over_high"]],
    ),
    // kernel/locking
    wait(
        "the memory map's lock",
        &[
            &["rwsem_down_*", "down_read*", "down_write*"],
            &[
                "do_user_addr_fault",
                "lock_mm_and_find_vma",
                "vm_mmap_pgoff",
                "__vm_munmap",
                "do_mprotect_pkey",
                "__do_sys_brk",
                "exit_mmap",
                "dup_mmap",
                "__access_remote_vm",
            ],
        ],
    ),
    wait(
        "a read-write lock",
        &[&["rwsem_down_*", "down_read*", "down_write*", "percpu_rwsem_wait", "percpu_down_write"]],
    ),
    wait(
        "a mutex",
        &[&["__mutex_lock*", "mutex_lock*", "__ww_mutex_*", "rt_mutex_*", "__rt_mutex_*"]],
    ),
    wait("a semaphore", &[&["__down", "__down_common", "__down_killable"]]),
    // kernel/fork.c, fs/coredump.c, kernel/rcu, kernel/workqueue.c
    wait(
        "a child of vfork to exec or end",
        &[&["kernel_clone", "_do_fork", "wait_for_vfork_done"]],
    ),
    wait("a core dump", &[&["coredump_wait", "do_coredump", "coredump_task_exit", "vfs_coredump"]]),
    wait(
        "an RCU grace period",
        &[&[
            "synchronize_rcu*",
            "__wait_rcu_gp",
            "synchronize_srcu*",
            "__synchronize_srcu",
            "rcu_barrier*",
        ]],
    ),
    wait(
        "work of another kernel thread",
        &[&[
            "__flush_work",
            "__flush_workqueue",
            "flush_workqueue",
            "kthread_stop",
            "drain_workqueue",
        ]],
    ),
    wait(
        "a device's answer",
        &[&[
            "blk_execute_rq*",
            "scsi_execute*",
            "usb_start_wait_urb",
            "nvme_submit_*",
            "ata_exec_internal*",
        ]],
    ),
    // mm/filemap.c, fs/buffer.c, block
    wait(
        "block I/O",
        &[&[
            "io_schedule*",
            "folio_wait_*",
            "wait_on_page_*",
            "__lock_page*",
            "__folio_lock*",
            "bit_wait_io*",
            "__wait_on_buffer",
            "submit_bio_wait",
            "blkdev_*",
            "__blkdev_*",
            "iomap_dio_*",
            "__iomap_dio_*",
            "dio_await_*",
            "do_blockdev_direct_IO",
        ]],
    ),
    // kernel/time
    wait(TIMER, &[&["msleep*", "schedule_timeout_uninterruptible", "usleep_range*", "fsleep"]]),
    wait("a completion", &[&["wait_for_completion*", "__wait_for_common", "wait_for_common"]]),
];

impl Wait {
    fn fits(&self, stack: &[&str]) -> bool {
        let is_in = |name: &&str| stack.iter().any(|function| fits(name, function));
        self.shows.iter().all(|names| names.iter().any(is_in))
    }
}

fn fits(pattern: &str, function: &str) -> bool {
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(end), Some(_)) => function.contains(end.trim_end_matches('*')),
        (Some(end), None) => function.ends_with(end),
        (None, Some(start)) => match start.split_once('*') {
            Some((start, middle)) => {
                function.strip_prefix(start).is_some_and(|rest| rest.contains(middle))
            }
            None => function.starts_with(start),
        },
        (None, None) => function == pattern,
    }
}

/// What the task with this stack, innermost function first, waits for.
pub fn named(stack: &[String]) -> Option<&'static str> {
    // Without the module.
    let names = stack.iter().map(|name| name.split(' ').next().unwrap_or_default());
    let names: Vec<&str> = names.collect();
    WAITS.iter().find(|wait| wait.fits(&names)).map(|wait| wait.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(stack: &str) -> Option<&'static str> {
        named(&stack.split(", ").map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn stacks_of_real_waits() {
        for (stack, wait) in [
            (
                "percpu_rwsem_wait, __percpu_down_read, vfs_write, ksys_write, do_syscall_64",
                "a frozen file system",
            ),
            (
                "percpu_rwsem_wait, __percpu_down_read, cgroup_css_set_fork, copy_process, \
                 kernel_clone",
                "a read-write lock",
            ),
            ("request_wait_answer [fuse], fuse_simple_request [fuse], vfs_read", "a FUSE server"),
            ("io_schedule, folio_wait_bit_common, filemap_read, vfs_read", "block I/O"),
            (
                "schedule, jbd2_log_wait_commit [jbd2], ext4_sync_file [ext4]",
                "the file system's journal",
            ),
            ("schedule_timeout, msleep, worker", "a timer"),
            ("schedule_preempt_disabled, __mutex_lock.constprop, vfs_open", "a mutex"),
            ("rwsem_down_read_slowpath, down_read, do_user_addr_fault", "the memory map's lock"),
            (
                "wait_for_completion, kernel_clone, __do_sys_vfork",
                "a child of vfork to exec or end",
            ),
        ] {
            assert_eq!(of(stack), Some(wait), "{stack}");
        }
        assert_eq!(of("schedule, some_driver_wait"), None);
        assert_eq!(named(&[]), None);
    }

    #[test]
    fn patterns() {
        assert!(fits("a*", "abc") && !fits("a*", "ba") && fits("a", "a") && !fits("a", "ab"));
        assert!(fits("*_mkwrite", "ext4_mkwrite") && !fits("*_mkwrite", "ext4_mkwrites"));
        assert!(
            fits("__fuse_*request*", "__fuse_simple_request") && !fits("__fuse_*request*", "x")
        );
    }
}
