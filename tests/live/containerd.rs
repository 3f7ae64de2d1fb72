//! containerd without docker: containers of `ctr`, with the annotations that its CRI plugin sets.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use ctrace_tests::case::case;
use ctrace_tests::cgroup::Everywhere;
use ctrace_tests::command::run;
use ctrace_tests::daemon::Daemon;
use ctrace_tests::facts::program;
use ctrace_tests::image::Image;
use ctrace_tests::marked::{self, mark_of};
use ctrace_tests::names::{TempDir, unique};
use ctrace_tests::oom_check::equal;
use ctrace_tests::watch::Watch;

const CRI: &str = "io.kubernetes.cri";
const POD_UID: &str = "0f0e0d0c-0b0a-4908-8706-050403020100";

/// containerd in a directory of its own.
struct Containerd {
    ctr: PathBuf,
    socket: PathBuf,
    /// A namespace of containerd, and the cgroup that has its containers.
    namespace: Everywhere,
    daemon: Daemon,
    _directory: TempDir,
}

impl Containerd {
    fn start() -> Result<Self> {
        let (containerd, ctr) = (program("containerd")?, program("ctr")?);
        program("runc")?;
        let directory = TempDir::new("containerd")?;
        let below = |name: &str| directory.path().join(name);
        let socket = below("socket");
        // The host's own configuration must not reach it.
        fs::write(
            below("config.toml"),
            "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[plugins.\"io.containerd.internal.v1.opt\"]\npath = \"/nonexistent\"\n",
        )?;
        let mut command = Command::new(containerd);
        command.arg("--config").arg(below("config.toml"));
        command.arg("--root").arg(below("root")).arg("--state").arg(below("state"));
        command.arg("--address").arg(&socket);
        let daemon = Daemon::start(command, directory.path(), &socket)?;
        let namespace = Everywhere::new("ctr");
        Ok(Containerd { ctr, socket, namespace, daemon, _directory: directory })
    }

    /// Runs a container to its end, which removes it.
    fn run_to_end(&self, id: &str, annotations: &[(&str, &str)], command: &[String]) -> Result<()> {
        let mut ctr = Command::new(&self.ctr);
        ctr.arg("--address").arg(&self.socket).args(["--namespace", &self.namespace.name]);
        ctr.args(["run", "--rm", "--rootfs"]);
        for (key, value) in annotations {
            ctr.arg("--annotation").arg(format!("{CRI}.{key}={value}"));
        }
        let ran = run(ctr.arg(Image::shared()?.root()).arg(id).args(command));
        ran.map(drop).map_err(|error| error.context(self.daemon.log()))
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        // runc's own directory for the namespace stays empty behind; it is not below the state.
        let _ = fs::remove_dir(Path::new("/run/containerd/runc").join(&self.namespace.name));
    }
}

#[test]
fn a_pods_container() {
    case("ctr with CRI's annotations: name, pod, namespace and uid", || {
        let containerd = Containerd::start()?;
        let watch = Watch::processes(&[])?;
        let of_shop = Watch::processes(&["--namespace", "shop"])?;
        let of_pod = Watch::processes(&["--pod", "web-0"])?;
        let elsewhere = Watch::processes(&["--namespace", "shop", "--pod", "web-1"])?;
        let mark = unique("pod");
        let id = format!("{:064x}", 0xc7_ace0_u64 + u64::from(std::process::id()));
        let annotations = [
            ("container-name", "app"),
            ("container-type", "container"),
            ("image-name", "registry.example/shop/web:7"),
            ("sandbox-id", &id),
            ("sandbox-name", "web-0"),
            ("sandbox-namespace", "shop"),
            ("sandbox-uid", POD_UID),
        ];
        containerd.run_to_end(&id, &annotations, &marked::command(&mark, 2))?;
        for watch in [&watch, &of_shop, &of_pod] {
            let event = watch.event("the exec", |event| mark_of(event) == Some(&mark))?;
            println!("  {event}");
            equal("container.id", event.container_id(), Some(id.as_str()))?;
            equal("container.runtime", event.str("/container/runtime")?, "containerd")?;
            equal("container.name", event.container_name(), Some("app"))?;
            let image = event.str("/container/image")?;
            equal("container.image", image, "registry.example/shop/web:7")?;
            equal("container.pod.name", event.str("/container/pod/name")?, "web-0")?;
            equal("container.pod.namespace", event.str("/container/pod/namespace")?, "shop")?;
            equal("container.pod.uid", event.str("/container/pod/uid")?, POD_UID)?;
        }
        let strangers = of_shop.stop()?.events;
        let stranger = strangers.iter().find(|event| event.container_id() != Some(&id));
        ensure!(stranger.is_none(), "of another pod: {stranger:?}");
        equal("events of another pod", elsewhere.stop()?.events.len(), 0)
    });
}

#[test]
fn an_id_of_free_text() {
    case("ctr with an id of free text and no annotations", || {
        let containerd = Containerd::start()?;
        let watch = Watch::processes(&[])?;
        let mark = unique("ctr");
        containerd.run_to_end(&mark, &[], &marked::command(&mark, 2))?;
        let event = watch.event("the exec", |event| mark_of(event) == Some(&mark))?;
        println!("  {event}");
        equal("container.id", event.container_id(), Some(mark.as_str()))?;
        equal("container.runtime", event.str("/container/runtime")?, "containerd")?;
        watch.stop().map(drop)
    });
}
