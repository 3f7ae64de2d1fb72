//! What attribution lives on: cgroups that come and go, and processes of no cgroup that tells.

use super::{Attach, Hook, Program, Strategy};

/// Its name where hooks are listed by probe.
pub const NAME: &str = "lifecycle";

/// One line of help.
pub const DOC: &str =
    "cgroups and processes that come and go, so that every event finds its container";

/// Programs and tracepoints have the same names.
const CGROUPS: [&str; 4] = ["cgroup_mkdir", "cgroup_rmdir", "cgroup_release", "cgroup_rename"];
const FORK: [&str; 1] = ["sched_process_fork"];

/// The hooks, which every command that watches needs.
pub fn hooks() -> Vec<Hook> {
    let strategy = |names: &[&'static str]| {
        let program = |name: &&'static str| Program { name, attach: Attach::RawTracepoint(name) };
        Some(Strategy { name: "raw_tp", programs: names.iter().map(program).collect() })
    };
    vec![
        Hook {
            name: "cgroup:*",
            strategy: strategy(&CGROUPS),
            required: true,
            fallback: None,
            gives: "cgroups as they come and go",
            lost: None,
            why: None,
        },
        Hook {
            name: "sched:sched_process_fork",
            strategy: strategy(&FORK),
            required: false,
            fallback: None,
            gives: "the container of a process that no cgroup tells of, by its ancestors",
            lost: None,
            why: None,
        },
    ]
}
