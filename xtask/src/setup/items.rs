//! The table of what build and tests need.

use anyhow::Result;

use super::{Scope, linker, python, rust};

pub struct Item {
    pub name: &'static str,
    pub purpose: &'static str,
    pub scopes: &'static [Scope],
    pub detect: Detect,
    pub install: Install,
}

pub enum Detect {
    /// A program of this name can be started.
    Program(&'static str),
    Check(fn() -> bool),
}

pub enum Install {
    /// Debian packages.
    Packages(&'static [&'static str]),
    Steps(fn() -> Result<()>),
}

impl Item {
    pub fn serves(&self, scope: Scope) -> bool {
        scope == Scope::All || self.scopes.contains(&scope)
    }

    const fn program(
        name: &'static str,
        purpose: &'static str,
        scopes: &'static [Scope],
        packages: &'static [&'static str],
    ) -> Self {
        Self {
            name,
            purpose,
            scopes,
            detect: Detect::Program(name),
            install: Install::Packages(packages),
        }
    }

    const fn steps(
        name: &'static str,
        purpose: &'static str,
        scopes: &'static [Scope],
        check: fn() -> bool,
        steps: fn() -> Result<()>,
    ) -> Self {
        Self { name, purpose, scopes, detect: Detect::Check(check), install: Install::Steps(steps) }
    }
}

const EVERYWHERE: &[Scope] = &[Scope::Build, Scope::Test, Scope::Vm];
/// The live tests run on this machine and, with its programs, in the virtual machines.
const LIVE: &[Scope] = &[Scope::Test, Scope::Vm];
const TEST: &[Scope] = &[Scope::Test];
const VM: &[Scope] = &[Scope::Vm];

pub const ITEMS: &[Item] = &[
    Item::program("cc", "linker of host programs", EVERYWHERE, &["gcc", "libc6-dev"]),
    Item::steps(
        "rust-src",
        "core for the eBPF target",
        EVERYWHERE,
        rust::sources_found,
        rust::install_sources,
    ),
    Item::steps(
        "bpf-linker",
        "linker of the eBPF programs",
        EVERYWHERE,
        linker::is_new_enough,
        linker::install,
    ),
    Item::steps("rustfmt", "format", TEST, rust::rustfmt_found, rust::install_rustfmt),
    Item::steps("clippy", "lints", TEST, rust::clippy_found, rust::install_clippy),
    Item::program("dockerd", "containers of the live tests", LIVE, &["docker.io"]),
    Item::program("containerd", "containers of the live tests", LIVE, &["containerd"]),
    Item::program("runc", "containers of the live tests", LIVE, &["runc"]),
    Item::program("crun", "containers of the live tests", LIVE, &["crun"]),
    Item::program("podman", "containers of the live tests", LIVE, &["podman"]),
    Item::program("newuidmap", "rootless containers", LIVE, &["uidmap"]),
    Item::program("fuse-overlayfs", "rootless containers", LIVE, &["fuse-overlayfs"]),
    Item::program("iptables", "container networks", LIVE, &["iptables"]),
    Item::program("busybox", "the containers' file system", LIVE, &["busybox-static"]),
    Item::program("stress-ng", "load", LIVE, &["stress-ng"]),
    Item::program("fio", "block I/O and its ground truth", LIVE, &["fio"]),
    Item::program("perf", "the kernel's tracepoints", LIVE, &["linux-perf"]),
    Item::program("blkparse", "block I/O's ground truth", LIVE, &["blktrace"]),
    Item::program("dmsetup", "disks that fail and are slow", LIVE, &["dmsetup"]),
    Item::program("mkfs.ext4", "file systems of the live tests", LIVE, &["e2fsprogs"]),
    Item::program("strace", "system calls' ground truth", LIVE, &["strace"]),
    Item::program("bpftool", "BTF's ground truth", LIVE, &["bpftool"]),
    Item::program("jq", "reading events in scripts", LIVE, &["jq"]),
    Item::program("qemu-system-x86_64", "virtual machines", VM, &["qemu-system-x86"]),
    Item::program("depmod", "modules of the downloaded kernels", VM, &["kmod"]),
    Item::program("xz", "Debian's package lists", VM, &["xz-utils"]),
    Item::steps("virtme-ng", "virtual machines", VM, python::vng_works, python::install_vng),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_purposes_are_given() {
        let names: BTreeSet<&str> = ITEMS.iter().map(|item| item.name).collect();
        assert_eq!(names.len(), ITEMS.len());
        assert!(ITEMS.iter().all(|item| !item.purpose.is_empty()));
    }

    #[test]
    fn every_item_serves_a_scope_and_all() {
        for item in ITEMS {
            assert!(!item.scopes.is_empty(), "{}", item.name);
            assert!(!item.scopes.contains(&Scope::All), "{}: All is not a purpose", item.name);
            assert!(item.serves(Scope::All), "{}", item.name);
        }
    }

    #[test]
    fn whatever_builds_is_there_for_tests_too() {
        for item in ITEMS.iter().filter(|item| item.serves(Scope::Build)) {
            assert!(item.serves(Scope::Test) && item.serves(Scope::Vm), "{}", item.name);
        }
    }

    #[test]
    fn packages_are_named() {
        for item in ITEMS {
            if let Install::Packages(packages) = item.install {
                assert!(!packages.is_empty(), "{}", item.name);
            }
        }
    }
}
