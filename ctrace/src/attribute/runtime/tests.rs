use std::fs;

use super::*;

mod engines;
mod hostile;
mod others;

const A: &str = "b9771916bc00f40a419cbc2966299fdfd336c3a44be2f031cf6785d7f6f88924";
const B: &str = "eeb616351073049baabdcf877af9928fc984fc5155f5177012221b650a672b12";

/// Roots of every runtime below `directory`.
fn roots(directory: &Path) -> roots::Roots {
    let at = |name: &str| vec![directory.join(name)];
    roots::Roots {
        docker: at("docker"),
        containerd: at("containerd"),
        nerdctl: at("nerdctl"),
        podman: at("storage"),
        lxc: at("lxc"),
        machined: at("machines"),
        runc: at("runc"),
        crun: at("crun"),
        namespaced: at("namespaced"),
        kubernetes: at("logs"),
        users: None,
    }
}

fn write(root: &Path, path: &str, content: &str) {
    let path = root.join(path.replace("{A}", A));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content.replace("{A}", A).replace("{B}", B)).unwrap();
}

fn look_up(root: &Path, id: &str) -> Vec<Metadata> {
    let mut all = Vec::new();
    for backend in backends(&roots(root)) {
        if let Lookup::Found(found) = lookup(&*backend, id) {
            all.extend(found);
        }
    }
    all
}

/// The only answer about `id`.
fn only(root: &Path, id: &str) -> Metadata {
    let mut all = look_up(root, id);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

#[test]
fn another_containers_file_is_refused() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), "docker/containers/{A}/config.v2.json", r#"{"ID":"{B}","Name":"/x"}"#);
    assert_eq!(look_up(root.path(), A), []);
}

#[test]
fn ids_do_not_leave_the_root() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), "state.json", "{}");
    let long = "x".repeat(256);
    for id in ["", ".", "..", "../runc", "a/b", "a\0b", "a\nb", "\u{1b}[31m", "\u{85}", &long] {
        assert!(!is_safe_id(id), "{id:?}");
        assert_eq!(look_up(root.path(), id), [], "{id:?}");
    }
    assert!(is_safe_id(&"x".repeat(255)));
}

#[test]
fn what_is_no_plain_file_is_unreadable() {
    let root = tempfile::tempdir().unwrap();
    let docker = docker::Docker::new(&[root.path().join("docker")]);
    let directory = root.path().join("docker/containers").join(A);
    let file = directory.join("config.v2.json");
    fs::create_dir_all(&directory).unwrap();
    assert_eq!(lookup(&docker, A), Lookup::Unknown);
    let is_unreadable = || matches!(lookup(&docker, A), Lookup::Unreadable(_));

    rustix::fs::mknodat(
        rustix::fs::CWD,
        &file,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    assert!(is_unreadable(), "a FIFO");
    fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &file).unwrap();
    assert!(is_unreadable(), "a link");
    fs::remove_file(&file).unwrap();
    fs::File::create(&file).unwrap().set_len(file::MAX_BYTES + 1).unwrap();
    assert!(is_unreadable(), "a file without end");
    fs::write(&file, "{\"ID\":").unwrap();
    assert!(is_unreadable(), "half a file");
}

#[test]
fn a_directory_that_users_write_has_less_credit() {
    let root = tempfile::tempdir().unwrap();
    let list = |name: &str| format!(r#"[{{"id":"{A}","names":["{name}"]}}]"#);
    let file = "overlay-containers/containers.json";
    write(root.path(), &format!("storage/{file}"), &list("true"));
    write(root.path(), &format!("users/storage/{file}"), &list("fake"));
    let users = Some(Box::new(roots(&root.path().join("users"))));
    let names: Vec<Option<String>> = backends(&roots::Roots { users, ..roots(root.path()) })
        .iter()
        .filter_map(|backend| match lookup(&**backend, A) {
            Lookup::Found(found) => Some(found[0].container.name.clone()),
            Lookup::Unknown | Lookup::Unreadable(_) => None,
        })
        .collect();
    assert_eq!(names, [Some("true".into()), Some("fake".into())]);
}

#[test]
fn names_of_255_characters() {
    let root = tempfile::tempdir().unwrap();
    let name = "n".repeat(255);
    let config = format!(r#"{{"ID":"{A}","Name":"/{name}"}}"#);
    write(root.path(), "docker/containers/{A}/config.v2.json", &config);
    assert_eq!(only(root.path(), A).container.name, Some(name.clone()));
    write(root.path(), &format!("lxc/{name}/config"), "lxc.arch = amd64");
    assert_eq!(only(root.path(), &name).container.name, Some(name));
}
