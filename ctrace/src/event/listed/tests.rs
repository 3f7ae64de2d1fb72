use std::collections::BTreeSet;

use super::*;
use crate::event::Runtime;

fn listed() -> Listed {
    let container = Container {
        id: "web".into(),
        name: Some("a\"b".into()),
        runtime: Some(Runtime::Runc),
        ..Container::default()
    };
    Listed {
        container: container.into(),
        outer: vec![Container { id: "out".into(), ..Container::default() }.into()],
        cgroups: vec![CgroupPlace {
            key: CgroupKey { hierarchy: 4, id: u64::MAX },
            controllers: vec!["memory".into()],
            path: "/web".into(),
        }],
        state: Some(State::Paused),
        process: Some(FirstProcess {
            pid: 7,
            start_ticks: Some(100),
            started_ns: Some(1_500_000_000),
            namespaces: NamespaceInodes { net: Some(5), ..NamespaceInodes::default() },
        }),
        tasks: Some(3),
        memory_bytes: None,
        sources: vec![Source { fact: "pid", from: "/run/runc/web/state.json".into() }],
    }
}

fn json(value: &Value) -> serde_json::Value {
    serde_json::from_str(&serde_json::to_string(value).unwrap()).unwrap()
}

#[test]
fn one_object_has_it_all() {
    let listed = listed();
    let value = json(&listed.value(0));
    assert_eq!(value["type"], "container");
    assert_eq!(value["time"], "1970-01-01T00:00:00.000000000Z");
    assert_eq!(value["container"]["name"], "a\"b");
    assert_eq!(value["container"]["outer"][0]["id"], "out");
    assert_eq!((&value["state"], &value["pid"]), (&"paused".into(), &7.into()));
    assert_eq!(value["started"], "1970-01-01T00:00:01.500000000Z");
    assert_eq!(value["cgroups"][0]["id"], u64::MAX);
    assert_eq!(value["cgroups"][0]["controllers"][0], "memory");
    assert_eq!((&value["namespaces"]["net"], &value["namespaces"]["pid"]), (&5.into(), &().into()));
    assert!(value["memory_bytes"].is_null());
    assert_eq!(value["sources"][0]["fact"], "pid");
}

#[test]
fn a_start_names_the_container_and_its_cgroups() {
    let listed = listed();
    let value = json(&listed.turn_value(Turn::Start, 1));
    let keys: Vec<&String> = value.as_object().unwrap().keys().collect();
    assert_eq!(keys.len(), 5, "{keys:?}");
    assert_eq!(
        (&value["type"], &value["container"]["id"]),
        (&"container_start".into(), &"web".into())
    );
    assert_eq!(json(&listed.turn_value(Turn::End, 1))["type"], "container_end");
}

/// Every key that is written is in the schema, at every depth.
#[test]
fn the_schema_has_every_key() {
    let schema = container_schema();
    let unit = ListedUnit { name: "x.service".into(), cgroups: Vec::new(), processes: 1 };
    let listed = listed();
    for value in [listed.value(0), listed.turn_value(Turn::End, 0), unit.value(0)] {
        check(&json(&value), &schema);
    }
    let enumerated = schema["properties"]["type"]["enum"].as_array().unwrap();
    assert!(enumerated.contains(&"unit".into()));
}

fn check(value: &serde_json::Value, schema: &serde_json::Value) {
    let Some(members) = value.as_object() else { return };
    let Some(properties) = schema["properties"].as_object() else {
        // Labels and a pod have no table here.
        return;
    };
    let known: BTreeSet<&String> = properties.keys().collect();
    for (key, value) in members {
        assert!(known.contains(key), "{key} is not in the schema");
        check(value, &properties[key]);
        for item in value.as_array().into_iter().flatten() {
            check(item, &properties[key]["items"]);
        }
    }
}

#[test]
fn the_schema_file_is_up_to_date() {
    crate::event::is_published("container.schema.json", &container_schema());
}
