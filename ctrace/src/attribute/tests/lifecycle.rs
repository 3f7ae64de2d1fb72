//! What comes, goes and is late: cgroups, names, runtimes.

use std::fs;

use super::*;

#[test]
fn the_lifecycle_alone_is_enough() {
    let mut host = Host::new();
    let key = |id| CgroupKey { hierarchy: 0, id };
    host.attributor.made(key(500), 1, 1, b"docker");
    host.attributor.made(key(501), 500, 2, A.as_bytes());
    host.attributor.removed(key(501), 500, 2, A.as_bytes());
    host.attributor.released(key(501), 5 * MS);
    assert_eq!(id(&host.resolve(&[key(501)])), Some(A), "gone, and still known");
    host.attributor.forget(70_000 * MS);
    host.attributor.made(key(502), 500, 2, B.as_bytes());
    assert_eq!(id(&host.resolve(&[key(502)])), Some(B));
    // Its making was lost, its removal was not.
    host.attributor.removed(key(503), 500, 2, A.as_bytes());
    assert_eq!(id(&host.resolve(&[key(503)])), Some(A));
}

#[test]
fn a_walk_makes_up_for_what_was_lost() {
    let mut host = Host::new();
    let key = host.cgroup(0, &format!("/docker/{A}"));
    let gone = host.learn(0, 9_000, "/system.slice/old.service");
    host.attributor.walk(host.now);
    fs::remove_dir_all(host.root.path().join("cgroup/unified/docker")).unwrap();
    assert_eq!(id(&host.resolve(&[key])), Some(A));
    assert_eq!(host.resolve(&[gone]).via, Via::Unit, "late events still find it");
    host.attributor.walk(host.now);
    host.attributor.forget(host.now + 61_000 * MS);
    assert_eq!(host.attributor.path(key), None);
}

#[test]
fn an_id_that_was_not_known_is_found_once_it_is() {
    let mut host = Host::new();
    let key = CgroupKey { hierarchy: 0, id: 77_000_000_000 };
    assert_eq!(host.resolve(&[key]).via, Via::Unknown);
    host.attributor.made(CgroupKey { id: 500, ..key }, 1, 1, b"docker");
    host.attributor.made(key, 500, 2, A.as_bytes());
    assert_eq!(id(&host.resolve(&[key])), Some(A));
}

#[test]
fn events_wait_only_for_young_containers_names() {
    let mut host = Host::new();
    let key = host.learn(0, 1000, &format!("/docker/{A}"));
    assert!(host.resolve(&[key]).is_partial);
    host.now += 150 * MS;
    assert!(host.resolve(&[key]).is_partial);
    host.now += 300 * MS;
    assert!(!host.resolve(&[key]).is_partial);
    host.docker(B, "named");
    host.attributor.on_readable();
    let key = host.learn(0, 2000, &format!("/docker/{B}"));
    assert!(!host.resolve(&[key]).is_partial);
}

#[test]
fn a_name_that_comes_late_is_taken_at_once() {
    let mut host = Host::new();
    let key = host.learn(0, 1000, &format!("/docker/{A}"));
    assert_eq!(name(&host.resolve(&[key])), None);
    host.docker(A, "late");
    host.attributor.on_readable();
    assert_eq!(name(&host.resolve(&[key])), Some("late"));
    // Strangers' metadata does not make anybody look again.
    let epoch = host.attributor.epoch();
    host.docker(B, "stranger");
    host.attributor.on_readable();
    assert_eq!(host.attributor.epoch(), epoch);
}

/// A dockerd that is started while ctrace runs, with a directory of its own.
#[test]
fn a_runtime_that_comes_later_is_found() {
    let mut host = Host::new();
    let key = host.learn(0, 1000, &format!("/docker/{A}"));
    assert_eq!(name(&host.resolve(&[key])), None);
    assert!(host.attributor.is_runtime_missing);
    let config = format!(r#"{{"ID":"{A}","Name":"/late"}}"#);
    host.write(&format!("elsewhere/containers/{A}/config.v2.json"), &config);
    let roots = Roots { docker: vec![host.root.path().join("elsewhere")], ..Roots::default() };
    host.attributor.catalog.set_roots(roots, &*host.attributor.cgroups);
    assert_eq!(name(&host.resolve(&[key])), Some("late"));
}
