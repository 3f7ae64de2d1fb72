//! The JSON Schema of an event, made from the field tables.

use serde_json::{Value, json};

use super::{
    Block, Blocked, CGROUP_FIELDS, Cause, CauseKind, Container, Exec, Exit, Level, Lost,
    MemoryPressure, Namespaces, Oom, PidsMax, Pod, Process, RunqDelay, Seccomp, Signal, Submitter,
    Throttle, VERSION, Via, field,
};

/// The types of events with the key of their payload.
const TYPES: &[(&str, &str)] = &[
    ("oom_kill", "oom"),
    ("exec", "exec"),
    ("exit", "exit"),
    ("seccomp", "seccomp"),
    ("signal", "signal"),
    ("block", "block"),
    ("runq_delay", "sched"),
    ("blocked", "sched"),
    ("throttle", "throttle"),
    ("pids_max", "pids"),
    ("memory_pressure", "memory"),
    ("lost", "lost"),
];

/// The schema of one line of `ctrace watch -o json`, in JSON Schema 2020-12. What it does not name is
/// in no event.
pub fn schema() -> Value {
    let object = |properties: serde_json::Map<String, Value>| json!({ "type": "object", "properties": properties });
    let labels = || ("labels", json!({ "additionalProperties": { "type": "string" } }));
    let pod = || ("pod", object(field::schema(Pod::FIELDS, &[labels()])));
    let of_container = || field::schema(Container::FIELDS, &[pod(), labels()]);
    let mut container = of_container();
    container.insert(
        "outer".into(),
        json!({
            "type": "array",
            "description": "Containers around it, outermost first",
            "items": object(of_container()),
        }),
    );
    container.insert(
        "via".into(),
        json!({
            "enum": ["cgroup", "cgroup_path", "namespace", "mountinfo", "lineage"],
            "description": "cgroup: the cgroup's path names it and the runtime's metadata confirms \
                            it. cgroup_path: no metadata was found, the id is all there is. \
                            namespace: the mount namespace is its, the cgroup is not. mountinfo: \
                            the mounts name it. lineage: a process that this one descends from is \
                            its",
        }),
    );
    container.insert(
        "phase".into(),
        json!({
            "enum": ["runtime_init", "joining", null],
            "description": "runtime_init: in the container's cgroup, not yet in its mount \
                            namespace. joining: in its mount namespace, not in its cgroup: docker \
                            exec, nsenter. null: neither",
        }),
    );
    let nullable = |properties, doc| json!({ "type": ["object", "null"], "description": doc, "properties": properties });
    let mut other = field::schema(Process::FIELDS, &[]);
    other.insert("container".into(), nullable(container.clone(), "Its container; null: none"));
    other.insert(
        "attribution".into(),
        json!({
            "enum": Via::ALL.map(Via::name),
            "description": "How the container, or that there is none, is known",
        }),
    );
    other.insert("cgroup".into(), nullable(field::schema(CGROUP_FIELDS, &[]), "Its cgroups"));
    let levels = json!({ "items": object(field::schema(Level::FIELDS, &[])) });
    let counters = json!({ "additionalProperties": { "type": "integer", "minimum": 0 } });
    let oom = field::schema(
        Oom::FIELDS,
        &[("trigger", object(other.clone())), ("levels", levels), ("memory_events", counters)],
    );
    let sender = || ("sender", object(other.clone()));
    let signal = field::schema(Signal::FIELDS, &[sender()]);
    let kinds = json!({ "enum": CauseKind::ALL.map(CauseKind::name) });
    let cause = object(field::schema(Cause::FIELDS, &[sender(), ("kind", kinds)]));
    let exit = field::schema(Exit::FIELDS, &[("cause", cause)]);
    let mut sched = field::schema(RunqDelay::FIELDS, &[("before", object(other.clone()))]);
    sched.extend(field::schema(Blocked::FIELDS, &[]));
    let types: Vec<&str> = TYPES.iter().map(|(kind, _)| *kind).collect();
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "ctrace event",
        "type": "object",
        "required": ["v", "time", "type"],
        "properties": {
            "v": { "const": VERSION, "description": "Version of this schema" },
            "time": { "type": "string", "format": "date-time", "description": "When, UTC" },
            "type": { "enum": types, "description": "What happened" },
            "process": nullable(field::schema(Process::FIELDS, &[]), "Whom it is about; null: a cgroup, and no process of it is known"),
            "container": nullable(container, "Its container; null: none, or unknown"),
            "attribution": {
                "enum": Via::ALL.map(Via::name),
                "description": "How the container, or that there is none, is known",
            },
            "cgroup": nullable(field::schema(CGROUP_FIELDS, &[]), "Its cgroups"),
            "namespaces": nullable(field::schema(Namespaces::FIELDS, &[]), "Its namespaces"),
            "oom": nullable(oom, "With type oom_kill"),
            "exec": nullable(field::schema(Exec::FIELDS, &[]), "With type exec"),
            "throttle": nullable(field::schema(Throttle::FIELDS, &[]), "With type throttle"),
            "pids": nullable(field::schema(PidsMax::FIELDS, &[]), "With type pids_max"),
            "memory": nullable(
                field::schema(MemoryPressure::FIELDS, &[]),
                "With type memory_pressure",
            ),
            "seccomp": nullable(field::schema(Seccomp::FIELDS, &[]), "With type seccomp"),
            "exit": nullable(exit, "With type exit"),
            "signal": nullable(signal, "With type signal: process is whom it was sent to"),
            "block": nullable(field::schema(Block::FIELDS, &[("submitter", object(field::schema(Submitter::FIELDS, &[])))]), "With type block"),
            "sched": nullable(sched, "With types runq_delay and blocked"),
            "lost": nullable(field::schema(Lost::FIELDS, &[]), "With type lost"),
        },
        "allOf": payloads(),
    });
    close(&mut schema);
    schema
}

