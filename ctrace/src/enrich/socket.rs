//! The runtimes' sockets: where they are and what is spoken there.

use std::fmt;
use std::path::{Path, PathBuf};

/// What is spoken at a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Kubernetes' container runtime interface, version 1, over gRPC.
    Cri,
    /// Docker's REST interface.
    Docker,
    /// podman's own REST interface, "libpod".
    Podman,
}

impl Protocol {
    const ALL: [Protocol; 3] = [Protocol::Cri, Protocol::Docker, Protocol::Podman];

    /// Its name before a path.
    pub const fn name(self) -> &'static str {
        match self {
            Protocol::Cri => "cri",
            Protocol::Docker => "docker",
            Protocol::Podman => "podman",
        }
    }

    /// What the runtimes' own file names say.
    fn of_file(path: &Path) -> Option<Protocol> {
        match path.file_name()?.to_str()? {
            "containerd.sock" | "crio.sock" | "cri-dockerd.sock" => Some(Protocol::Cri),
            "docker.sock" => Some(Protocol::Docker),
            "podman.sock" => Some(Protocol::Podman),
            _ => None,
        }
    }
}

/// A runtime's socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    pub protocol: Protocol,
    pub path: PathBuf,
}

impl Socket {
    /// Where the runtimes have theirs.
    pub const USUAL: [&str; 5] = [
        "/run/containerd/containerd.sock",
        "/run/crio/crio.sock",
        "/run/cri-dockerd.sock",
        "/run/podman/podman.sock",
        "/var/run/docker.sock",
    ];

    /// Reads `PATH` with a file name that says the protocol, or `cri:PATH`, `docker:PATH`,
    /// `podman:PATH`. The path is absolute; `unix://` before it is allowed.
    pub fn parse(text: &str) -> Result<Socket, String> {
        let explicit = Protocol::ALL.into_iter().find_map(|protocol| {
            let rest = text.strip_prefix(protocol.name())?.strip_prefix(':')?;
            Some((protocol, rest))
        });
        let rest = explicit.map_or(text, |(_, rest)| rest);
        let path = PathBuf::from(rest.strip_prefix("unix://").unwrap_or(rest));
        if !path.is_absolute() {
            return Err(format!("'{text}' is no absolute path of a socket"));
        }
        let protocol = explicit.map(|(protocol, _)| protocol).or_else(|| Protocol::of_file(&path));
        let protocol = protocol.ok_or_else(|| {
            format!("the name '{text}' does not say what is spoken there: cri:, docker: or podman: before it does")
        })?;
        Ok(Socket { protocol, path })
    }

    /// Those of [`Socket::USUAL`] that are there.
    pub fn found() -> Vec<Socket> {
        let usual = Socket::USUAL.into_iter().filter_map(|path| Socket::parse(path).ok());
        usual.filter(|socket| socket.path.exists()).collect()
    }
}

impl fmt::Display for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Socket { protocol, path } = self;
        write!(f, "{}:{}", protocol.name(), path.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_name_or_a_prefix_says_the_protocol() {
        let cases = [
            (
                "/run/k3s/containerd/containerd.sock",
                Protocol::Cri,
                "/run/k3s/containerd/containerd.sock",
            ),
            ("unix:///run/crio/crio.sock", Protocol::Cri, "/run/crio/crio.sock"),
            ("/run/user/7/podman/podman.sock", Protocol::Podman, "/run/user/7/podman/podman.sock"),
            ("cri:/x/docker.sock", Protocol::Cri, "/x/docker.sock"),
            ("docker:/x/a:b", Protocol::Docker, "/x/a:b"),
            ("podman:unix:///x", Protocol::Podman, "/x"),
        ];
        for (text, protocol, path) in cases {
            let socket = Socket { protocol, path: path.into() };
            assert_eq!(Socket::parse(text), Ok(socket.clone()));
            assert_eq!(Socket::parse(&socket.to_string()), Ok(socket), "what is shown is read");
        }
        for text in ["", "cri:", "cri", "docker.sock", "podman:run/x", "/run/x.sock", "http:/x"] {
            assert!(Socket::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_usual_ones_are_understood() {
        let protocols = Socket::USUAL.map(|path| Socket::parse(path).expect(path).protocol);
        let [containerd, crio, dockerd, podman, docker] = protocols;
        assert_eq!([containerd, crio, dockerd], [Protocol::Cri; 3]);
        assert_eq!([podman, docker], [Protocol::Podman, Protocol::Docker]);
    }
}
