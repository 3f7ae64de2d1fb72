//! Which cgroup hierarchies this host has, where they are mounted, and the way between a cgroup's
//! id and its path.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

mod handle;
#[cfg(test)]
mod tests;

/// The version of a hierarchy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// One of several hierarchies, with controllers of its own.
    V1,
    /// The unified hierarchy.
    V2,
}

impl Version {
    /// 1 or 2.
    pub fn number(self) -> u8 {
        match self {
            Self::V1 => 1,
            Self::V2 => 2,
        }
    }
}

/// Which versions a host uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayoutKind {
    /// Version 1 only.
    V1,
    /// Version 2 is mounted beside version 1.
    Hybrid,
    /// Version 2 only.
    V2,
}

impl LayoutKind {
    /// `v1`, `hybrid` or `v2`.
    pub fn name(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::Hybrid => "hybrid",
            Self::V2 => "v2",
        }
    }
}

/// One tree of cgroups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// The kernel's number for it (`cgroup_root.hierarchy_id`); version 2 has 0.
    pub id: u32,
    /// Its version.
    pub version: Version,
    /// Its controllers as the kernel names them; a named version 1 hierarchy has `name=…`.
    pub controllers: Vec<String>,
    /// Where its root is mounted. `None` where it is not mounted, or only a part of it.
    pub mount: Option<PathBuf>,
}

/// All hierarchies of this host, by ascending id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupLayout {
    /// Which versions are in use.
    pub kind: LayoutKind,
    /// The hierarchies; version 2, where it is mounted, comes first.
    pub hierarchies: Vec<Hierarchy>,
}

/// Controllers whose version 1 hierarchy can stand for a task's container, best first: these are
/// the ones that runtimes give every container a cgroup in.
const IDENTITY: [&str; 5] = ["pids", "memory", "cpu", "devices", "freezer"];

impl CgroupLayout {
    /// The layout that this process sees.
    ///
    /// # Errors
    /// Where `/proc/self/mountinfo` or `/proc/self/cgroup` cannot be read. A kernel without
    /// `/proc/cgroups` has no version 1.
    pub fn of_host() -> io::Result<Self> {
        let mountinfo = fs::read("/proc/self/mountinfo")?;
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let controllers = fs::read_to_string("/proc/cgroups").unwrap_or_default();
        let mut layout = Self::parse(&mountinfo, &controllers, &own);
        for hierarchy in layout.hierarchies.iter_mut().filter(|h| h.version == Version::V2) {
            let list = hierarchy.mount.iter().map(|mount| mount.join("cgroup.controllers"));
            let list = list.flat_map(fs::read_to_string).collect::<String>();
            hierarchy.controllers = list.split_whitespace().map(str::to_owned).collect();
        }
        Ok(layout)
    }

    /// Reads the layout from the text of `/proc/self/mountinfo`, `/proc/cgroups` and
    /// `/proc/self/cgroup`. The controllers of version 2 are in none of them and stay empty.
    fn parse(mountinfo: &[u8], proc_cgroups: &str, own: &str) -> Self {
        let mounts: Vec<_> = mountinfo.split(|&b| b == b'\n').filter_map(parse_mount).collect();
        // Of several mounts the first one of the whole tree.
        let mount_of = |wanted: &dyn Fn(&Mount) -> bool| {
            mounts.iter().find(|mount| mount.root == b"/" && wanted(mount)).map(|m| m.point.clone())
        };
        let mut hierarchies: Vec<Hierarchy> = Vec::new();
        for (id, controller) in parse_proc_cgroups(proc_cgroups).chain(parse_own(own)) {
            let hierarchy = match hierarchies.iter_mut().find(|hierarchy| hierarchy.id == id) {
                Some(hierarchy) => hierarchy,
                None => {
                    let (version, controllers) = (Version::V1, Vec::new());
                    hierarchies.push(Hierarchy { id, version, controllers, mount: None });
                    hierarchies.last_mut().expect("just pushed")
                }
            };
            if !hierarchy.controllers.iter().any(|known| known == controller) {
                hierarchy.controllers.push(controller.to_owned());
            }
        }
        for hierarchy in &mut hierarchies {
            let controllers = &hierarchy.controllers;
            hierarchy.mount = mount_of(&|mount| {
                mount.version == Version::V1
                    && mount.options.iter().any(|option| controllers.contains(option))
            });
        }
        let has_v1 = !hierarchies.is_empty();
        let has_v2 = mounts.iter().any(|mount| mount.version == Version::V2);
        if has_v2 {
            hierarchies.push(Hierarchy {
                id: 0,
                version: Version::V2,
                controllers: Vec::new(),
                mount: mount_of(&|mount| mount.version == Version::V2),
            });
        }
        hierarchies.sort_by_key(|hierarchy| hierarchy.id);
        let kind = match (has_v1, has_v2) {
            (true, true) => LayoutKind::Hybrid,
            (true, false) => LayoutKind::V1,
            (false, _) => LayoutKind::V2,
        };
        Self { kind, hierarchies }
    }

