//! All that is known of one container, for people. Pure.

use anstyle::Style;

use super::table;
use crate::event::text::{bytes, escape};
use crate::event::{CgroupPlace, Listed, Source, rfc3339};

/// Width of the left column.
const LABEL_WIDTH: usize = 10;

/// A block of lines. `bold`: only for a terminal.
pub fn details(listed: &Listed, bold: bool) -> String {
    let Listed { container, outer, cgroups, state, process, tasks, memory_bytes, sources } = listed;
    let style = Style::new().bold();
    let head = escape(&container.label());
    let mut text = if bold { format!("{style}{head}{style:#}\n") } else { head + "\n" };
    let mut say = |label: &str, said: &str| {
        text += &format!("    {label:LABEL_WIDTH$}  {}\n", escape(said));
    };
    let unknown = || "unknown".to_owned();
    say("id", &container.id);
    say("name", &container.name.clone().unwrap_or_else(unknown));
    say("runtime", container.runtime.map_or("unknown", |runtime| runtime.name()));
    say("image", &container.image.clone().unwrap_or_else(unknown));
    if let Some(pod) = &container.pod {
        let uid = pod.uid.as_ref().map(|uid| format!(", uid {uid}")).unwrap_or_default();
        say("pod", &(table::pod(pod).unwrap_or_else(unknown) + &uid));
    }
    for outer in outer {
        say("inside", &outer.describe());
    }
    say("state", state.map_or("unknown", |state| state.name()));
    if let Some(process) = process {
        let started = process.started_ns.map(|ns| format!(", started {}", rfc3339(ns)));
        say("pid", &format!("{}{}", process.pid, started.unwrap_or_default()));
        let inodes = process.namespaces.each();
        let inodes = inodes.map(|(kind, inode)| {
            format!("{kind} {}", inode.map_or_else(|| "?".to_owned(), |inode| inode.to_string()))
        });
        say("namespaces", &inodes.join(", "));
    }
    if let Some(tasks) = tasks {
        say("tasks", &tasks.to_string());
    }
    if let Some(memory) = memory_bytes {
        say("memory", &bytes(*memory));
    }
    for (index, place) in cgroups.iter().enumerate() {
        let CgroupPlace { key, controllers, path } = place;
        let hierarchy = match key.hierarchy {
            0 => "v2".to_owned(),
            number => format!("v1 {number}"),
        };
        let controllers = controllers.join(",");
        let label = if index == 0 { "cgroup" } else { "" };
        say(label, &format!("{path}  ({hierarchy} {controllers}, id {})", key.id));
    }
    for (index, (key, value)) in container.labels.iter().enumerate() {
        say(if index == 0 { "labels" } else { "" }, &format!("{key}={value}"));
    }
    for (index, Source { fact, from }) in sources.iter().enumerate() {
        say(if index == 0 { "sources" } else { "" }, &format!("{fact}: {from}"));
    }
    text
}
