//! Where the runtimes of this host keep their files.
//!
//! The usual directories are taken whether or not they exist; others where a configuration file or
//! the command line of a running daemon names them. Nothing is asked of a daemon. Users' directories
//! are found apart from root's ([`discovery`]).

mod config;
mod daemons;
pub mod discovery;
mod mounts;

use std::path::{Path, PathBuf};

use super::{file, subdirectories};
use config::Docker;
use daemons::Daemon;
use mounts::Mounts;

/// Directories, by runtime. They need not exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roots {
    /// dockerd's data roots.
    pub docker: Vec<PathBuf>,
    /// containerd's state directories.
    pub containerd: Vec<PathBuf>,
    /// nerdctl's data roots, each for one containerd.
    pub nerdctl: Vec<PathBuf>,
    /// containers/storage's graph and run roots.
    pub podman: Vec<PathBuf>,
    /// LXC's `lxc.lxcpath`.
    pub lxc: Vec<PathBuf>,
    /// systemd-machined's state.
    pub machined: Vec<PathBuf>,
    pub runc: Vec<PathBuf>,
    pub crun: Vec<PathBuf>,
    /// runc's and crun's, with a directory per containerd namespace.
    pub namespaced: Vec<PathBuf>,
    /// The kubelet's links to the containers' logs.
    pub kubernetes: Vec<PathBuf>,
    /// The same of rootless containers. Any user can write what he likes there.
    pub users: Option<Box<Roots>>,
}

/// A user who may have containers.
#[derive(Clone, Debug, PartialEq, Eq)]
struct User {
    /// None where only the directory is known.
    uid: Option<u32>,
    home: PathBuf,
}

impl Roots {
    /// The directories of this host, without those of users.
    fn of_host() -> Self {
        Self::of(Path::new("/"), &daemons::running(Path::new("/proc"), false))
    }

    /// The directories of this host's users. A home may be on a server that does not answer, and then
    /// this does not either.
    fn of_hosts_users() -> Self {
        let daemons = daemons::running(Path::new("/proc"), true);
        Self::of_users(Path::new("/"), &daemons, &Mounts::of_host())
    }

    fn with_users(self, users: Self) -> Self {
        Self { users: (users != Self::default()).then(|| Box::new(users)), ..self }
    }

    /// The directories of the host whose root directory is `host`, where root's `daemons` run.
    fn of(host: &Path, daemons: &[Daemon]) -> Self {
        let at = |path: &str| host.join(path.trim_start_matches('/'));
        let mut docker = Docker::of_config(&config::read(&at("/etc/docker/daemon.json")));
        docker.data_roots.insert(0, at("/var/lib/docker"));
        docker.exec_roots.insert(0, at("/run/docker"));
        let mut containerd = vec![at("/run/containerd"), at("/run/k3s/containerd")];
        containerd
            .extend(config::containerd_state(&config::read(&at("/etc/containerd/config.toml"))));
        for daemon in daemons {
            docker.merge(Docker::of_daemon(daemon, config::read));
            containerd.extend(config::containerd_states(daemon, config::read));
        }
        let mut podman = Vec::new();
        for file in ["/usr/share/containers/storage.conf", "/etc/containers/storage.conf"] {
            podman.extend(config::storage_roots(&config::read(&at(file))));
        }
        podman.extend([at("/var/lib/containers/storage"), at("/run/containers/storage")]);
        let mut lxc = vec![at("/var/lib/lxc")];
        lxc.extend(config::lxc_path(&config::read(&at("/etc/lxc/lxc.conf"))));
        let mut nerdctl = vec![at("/var/lib/nerdctl/1935db59")];
        nerdctl.extend(subdirectories(&at("/var/lib/nerdctl")));
        // crun's is there when root started it out of a login session.
        let low_level = |name: &str| vec![at("/run").join(name), at("/run/user/0").join(name)];
        let roots = Self {
            lxc,
            nerdctl,
            podman,
            machined: vec![at("/run/systemd/machines")],
            runc: low_level("runc"),
            crun: low_level("crun"),
            kubernetes: vec![at("/var/log/containers")],
            ..Self::with(docker, containerd)
        };
        roots.sorted()
    }

