//! What ctrace asks the runtimes for at their sockets, with real daemons of the test's own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use ctrace::enrich::{Enricher, Protocol, Socket, call};
use ctrace::event::Container;
use ctrace_tests::case::{cannot, case};
use ctrace_tests::command::run;
use ctrace_tests::daemon::Daemon;
use ctrace_tests::engine::Engine;
use ctrace_tests::facts::{cgroup_mounts, in_vm, patience, program};
use ctrace_tests::image::Image;
use ctrace_tests::marked::{PROGRAM, mark_of, mark_of_shell};
use ctrace_tests::names::{TempDir, unique};
use ctrace_tests::oom_check::equal;
use ctrace_tests::watch::Watch;
use ctrace_tests::{docker, podman};

use crate::cri::*;

/// The first batch of a socket that has all these ids.
fn listed(socket: &Socket, ids: &[&str]) -> Result<Vec<Container>> {
    let (enricher, mut batches) = Enricher::start(vec![socket.clone()])?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let batch = runtime.block_on(async {
        loop {
            let batch = tokio::time::timeout(patience(20), batches.recv()).await;
            let batch = batch.with_context(|| format!("no list: {:?}", enricher.reports()))?;
            let batch = batch.context("the thread ended")?;
            if ids.iter().all(|id| batch.iter().any(|enriched| enriched.id == *id)) {
                return anyhow::Ok(batch);
            }
            ids.iter().for_each(|id| enricher.ask(id));
        }
    })?;
    let [report] = enricher.reports().try_into().ok().context("one socket, one report")?;
    equal("failures", report.failures, 0)?;
    ids.iter()
        .map(|id| batch.iter().find(|enriched| enriched.id == *id).cloned())
        .collect::<Option<_>>()
        .context("it was in the batch")
}

