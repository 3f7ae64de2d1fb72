//! What configuration files and command lines say about directories. Parsing is pure.

use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::daemons::{Daemon, Program};
use super::file;

/// The configuration file of an administrator, who may have made it a link; empty where there is
/// none to read.
pub fn read(path: &Path) -> Vec<u8> {
    content(file::read_linked(path, file::MAX_BYTES))
}

/// The configuration file of a user; empty where there is none to read.
pub fn read_users(path: &Path) -> Vec<u8> {
    content(file::read(path, file::MAX_USERS_BYTES))
}

fn content(read: io::Result<Option<file::Content>>) -> Vec<u8> {
    read.ok().flatten().map(|content| content.bytes).unwrap_or_default()
}

/// What dockerd was told.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Docker {
    pub data_roots: Vec<PathBuf>,
    pub exec_roots: Vec<PathBuf>,
}

impl Docker {
    pub fn merge(&mut self, other: Self) {
        self.data_roots.extend(other.data_roots);
        self.exec_roots.extend(other.exec_roots);
    }

    /// Of a running dockerd: its command line, and the file that `--config-file` names.
    pub fn of_daemon(daemon: &Daemon, read: impl Fn(&Path) -> Vec<u8>) -> Self {
        if daemon.program != Program::Dockerd {
            return Self::default();
        }
        let of = |names: &[&str]| options(&daemon.arguments, names);
        let mut docker = Self {
            data_roots: of(&["--data-root", "--graph", "-g"]),
            exec_roots: of(&["--exec-root"]),
        };
        for file in of(&["--config-file"]) {
            docker.merge(Self::of_config(&read(&file)));
        }
        docker
    }

