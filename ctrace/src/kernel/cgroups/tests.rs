use proptest::{collection::vec, prelude::*};

use super::*;

const HYBRID: &[u8] = br"23 27 0:22 / /sys rw,relatime shared:2 master:1 - sysfs sysfs rw
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
33 31 0:32 /docker/x /part rw - cgroup cgroup rw,memory
34 31 0:32 / /sys/fs/cgroup/my\040memory rw - cgroup cgroup rw,memory
35 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
36 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
";
const CONTROLLERS: &str = "#subsys_name\thierarchy\tnum_cgroups\tenabled
cpu\t2\t1\t1
cpuacct\t2\t1\t1
memory\t4\t13\t1
pids\t8\t1\t1
net_cls\t0\t1\t1
";
const OWN: &str = "9:name=systemd:/a:b\n8:pids:/\n4:memory:/\n2:cpu,cpuacct:/\n0::/x\n";

#[test]
fn hybrid() {
    let layout = CgroupLayout::parse(HYBRID, CONTROLLERS, OWN);
    assert_eq!(layout.kind, LayoutKind::Hybrid);
    let ids: Vec<_> = layout.hierarchies.iter().map(|hierarchy| hierarchy.id).collect();
    assert_eq!(ids, [0, 2, 4, 8, 9]);
    let cpu = layout.controller("cpuacct").unwrap();
    assert_eq!(cpu.controllers, ["cpu", "cpuacct"]);
    assert_eq!(cpu.mount.as_deref(), Some(Path::new("/sys/fs/cgroup/cpu,cpuacct")));
    let memory = layout.controller("memory").unwrap();
    assert_eq!((memory.id, memory.version.number()), (4, 1));
    assert_eq!(memory.mount.as_deref(), Some(Path::new("/sys/fs/cgroup/my memory")));
    assert_eq!(layout.controller("name=systemd").unwrap().id, 9);
    assert_eq!(layout.controller("pids").unwrap().mount, None);
    let (identity, name) = layout.identity_v1().unwrap();
    assert_eq!((identity.id, name), (4, "memory"), "pids is not mounted");
    assert_eq!(layout.v2().unwrap().mount.as_deref(), Some(Path::new("/sys/fs/cgroup/unified")));
    assert_eq!(layout.controller("net_cls"), None);
    assert_eq!(layout.mounts().count(), 4);
}

#[test]
fn pure() {
    let mounts = b"30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n";
    let v2 = CgroupLayout::parse(mounts, "memory\t0\t9\t1\n", "0::/x\n");
    assert_eq!((v2.kind, v2.hierarchies.len()), (LayoutKind::V2, 1));
    assert_eq!(v2.identity_v1(), None);
    assert_eq!(v2.path_of_id(7, 1), None);
    let mounts = b"34 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
    let v1 = CgroupLayout::parse(mounts, "memory\t1\t9\t1\n", "1:memory:/\n");
    assert_eq!((v1.kind, v1.v2()), (LayoutKind::V1, None));
    let none = CgroupLayout::parse(b"", "", "");
    assert_eq!((none.kind, none.hierarchies.len()), (LayoutKind::V2, 0));
}

#[test]
fn octal_escapes() {
    assert_eq!(unescape(br"a\040b\134c\012"), b"a b\\c\n");
    assert_eq!(unescape(br"\04"), br"\04");
    assert_eq!(unescape(br"\777\048\"), br"\777\048\");
}

#[test]
fn this_host() {
    let layout = CgroupLayout::of_host().unwrap();
    println!("{layout:#?}");
    for (id, mount) in layout.mounts() {
        let Some(root) = layout.id_of_path(id, "/") else {
            println!("skipped: no handle for {}", mount.display());
            continue;
        };
        let start = std::time::Instant::now();
        let path = layout.path_of_id(id, root);
        println!("{}: {root} in {:?}", mount.display(), start.elapsed());
        // SAFETY: geteuid has no preconditions.
        if path.is_none() && unsafe { libc::geteuid() } != 0 {
            println!("skipped: not root");
            continue;
        }
        assert_eq!(path.as_deref(), Some("/"));
        let children = fs::read_dir(mount).unwrap().flatten();
        for child in children.filter(|child| child.path().is_dir()) {
            let path = format!("/{}", child.file_name().to_string_lossy());
            // Other tests make and remove cgroups meanwhile.
            if let Some(cgroup) = layout.id_of_path(id, &path)
                && let Some(back) = layout.path_of_id(id, cgroup)
            {
                assert_eq!(back, path);
            }
        }
        assert_eq!(layout.path_of_id(id, u64::MAX), None);
        assert_eq!(layout.id_of_path(id, "/no such cgroup"), None);
    }
}

proptest! {
    #[test]
    fn any_bytes(mounts in vec(any::<u8>(), 0..300), text in ".*", own in ".*") {
        CgroupLayout::parse(&mounts, &text, &own);
    }

    #[test]
    fn escapes_come_back(name in vec(any::<u8>(), 0..40)) {
        // The kernel escapes space, tab, newline and backslash.
        let escape = |b: &u8| match b {
            b' ' | b'\t' | b'\n' | b'\\' => format!("\\{b:03o}").into_bytes(),
            _ => vec![*b],
        };
        let escaped: Vec<u8> = name.iter().flat_map(escape).collect();
        prop_assert_eq!(unescape(&escaped), name.clone());
        let line = [b"1 2 0:3 / /".as_slice(), &escaped, b" rw - cgroup2 none rw"].concat();
        let mount = parse_mount(&line).unwrap();
        prop_assert_eq!(mount.point.into_os_string().into_vec(), [b"/".as_slice(), &name].concat());
    }
}
