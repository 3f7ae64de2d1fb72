//! The cgroups that are there: at start-up, and where records of their making were lost.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::event::CgroupKey;

/// A cgroup that was found.
pub struct Found<'n> {
    pub key: CgroupKey,
    /// kernfs id of the one above; 0 for a root.
    pub parent: u64,
    /// Levels below the root.
    pub level: u32,
    pub name: &'n [u8],
}

/// Visits all cgroups of a hierarchy, parents first. The inode of a directory is the cgroup's kernfs
/// id. What goes away meanwhile is left out.
pub fn walk(hierarchy: u32, mount: &Path, visit: &mut dyn FnMut(Found)) {
    let Ok(root) = fs::metadata(mount) else { return };
    let key = CgroupKey { hierarchy, id: root.ino() };
    visit(Found { key, parent: 0, level: 0, name: b"" });
    let mut left: Vec<(PathBuf, u64, u32)> = vec![(mount.to_owned(), root.ino(), 0)];
    while let Some((directory, parent, level)) = left.pop() {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            let (id, name) = (entry.ino(), entry.file_name());
            let (key, level) = (CgroupKey { hierarchy, id }, level + 1);
            visit(Found { key, parent, level, name: name.as_bytes() });
            // A directory of kernfs has a link from each of its subdirectories: most have none, and
            // their long lists of files need not be read.
            if entry.metadata().is_ok_and(|metadata| metadata.nlink() != 2) {
                left.push((entry.path(), id, level));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_come_first() {
        let top = tempfile::tempdir().unwrap();
        fs::create_dir_all(top.path().join("a/b/c")).unwrap();
        fs::create_dir(top.path().join("d")).unwrap();
        fs::write(top.path().join("a/file"), "").unwrap();
        let mut found: Vec<(u64, u64, u32, String)> = Vec::new();
        walk(3, top.path(), &mut |Found { key, parent, level, name }| {
            assert_eq!(key.hierarchy, 3);
            assert!(level == 0 || found.iter().any(|above| above.0 == parent));
            found.push((key.id, parent, level, String::from_utf8_lossy(name).into_owned()));
        });
        let mut names: Vec<_> = found.iter().map(|found| (found.2, found.3.as_str())).collect();
        names.sort();
        assert_eq!(names, [(0, ""), (1, "a"), (1, "d"), (2, "b"), (3, "c")]);
        let ino = |path: &str| top.path().join(path).metadata().unwrap().ino();
        assert!(found.iter().any(|found| found.0 == ino("a/b") && found.1 == ino("a")));
    }

    #[test]
    fn nothing_there() {
        let top = tempfile::tempdir().unwrap();
        walk(0, &top.path().join("gone"), &mut |_| panic!("nothing is there"));
    }
}
