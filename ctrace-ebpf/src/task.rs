//! Who a task is.

use ctrace_common::{Settings, TaskIdentity, offsets::TaskOffsets};

use crate::{
    cgroup::TaskCgroups,
    kernel::{Address, Global, global},
};

#[unsafe(no_mangle)]
pub static SETTINGS: Global<Settings> =
    Global::new(Settings { host_mnt_ns: 0, filter_places: 0, filter_pids: 0, reserved: 0 });

#[unsafe(no_mangle)]
pub static TASK_OFFSETS: Global<TaskOffsets> = Global::new(TaskOffsets::UNKNOWN);

/// `include/linux/sched.h`
const PF_KTHREAD: u32 = 0x0020_0000;

/// A `struct task_struct`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Task(pub Address);

impl Task {
    /// Its thread id in the initial pid namespace.
    #[inline(always)]
    pub fn tid(self) -> u32 {
        self.0.read(global!(TASK_OFFSETS, pid))
    }

    /// Its process id in the initial pid namespace.
    #[inline(always)]
    pub fn tgid(self) -> u32 {
        self.0.read(global!(TASK_OFFSETS, tgid))
    }

    /// `PF_*`
    #[inline(always)]
    pub fn flags(self) -> u32 {
        self.0.read(global!(TASK_OFFSETS, flags))
    }

    /// Whether it is a thread of the kernel's own.
    #[inline(always)]
    pub fn is_kernel_thread(self) -> bool {
        self.flags() & PF_KTHREAD != 0
    }

    /// Whether its mount namespace is the host's, or it has none (any more).
    #[inline(always)]
    pub fn is_in_host(self) -> bool {
        let inode = self.mnt_ns();
        inode == 0 || inode == global!(SETTINGS, host_mnt_ns)
    }

    /// Inode of its mount namespace; 0: it has none (any more).
    #[inline(always)]
    pub fn mnt_ns(self) -> u32 {
        let nsproxy = self.0.follow(global!(TASK_OFFSETS, nsproxy));
        let mnt_ns = nsproxy.follow(global!(TASK_OFFSETS, nsproxy_mnt));
        mnt_ns.read(global!(TASK_OFFSETS, mnt_ns_inum))
    }

    #[inline(always)]
    pub fn cgroups(self) -> TaskCgroups {
        TaskCgroups::of_css_set(self.0.follow(global!(TASK_OFFSETS, cgroups)))
    }

    #[inline(always)]
    pub fn signal(self) -> Address {
        self.0.follow(global!(TASK_OFFSETS, signal))
    }

    /// The `struct upid` of its process in its own pid namespace, and that namespace's level; the
    /// initial one has level 0.
    #[inline(always)]
    fn own_upid(self) -> (Address, u32) {
        // `numbers` holds the process's ids from the initial namespace (0) to its own (`level`).
        let pid = self.signal().follow(global!(TASK_OFFSETS, signal_tgid_pid));
        let level: u32 = pid.read(global!(TASK_OFFSETS, pid_level));
        let numbers = pid.member(global!(TASK_OFFSETS, pid_numbers));
        let own = numbers.0 + level as u64 * global!(TASK_OFFSETS, upid_size) as u64;
        (Address(own), level)
    }

    /// Whether its process is the first of a pid namespace that is not the host's: such as a
    /// container's.
    #[inline(always)]
    pub fn is_first_in_nested_pid_ns(self) -> bool {
        let (own, level) = self.own_upid();
        let number: u32 = own.read(global!(TASK_OFFSETS, upid_nr));
        number == 1 && level > 0
    }

    /// Fills `identity` with the task, under the name of its process: a thread may have one of its
    /// own.
    #[inline(always)]
    pub fn identify_process(self, identity: &mut TaskIdentity) {
        self.identify(identity);
        let leader = self.0.follow(global!(TASK_OFFSETS, group_leader));
        identity.comm = leader.read(global!(TASK_OFFSETS, comm));
    }

    /// Fills `identity` with all that can be read of the task.
    #[inline(always)]
    pub fn identify(self, identity: &mut TaskIdentity) {
        let task = self.0;
        let parent = task.follow(global!(TASK_OFFSETS, real_parent));
        let leader = task.follow(global!(TASK_OFFSETS, group_leader));
        let cred = task.follow(global!(TASK_OFFSETS, real_cred));
        let cgroups = self.cgroups();
        let nsproxy = task.follow(global!(TASK_OFFSETS, nsproxy));
        let mnt_ns = nsproxy.follow(global!(TASK_OFFSETS, nsproxy_mnt));
        let net_ns = nsproxy.follow(global!(TASK_OFFSETS, nsproxy_net));

        let parent_leader = parent.follow(global!(TASK_OFFSETS, group_leader));

        identity.start_boottime_ns = leader.read(global!(TASK_OFFSETS, start_boottime));
        identity.parent_start_boottime_ns =
            parent_leader.read(global!(TASK_OFFSETS, start_boottime));
        identity.cgroup_v2 = cgroups.v2.id();
        identity.cgroup_v1 = cgroups.v1.id();
        identity.hierarchy_v1 = cgroups.v1.hierarchy();
        identity.tgid = task.read(global!(TASK_OFFSETS, tgid));
        identity.tid = self.tid();
        identity.ppid = parent.read(global!(TASK_OFFSETS, tgid));
        identity.uid = cred.read(global!(TASK_OFFSETS, cred_uid));
        let kernel_thread = self.is_kernel_thread();
        identity.flags = (!cred.is_null() as u16 * TaskIdentity::HAS_UID)
            | (kernel_thread as u16 * TaskIdentity::KERNEL_THREAD);
        identity.mnt_ns = mnt_ns.read(global!(TASK_OFFSETS, mnt_ns_inum));
        identity.mnt_ns_id = mnt_ns.read(global!(TASK_OFFSETS, mnt_ns_id));
        identity.net_ns = net_ns.read(global!(TASK_OFFSETS, net_inum));
        identity.net_ns_id = net_ns.read(global!(TASK_OFFSETS, net_id));
        identity.comm = task.read(global!(TASK_OFFSETS, comm));

        let (own, level) = self.own_upid();
        identity.pid_in_ns = own.read(global!(TASK_OFFSETS, upid_nr));
        let pid_ns = own.follow(global!(TASK_OFFSETS, upid_ns));
        identity.pid_ns = pid_ns.read(global!(TASK_OFFSETS, pid_ns_inum));
        identity.pid_ns_id = pid_ns.read(global!(TASK_OFFSETS, pid_ns_id));
        identity.pid_ns_level = level as u16;
    }
}