/// Each payload is there with its types, and only with them.
fn payloads() -> Vec<Value> {
    let mut keys: Vec<&str> = TYPES.iter().map(|(_, key)| *key).collect();
    keys.dedup();
    let rule = |key: &&str| {
        let types = TYPES.iter().filter(|(_, of_type)| of_type == key);
        let types: Vec<&str> = types.map(|(kind, _)| *kind).collect();
        json!({
            "if": { "properties": { "type": { "enum": types } } },
            "then": { "required": [key] },
            "else": { "properties": { (*key): false } },
        })
    };
    keys.iter().map(rule).collect()
}

/// Says of every object that it has no other members than those that are named.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            let is_object = match members.get("type") {
                Some(Value::String(ty)) => ty == "object",
                Some(Value::Array(types)) => types.contains(&"object".into()),
                _ => false,
            };
            if is_object && !members.contains_key("additionalProperties") {
                members.insert("additionalProperties".into(), false.into());
            }
            members.values_mut().for_each(close);
        }
        Value::Array(values) => values.iter_mut().for_each(close),
        _ => {}
    }
}

/// Fails unless the file in `docs` has this schema; `CTRACE_UPDATE=1 cargo test` writes it anew.
#[cfg(test)]
pub(crate) fn is_published(file: &str, schema: &serde_json::Value) {
    let path = format!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/{}"), file);
    let made = serde_json::to_string_pretty(schema).expect("JSON") + "\n";
    if std::env::var_os("CTRACE_UPDATE").is_some() {
        std::fs::write(&path, &made).expect("docs is writable");
    }
    let published = std::fs::read_to_string(&path).expect("the schema file is there");
    assert!(published == made, "docs/{file} is stale: CTRACE_UPDATE=1 cargo test");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_unnamed_is_allowed() {
        let schema = schema();
        let container = &schema["properties"]["container"];
        for closed in [
            &schema,
            container,
            &container["properties"]["pod"],
            &container["properties"]["outer"]["items"],
            &schema["properties"]["oom"]["properties"]["trigger"],
            &schema["properties"]["oom"]["properties"]["levels"]["items"],
        ] {
            assert_eq!(closed["additionalProperties"], false, "{closed}");
        }
        let labels = &container["properties"]["labels"]["additionalProperties"];
        assert_eq!(labels["type"], "string");
    }

    #[test]
    fn the_schema_file_is_up_to_date() {
        is_published("events.schema.json", &schema());
    }
}
