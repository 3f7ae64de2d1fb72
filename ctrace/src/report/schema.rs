//! What the report's line of JSON has, for programs that read it.

use serde_json::{Value, json};

use crate::event::VERSION;

/// JSON Schema of the last line on standard error of `ctrace watch -o json`.
pub fn schema() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The summary of ctrace watch",
        "type": "object",
        "additionalProperties": false,
        "required": ["v", "type", "containers", "host", "unknown"],
        "properties": {
            "v": { "const": VERSION, "description": "Version" },
            "type": { "const": "summary" },
            "containers": {
                "type": "array",
                "description": "By name. Those to which nothing happened are left out",
                "items": part(true),
            },
            "host": { "anyOf": [{ "type": "null" }, part(false)],
                      "description": "What is in no container; null: nothing" },
            "unknown": { "anyOf": [{ "type": "null" }, part(false)],
                         "description": "What is not known to be a container's or not; null: nothing" },
        },
    })
}

/// What happened to a container, or outside of them.
fn part(is_container: bool) -> Value {
    let count = |what: &str| json!({ "type": "integer", "minimum": 0, "description": what });
    let percentile = |of: &str| {
        json!({ "type": ["integer", "null"], "minimum": 0,
                "description": format!("Nanoseconds that {of} of 100 did not exceed, wrong by an \
                                        eighth at most") })
    };
    let latency = |what: &str| {
        json!({
            "count": count(&format!("How many {what}")),
            "sum_ns": count("Nanoseconds, all together"),
            "p50_ns": percentile("50"),
            "p99_ns": percentile("99"),
        })
    };
    let mut block = latency("were done");
    block["bytes"] = count("Bytes, all together");
    block["op"] = json!({ "enum": ["read", "write", "other"],
                          "description": "other: flushes, discards and the like" });
    block["disk"] = json!({ "type": ["string", "null"], "description": "vda; null: it is gone" });
    block["device"] = json!({ "type": "string", "description": "major:minor" });
    let mut properties = json!({
        "events": { "type": "object", "additionalProperties": { "type": "integer", "minimum": 1 },
                    "description": "Events written, by type" },
        "oom_kills": count("Events oom_kill"),
        "denials": count("System calls that seccomp denied or logged, each that was folded counted"),
        "throttled_ns": count("Nanoseconds that its tasks waited for CPU quota, over all CPUs"),
        "run_queue": closed(latency("waits for a CPU there were, but those for CPU quota")),
        "block": {
            "type": "array",
            "description": "I/O that the kernel charged to it, by device and operation",
            "items": closed(block),
        },
    });
    if is_container {
        properties["id"] = json!({ "type": ["string", "null"],
                                   "description": "null: containers that were too many to tell apart" });
        properties["name"] = json!({ "type": "string", "description": "Or the start of the id" });
    }
    closed(properties)
}

/// An object that has these members, and no others.
fn closed(properties: Value) -> Value {
    let names: Vec<&String> =
        properties.as_object().into_iter().flat_map(|map| map.keys()).collect();
    json!({ "type": "object", "additionalProperties": false, "required": names,
            "properties": properties })
}
