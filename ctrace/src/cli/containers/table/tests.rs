use proptest::prelude::*;

use super::*;
use crate::event::{CgroupKey, CgroupPlace, Container, FirstProcess, NamespaceInodes, Runtime};

const ID: &str = "b9771916bc00f40a419cbc2966299fdfd336c3a44be2f031cf6785d7f6f88924";

fn listed(name: &str, image: &str) -> Listed {
    let pod = Pod { name: Some("shop".into()), namespace: Some("prod".into()), ..Pod::default() };
    let container = Container {
        id: ID.into(),
        name: Some(name.into()),
        runtime: Some(Runtime::Docker),
        image: Some(image.into()),
        pod: Some(pod),
        ..Container::default()
    };
    let key = CgroupKey { hierarchy: 0, id: 5 };
    let path = format!("/docker/{ID}").into();
    Listed {
        container: container.into(),
        cgroups: vec![CgroupPlace { key, controllers: Vec::new(), path }],
        state: Some(State::Running),
        process: Some(FirstProcess {
            pid: 42,
            start_ticks: None,
            started_ns: None,
            namespaces: NamespaceInodes::default(),
        }),
        ..Listed::default()
    }
}

#[test]
fn aligned() {
    let bare = Listed {
        container: Container { id: "x".into(), ..Container::default() }.into(),
        ..Listed::default()
    };
    let text = containers(&[listed("batch", "bb"), bare], Look::default());
    let expected = "\
ID            NAME   RUNTIME  IMAGE  POD        STATE    PID  CGROUP
b9771916bc00  batch  docker   bb     prod/shop  running  42   /docker/b9771916bc00…
x             -      -        -      -          -        -    -
";
    assert_eq!(text, expected);
}

#[test]
fn bold_only_where_asked() {
    let look = Look { bold: true, ..Look::default() };
    assert!(containers(&[listed("a", "b")], look).starts_with("\x1b[1mID"));
}

#[test]
fn whole() {
    let look = Look { whole: true, ..Look::default() };
    let text = containers(&[listed("a", "b")], look);
    assert!(text.contains(&format!("\n{ID}  ")) && text.contains(&format!("/docker/{ID}\n")));
}

#[test]
fn the_widest_is_cut_first() {
    let image = "registry.example/team/nightly-report:1.4.2-rc1";
    let look = Look { width: Some(100), ..Look::default() };
    let text = containers(&[listed("batch", image)], look);
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    assert!(text.contains("batch  ") && text.contains("registry.exam") && text.contains('…'));
}

#[test]
fn a_list_of_units() {
    let unit = ListedUnit {
        name: "ssh.service".into(),
        cgroups: vec![CgroupPlace {
            key: CgroupKey::default(),
            controllers: Vec::new(),
            path: "/system.slice/ssh.service".into(),
        }],
        processes: 2,
    };
    let expected = "\
UNIT         PROCESSES  CGROUP
ssh.service  2          /system.slice/ssh.service
";
    assert_eq!(units(&[unit], Look::default()), expected);
}

proptest! {
    /// Whatever the names: one line each, nothing for a terminal to obey, and never too long.
    #[test]
    fn hostile_names(name in any::<String>(), image in any::<String>(), width in 0_usize..300) {
        let look = Look { width: Some(width), ..Look::default() };
        let text = containers(&[listed(&name, &image)], look);
        prop_assert_eq!(text.lines().count(), 2);
        prop_assert!(!text.chars().any(|c| c.is_control() && c != '\n'));
        prop_assert!(text.lines().all(|line| line.chars().count() <= width.max(110)));
        let whole = super::super::details(&listed(&name, &image), false);
        prop_assert!(!whole.chars().any(|c| c.is_control() && c != '\n'));
    }
}
