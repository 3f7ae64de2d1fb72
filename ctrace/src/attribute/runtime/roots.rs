//! Where the runtimes of this host keep their files.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Directories, by runtime. They need not exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roots {
    /// dockerd's data roots.
    pub docker: Vec<PathBuf>,
    /// containerd's state directories.
    pub containerd: Vec<PathBuf>,
    /// containers/storage's graph and run roots.
    pub podman: Vec<PathBuf>,
    pub runc: Vec<PathBuf>,
    pub crun: Vec<PathBuf>,
}

impl Roots {
    /// The usual directories, and those that dockerd's configuration or the command line of a running
    /// dockerd names.
    pub fn discover() -> Self {
        let mut docker = Docker::default();
        let config = fs::read("/etc/docker/daemon.json").unwrap_or_default();
        docker.merge(Docker::of_config(&config));
        for arguments in dockerd_command_lines() {
            docker.merge(Docker::of_arguments(&arguments));
        }
        Self::with(docker)
    }

    fn with(found: Docker) -> Self {
        let mut docker = vec![PathBuf::from("/var/lib/docker")];
        docker.extend(found.data_roots);
        let mut containerd = vec![PathBuf::from("/run/containerd")];
        let exec_roots = [PathBuf::from("/run/docker")].into_iter().chain(found.exec_roots);
        containerd.extend(exec_roots.map(|root| root.join("containerd/daemon")));
        Self {
            docker: distinct(docker),
            containerd: distinct(containerd),
            podman: ["/var/lib/containers/storage", "/run/containers/storage"]
                .map(PathBuf::from)
                .into(),
            runc: state_roots("runc"),
            crun: state_roots("crun"),
        }
    }
}

/// What dockerd was told.
#[derive(Debug, Default, PartialEq, Eq)]
struct Docker {
    data_roots: Vec<PathBuf>,
    exec_roots: Vec<PathBuf>,
}

impl Docker {
    fn merge(&mut self, other: Self) {
        self.data_roots.extend(other.data_roots);
        self.exec_roots.extend(other.exec_roots);
    }

    /// `--data-root X`, `--data-root=X` and the older `--graph` and `-g`; the same for `--exec-root`.
    fn of_arguments(arguments: &[String]) -> Self {
        let mut docker = Self::default();
        for (index, argument) in arguments.iter().enumerate() {
            let (option, value) = match argument.split_once('=') {
                Some((option, value)) => (option, Some(value)),
                None => (argument.as_str(), arguments.get(index + 1).map(String::as_str)),
            };
            let Some(path) = value.map(PathBuf::from).filter(|path| path.is_absolute()) else {
                continue;
            };
            match option {
                "--data-root" | "--graph" | "-g" => docker.data_roots.push(path),
                "--exec-root" => docker.exec_roots.push(path),
                _ => {}
            }
        }
        docker
    }

    fn of_config(json: &[u8]) -> Self {
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "kebab-case", default)]
        struct Config {
            data_root: Option<PathBuf>,
            graph: Option<PathBuf>,
            exec_root: Option<PathBuf>,
        }
        let Config { data_root, graph, exec_root } =
            serde_json::from_slice(json).unwrap_or_default();
        let absolute = |path: &PathBuf| path.is_absolute();
        Self {
            data_roots: data_root.into_iter().chain(graph).filter(absolute).collect(),
            exec_roots: exec_root.into_iter().filter(absolute).collect(),
        }
    }
}

/// `/run/NAME`, and the same below each user's `XDG_RUNTIME_DIR`, where rootless containers are, and
/// crun's also when root started it out of a login session.
fn state_roots(name: &str) -> Vec<PathBuf> {
    let users = fs::read_dir("/run/user").into_iter().flatten().flatten().map(|user| user.path());
    let sessions = [PathBuf::from("/run/user/0")].into_iter().chain(users);
    let roots = [PathBuf::from("/run")].into_iter().chain(sessions);
    distinct(roots.map(|root| root.join(name)).collect())
}

/// Command lines of the host's running dockerds.
fn dockerd_command_lines() -> Vec<Vec<String>> {
    let Ok(processes) = procfs::process::all_processes() else { return Vec::new() };
    let command_lines = processes.flatten().filter_map(|process| process.cmdline().ok());
    command_lines
        .filter(|arguments| {
            let program = arguments.first().map(Path::new).and_then(Path::file_name);
            program.is_some_and(|name| name == "dockerd")
        })
        .collect()
}

fn distinct(paths: Vec<PathBuf>) -> Vec<PathBuf> {
    let mut seen = Vec::new();
    for path in paths {
        if !seen.contains(&path) {
            seen.push(path);
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines() {
        let of = |line: &str| {
            Docker::of_arguments(&line.split(' ').map(String::from).collect::<Vec<_>>())
        };
        let paths = |list: &[&str]| list.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(of("dockerd --data-root /d").data_roots, paths(&["/d"]));
        assert_eq!(of("dockerd -H x --graph=/d --exec-root /e").exec_roots, paths(&["/e"]));
        assert_eq!(of("dockerd -g /d").data_roots, paths(&["/d"]));
        assert_eq!(of("dockerd --data-root"), Docker::default());
        assert_eq!(of("dockerd --data-root ../d"), Docker::default());
    }

    #[test]
    fn configuration() {
        let found = Docker::of_config(br#"{"data-root":"/d","exec-root":"/e","debug":true}"#);
        let roots = Roots::with(found);
        assert_eq!(roots.docker, ["/var/lib/docker", "/d"].map(PathBuf::from));
        assert!(roots.containerd.contains(&"/e/containerd/daemon".into()));
        for other in [&b""[..], b"[]", b"{\"data-root\":3}", b"\xff"] {
            assert_eq!(Docker::of_config(other), Docker::default());
        }
    }
}