    pub fn of_config(json: &[u8]) -> Self {
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

/// State directories of a running containerd.
pub fn containerd_states(daemon: &Daemon, read: impl Fn(&Path) -> Vec<u8>) -> Vec<PathBuf> {
    if daemon.program != Program::Containerd {
        return Vec::new();
    }
    let mut states = options(&daemon.arguments, &["--state"]);
    for file in options(&daemon.arguments, &["--config", "-c"]) {
        states.extend(containerd_state(&read(&file)));
    }
    states
}

/// `state` in containerd's `config.toml` (containerd-config.toml(5)).
pub fn containerd_state(toml: &[u8]) -> Option<PathBuf> {
    toml_path(toml, "", "state")
}

/// `graphroot` and `runroot` in containers/storage's `storage.conf`
/// (containers-storage.conf(5)). A path of a user's may hold `$HOME`: then it is not taken.
pub fn storage_roots(toml: &[u8]) -> impl Iterator<Item = PathBuf> {
    ["graphroot", "runroot"].map(|key| toml_path(toml, "storage", key)).into_iter().flatten()
}

/// `lxc.lxcpath` in lxc.system.conf(5).
pub fn lxc_path(content: &[u8]) -> Option<PathBuf> {
    let text = String::from_utf8_lossy(content);
    let mut pairs = text.lines().rev().filter_map(|line| line.split_once('='));
    let (_, path) = pairs.find(|(key, _)| key.trim() == "lxc.lxcpath")?;
    Some(PathBuf::from(path.trim())).filter(|path| path.is_absolute())
}

/// The absolute paths that `--option X` or `--option=X` give.
fn options(arguments: &[String], names: &[&str]) -> Vec<PathBuf> {
    let value = |(index, argument): (usize, &String)| {
        let (option, value) = match argument.split_once('=') {
            Some((option, value)) => (option, Some(value)),
            None => (argument.as_str(), arguments.get(index + 1).map(String::as_str)),
        };
        value.filter(|_| names.contains(&option)).map(PathBuf::from)
    };
    arguments.iter().enumerate().filter_map(value).filter(|path| path.is_absolute()).collect()
}

/// The absolute path of `key = "path"` in a section of a TOML file; `""` is what comes before the
/// first section. Strings with escapes or over several lines are not understood, and no paths here.
fn toml_path(content: &[u8], section: &str, key: &str) -> Option<PathBuf> {
    let text = String::from_utf8_lossy(content);
    let mut here = "";
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[') {
            here = name.split(']').next().unwrap_or_default().trim();
            continue;
        }
        let Some((name, value)) = line.split_once('=') else { continue };
        if here != section || name.trim() != key {
            continue;
        }
        let value = value.trim_start();
        let quote = value.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
        let path = value[1..].split(quote).next().filter(|path| !path.contains('\\'))?;
        let is_closed = value[1..].contains(quote);
        return Some(PathBuf::from(path)).filter(|path| is_closed && path.is_absolute());
    }
    None
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn daemon(program: Program, line: &str) -> Daemon {
        let arguments = line.split(' ').map(String::from).collect();
        Daemon { program, arguments }
    }

    fn paths(list: &[&str]) -> Vec<PathBuf> {
        list.iter().map(PathBuf::from).collect()
    }

    #[test]
    fn command_lines() {
        let read = |path: &Path| match path.to_str() {
            Some("/c.json") => br#"{"data-root":"/from-file"}"#.to_vec(),
            Some("/c.toml") => b"state = '/from-file'".to_vec(),
            _ => Vec::new(),
        };
        let docker = |line: &str| Docker::of_daemon(&daemon(Program::Dockerd, line), read);
        assert_eq!(docker("dockerd --data-root /d").data_roots, paths(&["/d"]));
        assert_eq!(docker("dockerd -H x --graph=/d --exec-root /e").exec_roots, paths(&["/e"]));
        assert_eq!(docker("dockerd -g /d").data_roots, paths(&["/d"]));
        assert_eq!(docker("dockerd --config-file=/c.json").data_roots, paths(&["/from-file"]));
        for other in ["dockerd --data-root", "dockerd --data-root ../d", "dockerd --config-file /x"]
        {
            assert_eq!(docker(other), Docker::default(), "{other}");
        }
        let states = |line: &str| containerd_states(&daemon(Program::Containerd, line), read);
        assert_eq!(states("containerd --state /s"), paths(&["/s"]));
        assert_eq!(states("containerd -c /c.toml"), paths(&["/from-file"]));
        assert_eq!(states("containerd --config=/c.toml --state=/s"), paths(&["/s", "/from-file"]));
        assert_eq!(states("containerd"), paths(&[]));
        let other = daemon(Program::Containerd, "containerd --data-root /d");
        assert_eq!(Docker::of_daemon(&other, read), Docker::default());
    }

    #[test]
    fn dockers_file() {
        let found = Docker::of_config(br#"{"data-root":"/d","exec-root":"/e","debug":true}"#);
        assert_eq!((found.data_roots, found.exec_roots), (paths(&["/d"]), paths(&["/e"])));
        for other in [&b""[..], b"[]", b"{\"data-root\":3}", b"\xff", b"{\"data-root\":\"d\"}"] {
            assert_eq!(Docker::of_config(other), Docker::default());
        }
    }

    #[test]
    fn toml() {
        let config = b"version = 2\n# state = \"/no\"\nstate = \"/s\" # here\n[grpc]\n  uid = 0\n";
        assert_eq!(containerd_state(config), Some("/s".into()));
        for other in [
            &b"[grpc]\nstate = \"/s\""[..],
            b"state = /s",
            b"state = \"/s",
            b"state = \"s\"",
            b"state =",
            b"state = '",
            b"state = \xff",
            b"stated = '/s'",
        ] {
            assert_eq!(containerd_state(other), None, "{}", String::from_utf8_lossy(other));
        }
        let storage =
            b"[storage]\ndriver = \"overlay\"\nrunroot='/r'\n graphroot = \"/g\"\n[storage.options]\n";
        assert_eq!(storage_roots(storage).collect::<Vec<_>>(), paths(&["/g", "/r"]));
        let user = b"[storage]\ngraphroot = \"$HOME/x\"\n[other]\nrunroot = \"/r\"";
        assert_eq!(storage_roots(user).count(), 0);
        assert_eq!(lxc_path(b"# x\nlxc.lxcpath = /srv/lxc\n"), Some("/srv/lxc".into()));
        assert_eq!(lxc_path(b"lxc.lxcpath = lxc\nlxc.bdev.lvm.vg = /v"), None);
    }

    #[test]
    fn an_administrators_file_may_be_a_link() {
        let directory = tempfile::tempdir().unwrap();
        let (file, link) = (directory.path().join("f"), directory.path().join("l"));
        fs::write(&file, "x").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert_eq!((read(&link), read_users(&link)), (b"x".to_vec(), Vec::new()));
        assert_eq!((read(directory.path()), read_users(&file)), (Vec::new(), b"x".to_vec()));
    }
    /// As `/proc/kmsg`, that blocks, or `trace_pipe`, whose readers take lines away from each other.
    #[test]
    fn what_the_kernel_makes_up_is_no_configuration() {
        for read in [read, read_users] {
            assert_eq!(read(Path::new("/proc/self/status")), b"");
            assert_eq!(read(Path::new("/dev/zero")), b"");
        }
    }

    #[test]
    fn a_fifo_does_not_block() {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("fifo");
        let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR);
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, kind, mode, 0).unwrap();
        assert_eq!((read(&fifo), read_users(&fifo)), (Vec::new(), Vec::new()));
    }
}
