//! A container, or a systemd unit, as `ctrace containers` lists it.

use std::sync::Arc;

use super::field::{self, Field, Type, Value, object};
use super::{CgroupKey, Container, VERSION};

/// What a container is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Never started.
    Created,
    Running,
    Paused,
    /// Has no process: ended, or waiting to be started again.
    Stopped,
}

impl State {
    pub const ALL: [State; 4] = [State::Created, State::Running, State::Paused, State::Stopped];

    pub const fn name(self) -> &'static str {
        match self {
            State::Created => "created",
            State::Running => "running",
            State::Paused => "paused",
            State::Stopped => "stopped",
        }
    }
}

/// A container with all that is known of it now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    pub container: Arc<Container>,
    /// The containers around it, outermost first.
    pub outer: Vec<Arc<Container>>,
    /// Its own cgroup in each hierarchy, by number of the hierarchy.
    pub cgroups: Vec<CgroupPlace>,
    pub state: Option<State>,
    pub process: Option<FirstProcess>,
    /// Threads in its cgroup and below.
    pub tasks: Option<u64>,
    pub memory_bytes: Option<u64>,
    pub sources: Vec<Source>,
}

/// A cgroup and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupPlace {
    pub key: CgroupKey,
    /// Of its hierarchy, as the kernel names them.
    pub controllers: Vec<String>,
    /// From the root of its hierarchy.
    pub path: Arc<str>,
}

/// The process that stands for a container: its init.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstProcess {
    /// In the pid namespace that ctrace runs in.
    pub pid: u32,
    /// Clock ticks since boot (field 22 of `/proc/PID/stat`).
    pub start_ticks: Option<u64>,
    /// Nanoseconds since the epoch, UTC.
    pub started_ns: Option<i128>,
    pub namespaces: NamespaceInodes,
}

/// Inodes of `/proc/PID/ns`; absent where they may not be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamespaceInodes {
    pub pid: Option<u64>,
    pub mnt: Option<u64>,
    pub net: Option<u64>,
    pub user: Option<u64>,
    pub uts: Option<u64>,
    pub ipc: Option<u64>,
    pub cgroup: Option<u64>,
}

/// Where a fact comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// `metadata`, `cgroup`, `pid` or `state`.
    pub fact: &'static str,
    /// A file, or what else it was.
    pub from: String,
}

/// A systemd unit that is no container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedUnit {
    pub name: String,
    pub cgroups: Vec<CgroupPlace>,
    /// Processes in its cgroup and below, as they are in the first hierarchy that has any.
    pub processes: u64,
}

/// What becomes of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    Start,
    End,
}

