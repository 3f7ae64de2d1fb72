use std::fs;

use super::*;
use crate::attribute::runtime::IdIn;

fn store(root: PathBuf, depth: usize) -> Store {
    let (file, id) = (Files::Named("f"), IdIn::Directory(depth));
    Store { root, depth, file, id, runtime: None, is_users: false }
}

fn paths(written: Vec<Written>) -> Vec<PathBuf> {
    written.into_iter().map(|written| written.path).collect()
}

fn write(path: &Path) -> PathBuf {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, "x").unwrap();
    path.to_owned()
}

#[test]
fn what_is_there_and_what_comes() {
    let root = tempfile::tempdir().unwrap();
    let old = write(&root.path().join("old/f"));
    let (mut watcher, written) = Watcher::new(vec![store(root.path().into(), 1)]);
    assert!(watcher.refused().is_none());
    assert_eq!(paths(written), std::slice::from_ref(&old));
    assert_eq!(watcher.drain(), []);

    // The directory is new to the watcher, and was filled before it looked.
    let new = write(&root.path().join("new/f"));
    assert_eq!(paths(watcher.drain()), [new]);
    // As docker writes: a temporary file, then a rename.
    let temporary = write(&root.path().join("old/.tmp"));
    fs::rename(temporary, &old).unwrap();
    write(&root.path().join("old/other"));
    assert_eq!(paths(watcher.drain()), [old]);
    // containerd hides what it deletes.
    fs::rename(root.path().join("new"), root.path().join(".new")).unwrap();
    write(&root.path().join(".new/f"));
    watcher.drain();
    write(&root.path().join(".other/f"));
    assert_eq!(watcher.drain(), []);
}

#[test]
fn a_root_that_does_not_exist_yet_or_any_more() {
    let top = tempfile::tempdir().unwrap();
    let root = top.path().join("a/b/c");
    let (mut watcher, written) = Watcher::new(vec![store(root.clone(), 2), store(root.clone(), 0)]);
    assert_eq!(written, []);
    for round in 0..2 {
        fs::create_dir(top.path().join("a")).unwrap();
        watcher.drain();
        let deep = write(&root.join("ns/id/f"));
        assert_eq!(paths(watcher.drain()), [deep], "round {round}");
        let flat = write(&root.join("f"));
        assert_eq!(paths(watcher.drain()), [flat], "round {round}");
        let later = write(&root.join("ns2/id/f"));
        assert_eq!(paths(watcher.drain()), [later], "round {round}");
        fs::remove_dir_all(top.path().join("a")).unwrap();
        watcher.drain();
    }
    assert!(watcher.directories.len() <= 2);
}

#[test]
fn watches_do_not_pile_up() {
    let root = tempfile::tempdir().unwrap();
    let (mut watcher, _) = Watcher::new(vec![store(root.path().into(), 1)]);
    for number in 0..200 {
        let directory = root.path().join(number.to_string());
        write(&directory.join("f"));
        assert_eq!(watcher.drain().len(), 1);
        fs::remove_dir_all(directory).unwrap();
    }
    watcher.drain();
    assert_eq!(watcher.directories.len(), 1);
}

#[test]
fn an_overflow_reads_everything_again() {
    let root = tempfile::tempdir().unwrap();
    let kept = write(&root.path().join("kept/f"));
    let (mut watcher, _) = Watcher::new(vec![store(root.path().into(), 1)]);
    let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let limit: usize = limit.trim().parse().unwrap();
    // Neighbouring events that are equal are merged: two files take turns.
    for number in 0..limit {
        write(&root.path().join("kept").join(if number % 2 == 0 { "a" } else { "b" }));
    }
    let lost = write(&root.path().join("lost/f"));
    assert_eq!(paths(watcher.drain()), [kept, lost.clone()]);
    assert_eq!(watcher.overflows(), 1);
    write(&lost);
    assert_eq!(paths(watcher.drain()), [lost]);
}

#[test]
fn other_stores_on_the_same_queue() {
    let root = tempfile::tempdir().unwrap();
    let (old, new) = (root.path().join("old"), root.path().join("new"));
    let (mut watcher, _) = Watcher::new(vec![store(old.clone(), 1)]);
    write(&old.join("a/f"));
    let there = write(&new.join("b/f"));
    assert_eq!(paths(watcher.set_stores(vec![store(new.clone(), 1)])), [there]);
    write(&old.join("c/f"));
    let comes = write(&new.join("d/f"));
    assert_eq!(paths(watcher.drain()), [comes]);
}

