use std::fs;
use std::time::{Duration, Instant};

use super::daemons::Program;
use super::*;

fn host(files: &[(&str, &str)]) -> tempfile::TempDir {
    let host = tempfile::tempdir().unwrap();
    for (path, content) in files {
        let path = host.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    host
}

fn daemon(program: Program, line: &str) -> Daemon {
    Daemon { program, arguments: line.split(' ').map(String::from).collect() }
}

/// The directories of `list`, without the host's own.
fn below(host: &Path, list: &[PathBuf]) -> Vec<String> {
    let path = |path: &PathBuf| match path.strip_prefix(host) {
        Ok(below) => format!("/{}", below.display()),
        Err(_) => format!("outside {}", path.display()),
    };
    list.iter().map(path).collect()
}

#[test]
fn an_empty_host_has_the_usual_directories() {
    let host = host(&[]);
    let roots = Roots::of(host.path(), &[]);
    let below = |list| below(host.path(), list);
    assert_eq!(below(&roots.docker), ["/var/lib/docker"]);
    assert_eq!(
        below(&roots.containerd),
        ["/run/containerd", "/run/docker/containerd/daemon", "/run/k3s/containerd"]
    );
    assert_eq!(below(&roots.podman), ["/run/containers/storage", "/var/lib/containers/storage"]);
    assert_eq!(below(&roots.machined), ["/run/systemd/machines"]);
    assert_eq!(below(&roots.lxc), ["/var/lib/lxc"]);
    assert_eq!(below(&roots.runc), ["/run/runc", "/run/user/0/runc"]);
    assert_eq!(below(&roots.kubernetes), ["/var/log/containers"]);
    let namespaced = [
        "/run/containerd/runc",
        "/run/docker/containerd/daemon/runc",
        "/run/docker/runtime-runc",
        "/run/k3s/containerd/runc",
    ];
    assert_eq!(below(&roots.namespaced), namespaced);
    assert_eq!(roots.users, None);
}

#[test]
fn configurations_and_daemons_add_to_them() {
    let host = host(&[
        ("etc/docker/daemon.json", r#"{"data-root":"/d1","exec-root":"/e1"}"#),
        ("etc/containerd/config.toml", "state = \"/s1\"\n"),
        ("etc/containers/storage.conf", "[storage]\ngraphroot = \"/g1\"\n"),
        ("etc/lxc/lxc.conf", "lxc.lxcpath = /l1\n"),
        ("run/docker/runtime-crun/moby/.keep", ""),
        ("run/docker/plugins/.keep", ""),
        ("var/lib/nerdctl/0badcafe/names/.keep", ""),
    ]);
    let daemons = [
        daemon(Program::Dockerd, "dockerd --data-root /d2"),
        daemon(Program::Containerd, "containerd --state /s2"),
    ];
    let roots = Roots::of(host.path(), &daemons);
    let has = |list: &[PathBuf], path: &str| list.contains(&PathBuf::from(path));
    assert!(has(&roots.docker, "/d1") && has(&roots.docker, "/d2"));
    assert!(has(&roots.containerd, "/s1") && has(&roots.containerd, "/s2"));
    assert!(has(&roots.containerd, "/e1/containerd/daemon"));
    assert!(has(&roots.namespaced, "/s2/runc") && has(&roots.namespaced, "/e1/runtime-runc"));
    assert!(has(&roots.podman, "/g1") && has(&roots.lxc, "/l1"));
    let below = |list| below(host.path(), list);
    assert!(below(&roots.namespaced).contains(&"/run/docker/runtime-crun".into()));
    assert!(!below(&roots.namespaced).contains(&"/run/docker/plugins".into()));
    assert!(below(&roots.nerdctl).contains(&"/var/lib/nerdctl/0badcafe".into()));
    assert_eq!(roots, Roots::of(host.path(), &daemons));
}

#[test]
fn users_directories_are_taken_where_they_exist() {
    let storage = ".local/share/containers/storage";
    let host = host(&[
        (
            "etc/passwd",
            "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000::/srv/ann:/bin/sh\nbroken:x\n\
             bob:x:1001:1001::/home/bob:/bin/sh\nnobody:x:65534:65534::/:/sbin/nologin\n",
        ),
        (&format!("srv/ann/{storage}/.keep"), ""),
        (&format!("home/guest/{storage}/.keep"), ""),
        (&format!("root/{storage}/.keep"), ""),
        ("home/bob/.local/share/docker/containers/.keep", ""),
        // On another machine.
        ("home/eve/.local/share/docker/containers/.keep", ""),
        ("run/user/1000/crun/.keep", ""),
        ("run/user/1000/containers/.keep", ""),
        ("run/user/1001/docker/containerd/daemon/.keep", ""),
        ("run/user/1001/docker/runtime-runc/moby/.keep", ""),
        ("run/user/0/crun/.keep", ""),
        ("srv/rootless/containers/.keep", ""),
        ("srv/server/containers/.keep", ""),
    ]);
    std::os::unix::fs::symlink(host.path().join("srv/server"), host.path().join("link")).unwrap();
    let daemons = ["srv/rootless", "srv/server", "link"].map(|root| {
        let root = host.path().join(root);
        daemon(Program::Dockerd, &format!("dockerd --data-root {}", root.display()))
    });
    let remote = Mounts::remote(&["home/eve", "srv/server"].map(|point| host.path().join(point)));
    let users = Roots::of_users(host.path(), &daemons, &remote);
    let below = |list| below(host.path(), list);
    assert_eq!(
        below(&users.podman),
        [
            "/home/guest/.local/share/containers/storage",
            "/run/user/1000/containers",
            "/srv/ann/.local/share/containers/storage",
        ]
    );
    assert_eq!(below(&users.docker), ["/home/bob/.local/share/docker", "/srv/rootless"]);
    assert_eq!(below(&users.containerd), ["/run/user/1001/docker/containerd/daemon"]);
    assert_eq!(below(&users.namespaced), ["/run/user/1001/docker/runtime-runc"]);
    assert_eq!(below(&users.crun), ["/run/user/1000/crun"]);
    assert_eq!(users.users, None);
}

/// It is called again for every container that is not known: it must stay cheap. The limit leaves
/// room for an unoptimised build and a busy machine.
#[test]
fn this_hosts_are_found_in_no_time() {
    let times = (0..5).map(|_| {
        let began = Instant::now();
        let roots = Roots::of_host().with_users(Roots::of_hosts_users());
        assert!(roots.docker.contains(&"/var/lib/docker".into()));
        began.elapsed()
    });
    let best = times.min().unwrap();
    assert!(best < Duration::from_millis(50), "{best:?}");
}
