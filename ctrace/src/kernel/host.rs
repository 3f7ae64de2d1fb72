//! What this process may do on this host: kernel release, lockdown, capabilities.

use std::{fs, io, os::unix::fs::MetadataExt};

/// The capabilities that ctrace's parts need. Values are `CAP_*` of
/// `include/uapi/linux/capability.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Capability {
    /// `CAP_DAC_READ_SEARCH`: opening cgroups by id.
    DacReadSearch = 2,
    /// `CAP_SYS_ADMIN`: stands in for BPF and PERFMON.
    SysAdmin = 21,
    /// `CAP_SYS_RESOURCE`: raising the memory lock limit on kernels before 5.11.
    SysResource = 24,
    /// `CAP_SYSLOG`: `/dev/kmsg` and the addresses in `/proc/kallsyms`.
    Syslog = 34,
    /// `CAP_PERFMON`: tracing programs.
    Perfmon = 38,
    /// `CAP_BPF`: BPF programs and maps.
    Bpf = 39,
}

impl Capability {
    /// Every capability ctrace asks about.
    pub const ALL: [Self; 6] = [
        Self::DacReadSearch,
        Self::SysAdmin,
        Self::SysResource,
        Self::Syslog,
        Self::Perfmon,
        Self::Bpf,
    ];

    /// Its name as capabilities(7) has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::DacReadSearch => "CAP_DAC_READ_SEARCH",
            Self::SysAdmin => "CAP_SYS_ADMIN",
            Self::SysResource => "CAP_SYS_RESOURCE",
            Self::Syslog => "CAP_SYSLOG",
            Self::Perfmon => "CAP_PERFMON",
            Self::Bpf => "CAP_BPF",
        }
    }
}

/// A set of effective capabilities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities(u64);

impl Capabilities {
    /// This process's effective capabilities, from `/proc/self/status`.
    ///
    /// # Errors
    /// Where the file cannot be read or has no `CapEff` line.
    pub fn of_self() -> io::Result<Self> {
        let status = fs::read_to_string("/proc/self/status")?;
        Self::parse(&status).ok_or_else(|| io::Error::other("no CapEff in /proc/self/status"))
    }

    /// Reads the `CapEff` line out of the text of a `/proc/<pid>/status`.
    pub fn parse(status: &str) -> Option<Self> {
        let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
        u64::from_str_radix(line.trim(), 16).ok().map(Self)
    }

    /// Whether the set has this capability.
    pub fn has(self, capability: Capability) -> bool {
        self.0 >> (capability as u8) & 1 == 1
    }

    /// What ctrace cannot run without and this set lacks, by name.
    pub fn missing(self) -> Vec<&'static str> {
        if self.may_trace() {
            return Vec::new();
        }
        let needed = [Capability::Bpf, Capability::Perfmon].into_iter();
        needed.filter(|&capability| !self.has(capability)).map(Capability::name).collect()
    }

    /// Whether tracing programs may be loaded: BPF and PERFMON, or SYS_ADMIN.
    pub fn may_trace(self) -> bool {
        self.has(Capability::SysAdmin)
            || (self.has(Capability::Bpf) && self.has(Capability::Perfmon))
    }
}

/// The kernel's lockdown mode, see kernel_lockdown(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Lockdown {
    /// No restriction.
    None,
    /// The kernel cannot be changed from user space.
    Integrity,
    /// Nor may its memory be read: this refuses most tracing.
    Confidentiality,
}

impl Lockdown {
    /// The mode from securityfs; `None` where that is not mounted or the kernel has no lockdown,
    /// which cannot be told apart.
    pub fn of_kernel() -> Option<Self> {
        Self::parse(&fs::read_to_string("/sys/kernel/security/lockdown").ok()?)
    }

    /// Reads `none [integrity] confidentiality`, where the brackets mark the mode.
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once('[')?.1.split_once(']')?.0 {
            "none" => Some(Self::None),
            "integrity" => Some(Self::Integrity),
            "confidentiality" => Some(Self::Confidentiality),
            _ => None,
        }
    }
}

/// The kernel's release, such as `6.18.44`, as uname(2) has it.
///
/// # Errors
/// Where `/proc` is not mounted.
pub fn kernel_release() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/osrelease")?.trim_end().to_owned())
}

/// Inode of the host's mount namespace: that of the kernel's own threads, of which `kthreadd` is the
/// first, else of process 1, else of this process.
///
/// # Errors
/// Where `/proc` is not mounted.
pub fn mnt_ns() -> io::Result<u32> {
    let inode = |pid: &str| Ok(fs::metadata(format!("/proc/{pid}/ns/mnt"))?.ino() as u32);
    let is_kthreadd = fs::read_to_string("/proc/2/comm").is_ok_and(|comm| comm == "kthreadd\n");
    let of_kernel = is_kthreadd.then(|| inode("2").ok()).flatten();
    of_kernel.map_or_else(|| inode("1").or_else(|_| inode("self")), Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities() {
        let all = Capabilities::parse("Name:\tx\nCapEff:\t000001fffeffffff\n").unwrap();
        assert!(all.has(Capability::Bpf) && all.has(Capability::SysAdmin));
        assert!(!all.has(Capability::SysResource));
        let two = Capabilities::parse("CapEff:\t000000c000000000").unwrap();
        assert!(two.may_trace() && !two.has(Capability::SysAdmin));
        assert_eq!(Capabilities::default().missing(), ["CAP_BPF", "CAP_PERFMON"]);
        assert!(two.missing().is_empty() && !Capabilities::default().may_trace());
        assert_eq!(Capabilities::parse("CapPrm:\t0\n"), None);
        assert_eq!(Capabilities::parse("CapEff:\tx\n"), None);
    }

    #[test]
    fn lockdown() {
        let parse = Lockdown::parse;
        assert_eq!(parse("none [integrity] confidentiality\n"), Some(Lockdown::Integrity));
        assert_eq!(parse("[none] integrity confidentiality\n"), Some(Lockdown::None));
        assert_eq!(parse("none integrity\n"), None);
        assert_eq!(parse("[new]"), None);
    }

    #[test]
    fn this_host() {
        assert!(!kernel_release().unwrap().is_empty());
        Capabilities::of_self().unwrap();
        assert_ne!(mnt_ns().unwrap(), 0);
    }
}
