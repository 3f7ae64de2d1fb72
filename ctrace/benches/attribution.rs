//! What attribution costs: one run, its figures as a JSON object. `cargo xtask bench attribution`
//! runs it several times.

use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Instant;

use ctrace::attribute::{Attributor, CgroupFs, Identity, Kinship, Roots};
use ctrace::event::{CgroupKey, Namespace, Subject};
use serde_json::json;

/// As many as the product promises to bear.
const CONTAINERS: u64 = 5_000;
/// A host with v1 hierarchies has about that many, and a container a cgroup in each.
const HIERARCHIES: u32 = 13;
/// Containers that are busy at the same time.
const BUSY: usize = 1_000;
const EVENTS: usize = 1_000_000;
/// Containers that start while ctrace runs.
const NEW: u64 = 500;

/// Everything is told by the lifecycle; the file system is never asked.
struct NoFs;

impl CgroupFs for NoFs {
    fn path_of_id(&self, _hierarchy: u32, _id: u64) -> Option<String> {
        None
    }

    fn mounts(&self) -> Vec<(u32, PathBuf)> {
        Vec::new()
    }
}

fn main() {
    let root = tempfile::tempdir().expect("a temporary directory");
    for number in 0..CONTAINERS {
        write_config(root.path(), number);
    }
    let before = resident_bytes();
    let roots = Roots { docker: vec![root.path().to_owned()], ..Roots::default() };
    let mut attributor = Attributor::with_roots(NoFs, 1, &roots);
    for hierarchy in 0..HIERARCHIES {
        attributor.made(key(hierarchy, 1), 0, 0, b"");
        attributor.made(key(hierarchy, 2), 1, 1, b"docker");
    }
    for number in 0..CONTAINERS {
        make(&mut attributor, number);
        let found = attributor.resolve(&identity(number), Kinship::default(), 1);
        assert!(found.container.as_ref().is_some_and(|container| container.name.is_some()));
    }
    let resident = resident_bytes().saturating_sub(before);

    let subjects: Vec<Subject> = (0..BUSY as u64).map(subject).collect();
    let order: Vec<usize> = shuffled(EVENTS);
    let mut misses = 0;
    let started = Instant::now();
    for index in &order {
        let who = Identity::of(&subjects[*index]);
        match attributor.recall(&who, 2) {
            Some(known) => drop(black_box(known)),
            None => misses += 1,
        }
    }
    let warm = started.elapsed();

    for number in CONTAINERS..CONTAINERS + NEW {
        write_config(root.path(), number);
    }
    let started = Instant::now();
    for number in CONTAINERS..CONTAINERS + NEW {
        attributor.on_readable();
        make(&mut attributor, number);
        black_box(attributor.resolve(&identity(number), Kinship::default(), 3));
    }
    let new = started.elapsed();

    let figures = json!({
        "warm_ns": warm.as_nanos() as f64 / EVENTS as f64,
        "misses": misses,
        "new_us": new.as_micros() as f64 / NEW as f64,
        "resident_mib": resident as f64 / f64::from(1 << 20),
    });
    println!("{figures}");
}

fn key(hierarchy: u32, id: u64) -> CgroupKey {
    CgroupKey { hierarchy, id }
}

/// 64 digits that spread as real ids do.
fn id(number: u64) -> String {
    let mut digits = String::new();
    for part in 0..4 {
        digits += &format!("{:016x}", mixed(number * 4 + part));
    }
    digits
}

/// The finalizer of splitmix64.
fn mixed(number: u64) -> u64 {
    let mut x = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn shuffled(count: usize) -> Vec<usize> {
    (0..count as u64).map(|number| mixed(number) as usize % BUSY).collect()
}

fn make(attributor: &mut Attributor, number: u64) {
    let id = id(number);
    for hierarchy in 0..HIERARCHIES {
        attributor.made(key(hierarchy, 10 + number), 2, 2, id.as_bytes());
    }
}

fn subject(number: u64) -> Subject {
    let mut subject = Subject {
        v2: Some(key(0, 10 + number)),
        v1: Some(key(8, 10 + number)),
        ..Subject::default()
    };
    subject.namespaces.mnt = Namespace { inode: Some(7), id: Some(1_000 + number) };
    subject.namespaces.is_pid_nested = true;
    subject
}

fn identity(number: u64) -> Identity {
    Identity::of(&subject(number))
}

/// A file as docker writes it, shortened to what fills memory: labels.
fn write_config(root: &Path, number: u64) {
    let id = id(number);
    let directory = root.join("containers").join(&id);
    fs::create_dir_all(&directory).expect("a directory");
    let config = json!({
        "ID": id,
        "Name": format!("/service-{number}"),
        "State": { "Running": true, "Pid": 1000 + number },
        "Config": {
            "Image": "registry.example/team/service:1.24.3",
            "Labels": {
                "com.docker.compose.project": "shop",
                "com.docker.compose.service": format!("service-{number}"),
                "com.docker.compose.container-number": "1",
                "org.opencontainers.image.version": "1.24.3",
            },
        },
    });
    fs::write(directory.join("config.v2.json"), config.to_string()).expect("a file");
}

fn resident_bytes() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm").expect("/proc is mounted");
    let pages: u64 = pages.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("pages");
    // SAFETY: sysconf has no preconditions.
    pages * unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as u64
}