    /// The hierarchy that has a controller, such as `memory`.
    pub fn controller(&self, name: &str) -> Option<&Hierarchy> {
        self.hierarchies.iter().find(|hierarchy| hierarchy.controllers.iter().any(|c| c == name))
    }

    /// The version 2 hierarchy, where it is mounted.
    pub fn v2(&self) -> Option<&Hierarchy> {
        self.hierarchies.iter().find(|hierarchy| hierarchy.version == Version::V2)
    }

    /// The version 1 hierarchy that stands for a task's container, with the controller to find it
    /// by: the first mounted one of pids, memory, cpu, devices and freezer.
    pub fn identity_v1(&self) -> Option<(&Hierarchy, &'static str)> {
        IDENTITY.into_iter().find_map(|name| {
            let hierarchy = self.controller(name)?;
            (hierarchy.version == Version::V1 && hierarchy.mount.is_some())
                .then_some((hierarchy, name))
        })
    }

    /// Where each hierarchy's root is mounted, by id.
    pub fn mounts(&self) -> impl Iterator<Item = (u32, &Path)> {
        self.hierarchies.iter().filter_map(|h| Some((h.id, h.mount.as_deref()?)))
    }

    /// The path of a living cgroup below its hierarchy's root, with a leading slash, by asking the
    /// kernel for the file with that id. Bytes that are not UTF-8 are replaced.
    ///
    /// `None` where the cgroup is gone, its hierarchy is not mounted, or `CAP_DAC_READ_SEARCH` is
    /// missing.
    pub fn path_of_id(&self, hierarchy: u32, id: u64) -> Option<String> {
        let mount = self.mount(hierarchy)?;
        let path = handle::path_of_id(mount, id)?;
        let inside = path.strip_prefix(mount).ok()?;
        Some(format!("/{}", inside.to_string_lossy()))
    }

    /// The id of the living cgroup at a path below its hierarchy's root, leading slash or not.
    /// `None` where there is none, or the hierarchy is not mounted.
    pub fn id_of_path(&self, hierarchy: u32, path: &str) -> Option<u64> {
        handle::id_of_path(&self.mount(hierarchy)?.join(path.trim_start_matches('/')))
    }

    fn mount(&self, hierarchy: u32) -> Option<&Path> {
        self.mounts().find(|&(id, _)| id == hierarchy).map(|(_, mount)| mount)
    }
}

/// A cgroup file system's line of mountinfo.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    version: Version,
    /// Which directory of the file system is mounted.
    root: Vec<u8>,
    point: PathBuf,
    /// The file system's own options: a version 1 mount names its controllers there.
    options: Vec<String>,
}

/// `36 27 0:33 / /sys/fs/cgroup/pids rw,nosuid shared:9 - cgroup cgroup rw,pids`, see
/// proc_pid_mountinfo(5). `None` for other file systems and for lines of any other shape.
fn parse_mount(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&b| b == b' ');
    let root = fields.by_ref().nth(3)?;
    let point = fields.next()?;
    fields.by_ref().find(|&field| field == b"-")?;
    let version = match fields.next()? {
        b"cgroup" => Version::V1,
        b"cgroup2" => Version::V2,
        _ => return None,
    };
    let options = fields.nth(1).unwrap_or_default().split(|&b| b == b',');
    Some(Mount {
        version,
        root: unescape(root),
        point: OsString::from_vec(unescape(point)).into(),
        options: options.map(|option| String::from_utf8_lossy(option).into_owned()).collect(),
    })
}

/// Undoes `\040` and the like: three octal digits.
fn unescape(mut field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    while let Some((&byte, rest)) = field.split_first() {
        let octal = rest.first_chunk::<3>().filter(|_| byte == b'\\').and_then(|digits| {
            digits.iter().try_fold(0_u8, |value, digit| {
                let digit = matches!(digit, b'0'..=b'7').then(|| digit - b'0')?;
                value.checked_mul(8)?.checked_add(digit)
            })
        });
        (field, _) = match octal {
            Some(value) => (&rest[3..], out.push(value)),
            None => (rest, out.push(byte)),
        };
    }
    out
}

/// `memory 4 13 1`, with tabs: the controllers that a version 1 hierarchy has.
fn parse_proc_cgroups(text: &str) -> impl Iterator<Item = (u32, &str)> {
    text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let mut fields = line.split('\t');
        let (name, id) = (fields.next()?, fields.next()?.parse().ok()?);
        (id != 0 && !name.is_empty()).then_some((id, name))
    })
}

/// `9:name=systemd:/init.scope`: the only place that numbers the hierarchies without controllers.
fn parse_own(text: &str) -> impl Iterator<Item = (u32, &str)> {
    let fields = text.lines().filter_map(|line| {
        let (id, rest) = line.split_once(':')?;
        Some((id.parse().ok().filter(|&id| id != 0)?, rest.split_once(':')?.0))
    });
    fields
        .flat_map(|(id, names)| names.split(',').map(move |name| (id, name)))
        .filter(|(_, name)| !name.is_empty())
}