impl Listed {
    /// The members of its JSON object beside `v`, `time`, `type` and `container`.
    pub const FIELDS: &'static [Field<Self>] = &[
        Field {
            name: "state",
            ty: Type::Text,
            doc: "created, running, paused or stopped; null: unknown",
            get: |listed| listed.state.map(State::name).into(),
        },
        Field {
            name: "pid",
            ty: Type::Number,
            doc: "Its first process; null: it has none, or none that is surely its",
            get: |listed| listed.process.as_ref().map(|process| process.pid).into(),
        },
        Field {
            name: "started",
            ty: Type::Text,
            doc: "When that process was started, UTC",
            get: |listed| listed.process.as_ref().and_then(|p| p.started_ns).map(rfc3339).into(),
        },
        Field {
            name: "tasks",
            ty: Type::Number,
            doc: "Threads in its cgroup and below, as pids.current counts them; null: no pids \
                  controller",
            get: |listed| listed.tasks.into(),
        },
        Field {
            name: "memory_bytes",
            ty: Type::Bytes,
            doc: "memory.current of its cgroup, or memory.usage_in_bytes with cgroup v1",
            get: |listed| listed.memory_bytes.into(),
        },
        Field {
            name: "cgroups",
            ty: Type::Objects,
            doc: "Its own cgroup in each hierarchy",
            get: |listed| places(&listed.cgroups),
        },
        Field {
            name: "namespaces",
            ty: Type::Object,
            doc: "Inodes of that process's namespaces; null: no process",
            get: |listed| {
                let process = listed.process.as_ref();
                process.map(|p| object(NamespaceInodes::FIELDS, &p.namespaces)).into()
            },
        },
        Field {
            name: "sources",
            ty: Type::Objects,
            doc: "Where the facts come from",
            get: |listed| {
                let sources = listed.sources.iter();
                Value::List(sources.map(|source| object(Source::FIELDS, source)).collect())
            },
        },
    ];

    /// One line of `ctrace containers -o json`. `time_ns`: since the epoch, UTC.
    pub fn value(&self, time_ns: i128) -> Value<'_> {
        let mut members = head(time_ns, "container");
        members.push(("container".into(), self.container_value()));
        members.extend(Self::FIELDS.iter().map(|f| (f.name.into(), (f.get)(self))));
        Value::Object(members)
    }

    /// One line of `ctrace containers --watch -o json`.
    pub fn turn_value(&self, turn: Turn, time_ns: i128) -> Value<'_> {
        let mut members = head(time_ns, turn.type_name());
        members.push(("container".into(), self.container_value()));
        members.push(("cgroups".into(), places(&self.cgroups)));
        Value::Object(members)
    }

    fn container_value(&self) -> Value<'_> {
        let fields = Container::FIELDS.iter();
        let mut members: Vec<_> =
            fields.map(|field| (field.name.into(), (field.get)(&self.container))).collect();
        let outer = self.outer.iter().map(|outer| object(Container::FIELDS, outer.as_ref()));
        members.push(("outer".into(), Value::List(outer.collect())));
        Value::Object(members)
    }
}

impl ListedUnit {
    const FIELDS: &'static [Field<Self>] = &[
        Field {
            name: "unit",
            ty: Type::Text,
            doc: "The systemd unit's name",
            get: |unit| (&unit.name).into(),
        },
        Field {
            name: "processes",
            ty: Type::Number,
            doc: "Processes in its cgroup and below",
            get: |unit| unit.processes.into(),
        },
        Field {
            name: "cgroups",
            ty: Type::Objects,
            doc: "Its cgroup in each hierarchy",
            get: |unit| places(&unit.cgroups),
        },
    ];

    /// One line of `ctrace containers --units -o json`.
    pub fn value(&self, time_ns: i128) -> Value<'_> {
        let mut members = head(time_ns, "unit");
        members.extend(Self::FIELDS.iter().map(|f| (f.name.into(), (f.get)(self))));
        Value::Object(members)
    }
}

impl Turn {
    pub const fn type_name(self) -> &'static str {
        match self {
            Turn::Start => "container_start",
            Turn::End => "container_end",
        }
    }
}

impl CgroupPlace {
    const FIELDS: &'static [Field<Self>] = &[
        Field {
            name: "hierarchy",
            ty: Type::Number,
            doc: "Number of the hierarchy; 0 is v2. Ids are unique in one hierarchy only",
            get: |place| place.key.hierarchy.into(),
        },
        Field {
            name: "controllers",
            ty: Type::Texts,
            doc: "Controllers of the hierarchy; a named one without controllers has name=…",
            get: |place| {
                Value::List(place.controllers.iter().map(|name| name.as_str().into()).collect())
            },
        },
        Field {
            name: "id",
            ty: Type::Number,
            doc: "kernfs id: the inode of its directory",
            get: |place| place.key.id.into(),
        },
        Field {
            name: "path",
            ty: Type::Text,
            doc: "From the root of the hierarchy",
            get: |place| (&*place.path).into(),
        },
    ];
}

