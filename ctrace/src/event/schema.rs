//! The JSON Schema of an event, made from the field tables.

use serde_json::{Value, json};

use super::{
    CGROUP_FIELDS, Container, Exec, Exit, Level, Lost, Namespaces, Oom, Pod, Process, VERSION, Via,
    field,
};

/// The schema of one line of `ctrace watch -o json`, in JSON Schema 2020-12.
pub fn schema() -> Value {
    let object = |properties: serde_json::Map<String, Value>| json!({ "properties": properties });
    let pod = || ("pod", object(field::schema(Pod::FIELDS, &[])));
    let mut container = field::schema(Container::FIELDS, &[pod()]);
    container.insert(
        "outer".into(),
        json!({
            "type": "array",
            "description": "Containers around it, outermost first",
            "items": object(field::schema(Container::FIELDS, &[pod()])),
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
    let mut trigger = field::schema(Process::FIELDS, &[]);
    trigger.insert("container".into(), object(container.clone()));
    trigger.insert("cgroup".into(), object(field::schema(CGROUP_FIELDS, &[])));
    let levels = json!({ "items": object(field::schema(Level::FIELDS, &[])) });
    let oom = field::schema(Oom::FIELDS, &[("trigger", object(trigger)), ("levels", levels)]);

    let nullable = |properties, doc| json!({ "type": ["object", "null"], "description": doc, "properties": properties });
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "ctrace event",
        "type": "object",
        "required": ["v", "time", "type"],
        "properties": {
            "v": { "const": VERSION, "description": "Version of this schema" },
            "time": { "type": "string", "format": "date-time", "description": "When, UTC" },
            "type": { "enum": ["oom_kill", "exec", "exit", "lost"], "description": "What happened" },
            "process": nullable(field::schema(Process::FIELDS, &[]), "Whom it is about"),
            "container": nullable(container, "Its container; null: none, or unknown"),
            "attribution": {
                "enum": Via::ALL.map(Via::name),
                "description": "How the container, or that there is none, is known",
            },
            "cgroup": nullable(field::schema(CGROUP_FIELDS, &[]), "Its cgroups"),
            "namespaces": nullable(field::schema(Namespaces::FIELDS, &[]), "Its namespaces"),
            "oom": nullable(oom, "With type oom_kill"),
            "exec": nullable(field::schema(Exec::FIELDS, &[]), "With type exec"),
            "exit": nullable(field::schema(Exit::FIELDS, &[]), "With type exit"),
            "lost": nullable(field::schema(Lost::FIELDS, &[]), "With type lost"),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The schema in `docs` is this one; `CTRACE_UPDATE=1 cargo test` writes it anew.
    #[test]
    fn the_schema_file_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/event.schema.json");
        let made = serde_json::to_string_pretty(&schema()).expect("JSON") + "\n";
        if std::env::var_os("CTRACE_UPDATE").is_some() {
            std::fs::write(path, &made).expect("docs is writable");
        }
        let file = std::fs::read_to_string(path).expect("the schema file is there");
        assert!(file == made, "docs/event.schema.json is stale: CTRACE_UPDATE=1 cargo test");
    }
}