#[test]
fn any_file_or_its_name_alone() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    let old = write(&at("old"));
    std::os::unix::fs::symlink("/nowhere", at("unit:old.scope")).unwrap();
    let store = |file| Store { file, id: IdIn::FileName, ..store(root.path().into(), 0) };
    let (mut any, written) = Watcher::new(vec![store(Files::Any)]);
    assert_eq!(paths(written), std::slice::from_ref(&old));
    let (mut names, mut written) = Watcher::new(vec![store(Files::Names)]);
    written.sort_unstable();
    assert_eq!(paths(written), [old, at("unit:old.scope")]);

    // As machined writes: a temporary file, a rename, and a link.
    let temporary = write(&at(".#new0123"));
    fs::rename(temporary, at("new")).unwrap();
    std::os::unix::fs::symlink("new", at("unit:new.scope")).unwrap();
    fs::create_dir(at("directory")).unwrap();
    assert_eq!(paths(any.drain()), [at("new")]);
    assert_eq!(paths(names.drain()), [at("new"), at("unit:new.scope")]);
    // A link that is moved is a link still.
    fs::rename(at("unit:new.scope"), at("unit:other.scope")).unwrap();
    assert_eq!(any.drain(), []);
}

#[test]
fn a_file_in_a_new_directory_may_be_half_written() {
    let root = tempfile::tempdir().unwrap();
    write(&root.path().join("old/f"));
    let (mut watcher, written) = Watcher::new(vec![store(root.path().into(), 1)]);
    let young = |written: Vec<Written>| -> Vec<bool> {
        written.into_iter().map(|written| written.is_young).collect()
    };
    assert_eq!(young(written), [false]);
    let directory = root.path().join("new");
    fs::create_dir(&directory).unwrap();
    let file = fs::File::create(directory.join("f")).unwrap();
    assert_eq!(young(watcher.drain()), [true]);
    drop(file);
    assert_eq!(young(watcher.drain()), [false]);
    // Both at once: it is whole.
    fs::create_dir(root.path().join("whole")).unwrap();
    watcher.drain();
    fs::create_dir(root.path().join("whole2")).unwrap();
    watcher.drain();
    write(&root.path().join("whole/f"));
    write(&root.path().join("whole2/f"));
    assert_eq!(young(watcher.drain()), [false, false]);
}

#[test]
fn a_user_has_a_limited_number_of_watches() {
    let root = tempfile::tempdir().unwrap();
    let (his, roots) = (root.path().join("his"), root.path().join("roots"));
    for number in 0..MAX_USERS_WATCHES + 10 {
        fs::create_dir_all(his.join(number.to_string())).unwrap();
    }
    let stores =
        || vec![Store { is_users: true, ..store(his.clone(), 1) }, store(roots.clone(), 1)];
    let (mut watcher, _) = Watcher::new(stores());
    assert!(watcher.directories.len() <= MAX_USERS_WATCHES + 1);
    let reason = watcher.refused().unwrap().to_string();
    assert!(reason.contains("his") && reason.contains("more than"), "{reason}");
    // Root's are watched all the same, and there is room again for each that goes.
    let file = write(&roots.join("a/f"));
    assert_eq!(paths(watcher.drain()), [file]);
    // What was moved away is watched still, and leaves no room.
    let moved = root.path().join("moved");
    fs::rename(&his, &moved).unwrap();
    watcher.drain();
    // The kernel's answer to the end of that watch.
    watcher.drain();
    write(&his.join("no room/f"));
    assert_eq!(watcher.drain(), []);
    fs::remove_dir_all(&moved).unwrap();
    fs::remove_dir_all(&his).unwrap();
    watcher.drain();
    let file = write(&his.join("new/f"));
    assert_eq!(paths(watcher.drain()), [file]);
    assert_eq!(watcher.counts, [2, 2]);
    watcher.set_stores(stores());
    assert_eq!(watcher.counts, [2, 2]);
}

/// Were each swap followed by itself, this would take minutes.
#[test]
fn full_directories_that_are_swapped_without_end_are_read_once() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    for number in 0..1000 {
        write(&at("a").join(number.to_string()).join("f"));
        write(&at("b").join(number.to_string()).join("f"));
    }
    let (mut watcher, written) = Watcher::new(vec![store(root.path().into(), 2)]);
    assert_eq!(written.len(), 2000);
    for _ in 0..1000 {
        for (from, to) in [("a", ".c"), ("b", "a"), (".c", "b")] {
            fs::rename(at(from), at(to)).unwrap();
        }
    }
    let begun = std::time::Instant::now();
    assert_eq!(watcher.drain().len(), 2000);
    let took = begun.elapsed();
    assert!(took.as_secs() < 10, "{took:?}");
    watcher.drain();
    let files = ["a/7/f", "b/7/f"].map(|name| write(&at(name)));
    assert_eq!(paths(watcher.drain()), files);
}