    /// What follows from docker's directories and containerd's.
    fn with(docker: Docker, mut containerd: Vec<PathBuf>) -> Self {
        let Docker { data_roots, exec_roots } = docker;
        containerd.extend(exec_roots.iter().map(|root| root.join("containerd/daemon")));
        let mut namespaced: Vec<PathBuf> =
            containerd.iter().map(|state| state.join("runc")).collect();
        for root in &exec_roots {
            namespaced.push(root.join("runtime-runc"));
            let is_runtime = |path: &PathBuf| {
                path.file_name()
                    .is_some_and(|name| name.as_encoded_bytes().starts_with(b"runtime-"))
            };
            namespaced.extend(subdirectories(root).into_iter().filter(is_runtime));
        }
        Self { docker: data_roots, containerd, namespaced, ..Self::default() }
    }

    /// The directories of users, whose `daemons` run. Only those that exist: there are many homes and few
    /// with containers. None on a remote file system: events would wait for it.
    fn of_users(host: &Path, daemons: &[Daemon], mounts: &Mounts) -> Self {
        let (mut docker, mut containerd) = (Docker::default(), Vec::new());
        let (mut podman, mut nerdctl) = (Vec::new(), Vec::new());
        let (mut runc, mut crun) = (Vec::new(), Vec::new());
        for User { uid, home } in users(host, mounts) {
            let docker_config = home.join(".config/docker/daemon.json");
            let storage_config = home.join(".config/containers/storage.conf");
            // Root's is what the system's files say, and its home is no place for containers.
            if uid != Some(0) {
                docker.data_roots.push(home.join(".local/share/docker"));
                docker.merge(Docker::of_config(&config::read_users(&docker_config)));
                podman.push(home.join(".local/share/containers/storage"));
                podman.extend(config::storage_roots(&config::read_users(&storage_config)));
                nerdctl.extend(subdirectories(&home.join(".local/share/nerdctl")));
            }
        }
        let sessions = subdirectories(&host.join("run/user"));
        for session in sessions.iter().filter(|path| path.file_name().is_some_and(|uid| uid != "0"))
        {
            docker.exec_roots.push(session.join("docker"));
            containerd.push(session.join("containerd"));
            podman.push(session.join("containers"));
            runc.push(session.join("runc"));
            crun.push(session.join("crun"));
        }
        for daemon in daemons {
            docker.merge(Docker::of_daemon(daemon, config::read_users));
            containerd.extend(config::containerd_states(daemon, config::read_users));
        }
        let roots = Self { nerdctl, podman, runc, crun, ..Self::with(docker, containerd) };
        roots.existing(mounts).sorted()
    }

    fn lists(&mut self) -> [&mut Vec<PathBuf>; 10] {
        let Self {
            docker,
            containerd,
            nerdctl,
            podman,
            lxc,
            machined,
            runc,
            crun,
            namespaced,
            kubernetes,
            users: _,
        } = self;
        [docker, containerd, nerdctl, podman, lxc, machined, runc, crun, namespaced, kubernetes]
    }

    fn existing(mut self, mounts: &Mounts) -> Self {
        let is_near = |path: &Path| !mounts.is_remote(path);
        let is_there = |path: &PathBuf| {
            // A link may lead elsewhere.
            is_near(path)
                && path.canonicalize().is_ok_and(|found| is_near(&found) && found.is_dir())
        };
        for list in self.lists() {
            list.retain(is_there);
        }
        self
    }

    /// Each directory once: two discoveries of the same are equal.
    fn sorted(mut self) -> Self {
        for list in self.lists() {
            list.sort_unstable();
            list.dedup();
        }
        self
    }
}

/// Users with a home in `/etc/passwd` or below `/home`, where those of a directory service are.
fn users(host: &Path, mounts: &Mounts) -> Vec<User> {
    let passwd = config::read(&host.join("etc/passwd"));
    let passwd = String::from_utf8_lossy(&passwd);
    let of_line = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        let (uid, home) = (fields.get(2)?.parse().ok()?, Path::new(fields.get(5)?));
        // Some system users have `/` for a home.
        let home = host.join(home.strip_prefix("/").ok()?);
        (home != host).then_some(User { uid: Some(uid), home })
    };
    let mut users: Vec<User> = passwd.lines().filter_map(of_line).collect();
    let homes = host.join("home");
    for home in if mounts.is_remote(&homes) { Vec::new() } else { subdirectories(&homes) } {
        if users.iter().all(|user| user.home != home) {
            users.push(User { uid: None, home });
        }
    }
    users.retain(|user| !mounts.is_remote(&user.home));
    users
}

#[cfg(test)]
mod tests;