fn labels(of: &[(&str, &str)]) -> std::collections::BTreeMap<String, String> {
    of.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

/// podman's service at a socket of the test's own. The directory is to live as long.
fn podman_service(engine: &Engine) -> Result<(TempDir, Daemon, PathBuf)> {
    let directory = TempDir::new("podman-service")?;
    let path = directory.path().join("podman.sock");
    let address = format!("unix://{}", path.display());
    let command = engine.command(&["system", "service", "--time=0", &address]);
    let daemon = Daemon::start(command, directory.path(), &path)?;
    Ok((directory, daemon, path))
}

#[test]
fn podman_labels_and_pods() {
    case("enrich: podman's labels and pods", || {
        let engine = podman::shared()?;
        let (_directory, daemon, path) = podman_service(engine)?;
        let pod = Pod::make(engine)?;
        let lone = engine.create(&["--label", "ctrace.test=a b\n\u{1f980}"], &["/bin/true"])?;
        // Made while the service runs: it is asked, not remembered.
        let options = ["--pod", &pod.name, "--label", "tier=front"];
        let member = engine.create(&options, &["/bin/true"])?;

        let socket = Socket { protocol: Protocol::Podman, path };
        let both = listed(&socket, &[&lone.id, &member.id]);
        let both = both.with_context(|| daemon.log())?;
        let [alone, in_pod] = both.try_into().ok().context("two")?;
        let image = &Image::shared()?.name;
        let found = alone.labels.get("ctrace.test").map(String::as_str);
        equal("label", found, Some("a b\n\u{1f980}"))?;
        equal("name", alone.name.as_ref(), Some(&lone.name))?;
        ensure!(alone.image.as_ref().is_some_and(|found| found.ends_with(image)), "{alone:?}");
        equal("pod", alone.pod, None)?;

        equal("label", in_pod.labels.get("tier").map(String::as_str), Some("front"))?;
        let found = in_pod.pod.context("no pod")?;
        equal("pod.name", found.name.as_ref(), Some(&pod.name))?;
        equal("pod.uid", found.uid.as_ref(), Some(&pod.id))?;
        let found = found.labels.context("no labels of the pod")?;
        equal("pod.labels", found.get("app").map(String::as_str), Some("web"))
    });
}

#[test]
fn watch_a_pod_of_podmans() {
    case("watch --pod NAME --enrich-socket: a new container's first exec is there", || {
        if in_vm() {
            return Err(cannot("an emulated machine's podman answers later than ctrace waits"));
        }
        let engine = podman::shared()?;
        let (_directory, daemon, path) = podman_service(engine)?;
        let pod = Pod::make(engine)?;
        let socket = format!("podman:{}", path.display());
        let watch = Watch::processes(&["--enrich-socket", &socket, "--pod", &pod.name])?;
        for _ in 0..2 {
            let mark = unique("member");
            // It lives until podman has been asked: of one that is gone it says nothing.
            let script = format!("{PROGRAM} \"$0\"; {PROGRAM} \"$0\"; sleep 60");
            let command = ["/bin/sh", "-c", &script, &mark];
            let member = engine.start(&["--pod", &pod.name], &command)?;
            let lone = engine.create(&["--rm"], &["/bin/true"])?;
            lone.start_to_end()?.expect_code(0)?;
            let events = watch.events(patience(15), "its execs", |events| {
                events.iter().filter(|event| mark_of(event) == Some(&mark)).count() == 2
                    && events.iter().any(|event| mark_of_shell(event) == Some(&mark))
            });
            let events = events.with_context(|| daemon.log())?;
            let shell = events.iter().find(|event| mark_of_shell(event) == Some(&mark));
            let shell = shell.context("the shell")?;
            equal("container.id", shell.container_id(), Some(member.id.as_str()))?;
            equal("container.pod.name", shell.str("/container/pod/name")?, pod.name.as_str())?;
            let stray = events.iter().find(|event| event.container_id() == Some(&lone.id));
            ensure!(stray.is_none(), "an event that was not asked for: {stray:?}");
        }
        watch.stop().map(drop)
    });
}

/// A pod of podman's; removed on drop.
struct Pod {
    engine: Engine,
    name: String,
    id: String,
}

impl Pod {
    fn make(engine: &Engine) -> Result<Pod> {
        let name = unique("pod");
        // The image of an infra container would have to be pulled.
        let options = ["pod", "create", "--infra=false", "--label", "app=web", "--name", &name];
        let id = run(&mut engine.command(&options))?;
        Ok(Pod { engine: engine.clone(), name, id })
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        if let Err(error) = run(&mut self.engine.command(&["pod", "rm", "--force", &self.name])) {
            eprintln!("leaving pod {}: {error:#}", self.name);
        }
    }
}

#[test]
fn docker_labels() {
    case("enrich: docker's labels", || {
        let engine = docker::shared()?;
        let host =
            run(&mut engine.command(&["context", "inspect", "-f", "{{.Endpoints.docker.Host}}"]))?;
        let container = engine.create(&["--label", "ctrace.test=1"], &["/bin/true"])?;
        let socket = Socket::parse(&format!("docker:{host}")).map_err(anyhow::Error::msg)?;
        let [found] = listed(&socket, &[&container.id])?.try_into().ok().context("one")?;
        equal("labels", found.labels, labels(&[("ctrace.test", "1")]))?;
        equal("name", found.name.as_ref(), Some(&container.name))?;
        equal("image", found.image.as_ref(), Some(&Image::shared()?.name))
    });
}

#[test]
fn pod_labels_over_cri() {
    case("enrich: a pod's labels from containerd's CRI", || {
        let containerd = Containerd::start()?;
        let result = containerd.check();
        result.with_context(|| containerd.daemon.log())
    });
}

/// containerd with its CRI plugin and an image, in a directory of its own.
struct Containerd {
    daemon: Daemon,
    socket: Socket,
    image: String,
    directory: TempDir,
}

impl Containerd {
    fn start() -> Result<Containerd> {
        let (containerd, ctr) = (program("containerd")?, program("ctr")?);
        program("runc")?;
        let directory = TempDir::new("containerd")?;
        let path = directory.path().join("containerd.sock");
        let image = format!("localhost/{}:1", unique("sandbox"));
        let config = directory.path().join("config.toml");
        fs::write(&config, config_of(directory.path(), &image))?;
        let mut command = Command::new(containerd);
        command.arg("--config").arg(&config);
        let daemon = Daemon::start(command, directory.path(), &path)?;
        let archive = archive(directory.path(), &image)?;
        let mut import = Command::new(ctr);
        import.arg("--address").arg(&path).args(["--namespace", "k8s.io", "images", "import"]);
        run(import.args(["--snapshotter", "native"]).arg(archive)).with_context(|| daemon.log())?;
        let socket = Socket { protocol: Protocol::Cri, path };
        Ok(Containerd { daemon, socket, image, directory })
    }

    fn check(&self) -> Result<()> {
        let sandbox = Sandbox::run(self)?;
        let container = sandbox.create_container(&self.image)?;
        let both = listed(&self.socket, &[&container, &sandbox.id])?;
        let [container, pause] = both.try_into().ok().context("two")?;
        let pod = ctrace::event::Pod {
            name: Some("web".into()),
            namespace: Some("shop".into()),
            uid: Some(sandbox.uid.clone()),
            labels: Some(labels(&[("app", "web"), ("tier", "front")])),
        };
        equal("pod of the sandbox", pause.pod.as_ref(), Some(&pod))?;
        equal("pod of the container", container.pod.as_ref(), Some(&pod))?;
        equal("labels", container.labels, labels(&[("own", "1")]))?;
        equal("name", container.name.as_deref(), Some("app"))
    }

    /// A call that may take long, as starting a container does.
    fn call<Q, A>(&self, method: &'static str, question: Q) -> Result<A>
    where
        Q: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let answer = async {
            tokio::time::timeout(patience(30), call(&self.socket.path, method, question)).await
        };
        runtime.block_on(answer)?
    }
}

/// Nothing outside the directory; no network, and no limits that the host may not give.
fn config_of(directory: &Path, image: &str) -> String {
    let below = |name: &str| directory.join(name).display().to_string();
    format!(
        r#"version = 2
root = "{root}"
state = "{state}"
[grpc]
address = "{socket}"
[plugins."io.containerd.internal.v1.opt"]
path = "{opt}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{image}"
restrict_oom_score_adj = true
disable_apparmor = true
[plugins."io.containerd.grpc.v1.cri".cni]
conf_dir = "{cni}"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"
"#,
        root = below("root"),
        state = below("state"),
        socket = below("containerd.sock"),
        opt = below("opt"),
        cni = below("cni"),
    )
}

/// The busybox image as `docker save` writes one (moby `image/spec/v1.2.md`).
fn archive(directory: &Path, name: &str) -> Result<PathBuf> {
    let layer = Image::shared()?.tar();
    let sum = run(Command::new(program("sha256sum")?).arg(&layer))?;
    let digest = sum.split(' ').next().context("no checksum")?;
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let config = serde_json::json!({
        "architecture": architecture,
        "os": "linux",
        // The sandbox ends by itself, whatever happens to the test.
        "config": { "Entrypoint": ["/bin/sleep", "300"] },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{digest}")] },
    });
    let manifest = serde_json::json!([
        { "Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"] },
    ]);
    let image = directory.join("image");
    fs::create_dir(&image)?;
    fs::write(image.join("config.json"), config.to_string())?;
    fs::write(image.join("manifest.json"), manifest.to_string())?;
    fs::copy(layer, image.join("layer.tar"))?;
    let archive = directory.join("image.tar");
    run(Command::new(program("tar")?).arg("-C").arg(&image).arg("-cf").arg(&archive).arg("."))?;
    Ok(archive)
}