impl NamespaceInodes {
    const FIELDS: &'static [Field<Self>] = &[
        Field { name: "pid", ty: Type::Number, doc: "pid namespace", get: |ns| ns.pid.into() },
        Field { name: "mnt", ty: Type::Number, doc: "Mount namespace", get: |ns| ns.mnt.into() },
        Field { name: "net", ty: Type::Number, doc: "Network namespace", get: |ns| ns.net.into() },
        Field { name: "user", ty: Type::Number, doc: "User namespace", get: |ns| ns.user.into() },
        Field { name: "uts", ty: Type::Number, doc: "UTS namespace", get: |ns| ns.uts.into() },
        Field { name: "ipc", ty: Type::Number, doc: "IPC namespace", get: |ns| ns.ipc.into() },
        Field {
            name: "cgroup",
            ty: Type::Number,
            doc: "cgroup namespace",
            get: |ns| ns.cgroup.into(),
        },
    ];

    /// Each kind with its inode, in the order of the table.
    pub fn each(&self) -> [(&'static str, Option<u64>); 7] {
        let Self { pid, mnt, net, user, uts, ipc, cgroup } = *self;
        [
            ("pid", pid),
            ("mnt", mnt),
            ("net", net),
            ("user", user),
            ("uts", uts),
            ("ipc", ipc),
            ("cgroup", cgroup),
        ]
    }
}

impl Source {
    const FIELDS: &'static [Field<Self>] = &[
        Field {
            name: "fact",
            ty: Type::Text,
            doc: "metadata (name, image, labels, pod), cgroup, pid or state",
            get: |source| source.fact.into(),
        },
        Field {
            name: "from",
            ty: Type::Text,
            doc: "A file, or walk: the cgroup file systems were searched",
            get: |source| (&source.from).into(),
        },
    ];
}

fn places(places: &[CgroupPlace]) -> Value<'_> {
    Value::List(places.iter().map(|place| object(CgroupPlace::FIELDS, place)).collect())
}

fn head<'a>(time_ns: i128, name: &'static str) -> Vec<(std::borrow::Cow<'a, str>, Value<'a>)> {
    vec![
        ("v".into(), VERSION.into()),
        ("time".into(), rfc3339(time_ns).into()),
        ("type".into(), name.into()),
    ]
}

/// UTC with nine digits of a second, whatever they are: the width never changes.
pub fn rfc3339(time_ns: i128) -> String {
    jiff::Timestamp::from_nanosecond(time_ns)
        .map(|time| format!("{time:.9}"))
        .unwrap_or_else(|_| "1970-01-01T00:00:00.000000000Z".to_owned())
}

/// The schema of one line of `ctrace containers -o json`, in JSON Schema 2020-12.
pub fn container_schema() -> serde_json::Value {
    use serde_json::{Map, Value, json};
    let items = |properties: Map<String, Value>| json!({ "items": { "properties": properties } });
    let mut container = field::schema(Container::FIELDS, &[]);
    container.insert(
        "outer".into(),
        json!({
            "type": "array",
            "description": "Containers around it, outermost first",
            "items": { "properties": field::schema(Container::FIELDS, &[]) },
        }),
    );
    let places = || items(field::schema(CgroupPlace::FIELDS, &[]));
    let namespaces = json!({ "properties": field::schema(NamespaceInodes::FIELDS, &[]) });
    let sources = items(field::schema(Source::FIELDS, &[]));
    let mut properties = field::schema(
        Listed::FIELDS,
        &[("cgroups", places()), ("namespaces", namespaces), ("sources", sources)],
    );
    let of_unit = field::schema(ListedUnit::FIELDS, &[("cgroups", places())]);
    for (name, property) in of_unit {
        properties.entry(name).or_insert(property);
    }
    properties.insert("v".into(), json!({ "const": VERSION, "description": "Version" }));
    properties.insert(
        "time".into(),
        json!({ "type": "string", "format": "date-time",
                "description": "UTC: of the look, or of the start or end" }),
    );
    properties.insert(
        "type".into(),
        json!({
            "enum": ["container", Turn::Start.type_name(), Turn::End.type_name(), "unit", "lost"],
            "description": "container: there is one. container_start, container_end: with \
                            --watch, container and cgroups alone. unit: with --units. lost: with \
                            --watch, as in events.schema.json",
        }),
    );
    properties.insert("container".into(), json!({ "type": "object", "properties": container }));
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "ctrace container",
        "type": "object",
        "required": ["v", "time", "type"],
        "properties": properties,
    })
}

#[cfg(test)]
mod tests;
