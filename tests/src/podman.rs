//! podman, with its default directories: the tool under test finds names there.

use std::path::Path;
use std::sync::OnceLock;

use anyhow::{Result, anyhow};

use crate::case::{cannot, chain};
use crate::cleanup::at_exit;
use crate::command::{finish, run};
use crate::engine::Engine;
use crate::facts::{hybrid, program};
use crate::image::Image;
use crate::names::is_leftover;

const STORAGE: &str = "/var/lib/containers";

/// podman with the image in its storage; the image goes when the tests end.
pub fn shared() -> Result<&'static Engine> {
    static SHARED: OnceLock<Result<Engine, String>> = OnceLock::new();
    program("conmon")?;
    let engine = engine()?;
    SHARED
        .get_or_init(|| prepare(engine).map_err(|error| chain(&error)))
        .as_ref()
        .map_err(|error| anyhow!("{error}"))
}

/// podman with crun, which alone runs containers without cgroups.
pub fn with_crun() -> Result<Engine> {
    if hybrid()? {
        return Err(cannot("crun refuses hybrid cgroups"));
    }
    let crun = program("crun")?.display().to_string();
    Ok(shared()?.clone().with_option("--runtime").with_option(&crun))
}

fn engine() -> Result<Engine> {
    // crun knows cgroups of v1 or of v2 only.
    let runtime = program(if hybrid()? { "runc" } else { "crun" })?.display().to_string();
    let options =
        ["--cgroup-manager", "cgroupfs", "--events-backend", "file", "--runtime", &runtime];
    let engine = Engine::new("podman", program("podman")?, options.map(str::to_owned).to_vec());
    // The limits that podman would set take a capability that the host may not give.
    let engine = engine.with_container_option("--ulimit=nofile=1024:1024");
    Ok(engine.with_container_option("--ulimit=nproc=1024:1024"))
}

fn prepare(engine: Engine) -> Result<Engine> {
    let engine = engine.with_image()?;
    let (remover, image) = (engine.clone(), Image::shared()?.name.clone());
    at_exit(move || match finish(&mut remover.command(&["rmi", "--force", &image])) {
        Ok(finished) if finished.status.success() => {}
        other => eprintln!("leaving podman's image {image}: {other:?}"),
    });
    Ok(engine)
}

/// Removes containers and images that ended runs left.
pub fn sweep() -> Result<()> {
    // Without storage there is nothing, and podman would make one.
    if !Path::new(STORAGE).join("storage").exists() {
        return Ok(());
    }
    let Ok(engine) = engine() else { return Ok(()) };
    let names = run(&mut engine.command(&["ps", "--all", "--format", "{{.Names}}"]))?;
    for name in names.lines().filter(|name| is_leftover(name)) {
        run(&mut engine.command(&["rm", "--force", name]))?;
    }
    let format = "{{.Repository}}:{{.Tag}}";
    let images = run(&mut engine.command(&["images", "--format", format]))?;
    for image in images.lines() {
        if is_leftover(image.trim_start_matches("localhost/")) {
            run(&mut engine.command(&["rmi", "--force", image]))?;
        }
    }
    Ok(())
}