/// A pod that runs; removed on drop.
struct Sandbox<'a> {
    containerd: &'a Containerd,
    config: PodSandboxConfig,
    id: String,
    uid: String,
}

impl<'a> Sandbox<'a> {
    fn run(containerd: &'a Containerd) -> Result<Self> {
        let uid = "0f0e0d0c-0b0a-4908-8706-050403020100".to_owned();
        let logs = containerd.directory.path().join("logs").display().to_string();
        // Without CNI there is the host's network only.
        let namespace_options = NamespaceOption { network: NODE, pid: POD, ipc: NODE };
        let config = PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: "web".into(),
                uid: uid.clone(),
                namespace: "shop".into(),
            }),
            log_directory: logs,
            labels: labels(&[("app", "web"), ("tier", "front")]),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: format!("/{}", unique("pods")),
                security_context: Some(LinuxSandboxSecurityContext {
                    namespace_options: Some(namespace_options),
                }),
            }),
        };
        let mut sandbox = Sandbox { containerd, config: config.clone(), id: String::new(), uid };
        let request = RunPodSandboxRequest { config: Some(config) };
        let answer: RunPodSandboxResponse = containerd.call(RUN_POD_SANDBOX, request)?;
        sandbox.id = answer.pod_sandbox_id;
        Ok(sandbox)
    }

    /// Makes a container that is not started.
    fn create_container(&self, image: &str) -> Result<String> {
        let config = ContainerConfig {
            metadata: Some(ContainerMetadata { name: "app".into() }),
            image: Some(ImageSpec { image: image.to_owned() }),
            labels: labels(&[("own", "1")]),
            log_path: "app.log".into(),
        };
        let request = CreateContainerRequest {
            pod_sandbox_id: self.id.clone(),
            config: Some(config),
            sandbox_config: Some(self.config.clone()),
        };
        let answer: CreateContainerResponse = self.containerd.call(CREATE_CONTAINER, request)?;
        Ok(answer.container_id)
    }
}

impl Drop for Sandbox<'_> {
    fn drop(&mut self) {
        for method in [STOP_POD_SANDBOX, REMOVE_POD_SANDBOX] {
            let request = PodSandboxId { pod_sandbox_id: self.id.clone() };
            let done: Result<Nothing> = self.containerd.call(method, request);
            if let Err(error) = done {
                eprintln!("leaving sandbox {}: {error:#}", self.id);
            }
        }
        let Some(linux) = &self.config.linux else { return };
        for mount in cgroup_mounts().unwrap_or_default() {
            // Not in every hierarchy.
            let _ = fs::remove_dir(mount.join(linux.cgroup_parent.trim_start_matches('/')));
        }
    }
}
