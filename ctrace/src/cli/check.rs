//! `ctrace check`: what works on this host, and what is lost.

use std::process::ExitCode;

use anyhow::Result;
use serde_json::{Value, json};

use super::{Format, print};
use crate::{
    kernel::{Capabilities, Facts, Features, Refusal},
    loader::{self, Filtered, Planned, Verified},
    plan::{RingSizes, Wanted},
    probes::{Asked, Hook, PROBES, Probe, lifecycle},
};

/// Says what works on this host: the kernel, its hooks, and what is lost by each choice.
///
/// Exit code 0: `ctrace watch` can run. 1: it cannot.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
    /// Also load every program for a moment, and say how many instructions the kernel's verifier looked
    /// at
    #[arg(long)]
    load: bool,
}

/// Nobody reads what the programs send meanwhile.
const RINGS: RingSizes = RingSizes { rare: 4096, lifecycle: 4096, bulk: 4096 };

const EXAMPLES: &str = "\
Examples:
  ctrace check
  ctrace check --load
  ctrace check -o json | jq '.probes[].hooks[] | select(.lost)'";

pub fn run(args: Args) -> Result<ExitCode> {
    let facts = Facts::gather()?;
    let capabilities = Capabilities::of_self()?;
    let wanted = |probe: &&'static dyn Probe| Wanted {
        probe: *probe,
        asked: Asked::default(),
        is_shown: true,
    };
    let everything: Vec<_> = PROBES.iter().map(wanted).collect();
    let planned = loader::plan(&everything, &facts);
    let ready = capabilities.missing().is_empty()
        && facts.features.ring_buffer.is_ok()
        && planned.iter().any(|one| one.plan.is_ok());
    let mut report = report(&facts, &capabilities, &planned, ready);
    if args.load {
        let loaded = loader::load(&planned, &facts, RINGS, &Filtered::default())?;
        report["programs"] = loaded.verified()?.iter().map(program).collect();
    }
    match args.output {
        Format::Json => print(format!("{report}\n").as_bytes())?,
        Format::Text => print(text(&report).as_bytes())?,
    };
    Ok(if ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn report(facts: &Facts, capabilities: &Capabilities, planned: &[Planned], ready: bool) -> Value {
    let Features { tp_btf, raw_tp, fentry, kprobe, ring_buffer } = &facts.features;
    let feature = |name: &str, result: &Result<(), Refusal>| {
        json!({
            "name": name,
            "works": result.is_ok(),
            "reason": result.as_ref().err().map(ToString::to_string),
        })
    };
    let hierarchies = facts.cgroups.hierarchies.iter().map(|hierarchy| {
        json!({
            "id": hierarchy.id,
            "version": hierarchy.version.number(),
            "controllers": hierarchy.controllers,
            "mount": hierarchy.mount,
        })
    });
    let probes = planned.iter().map(|Planned { probe, plan, .. }| {
        let hooks = plan.iter().flat_map(|plan| &plan.hooks);
        json!({
            "name": probe.name(),
            "doc": probe.doc(),
            "events": probe.events(),
            "works": plan.is_ok(),
            "reason": plan.as_ref().err().map(ToString::to_string),
            "hooks": hooks.map(hook).collect::<Vec<_>>(),
        })
    });
    json!({
        "ready": ready,
        "kernel": facts.release,
        "lockdown": facts.lockdown,
        "capabilities": { "missing": capabilities.missing() },
        "cgroups": {
            "layout": facts.cgroups.kind.name(),
            "hierarchies": hierarchies.collect::<Vec<_>>(),
        },
        "features": [
            feature("tp_btf", tp_btf),
            feature("raw_tp", raw_tp),
            feature("fentry", fentry),
            feature("kprobe", kprobe),
            feature("ring_buffer", ring_buffer),
        ],
        "attribution": {
            "doc": lifecycle::DOC,
            "hooks": lifecycle::hooks().iter().map(hook).collect::<Vec<_>>(),
        },
        "probes": probes.collect::<Vec<_>>(),
    })
}

fn program(Verified { name, instructions, machine_bytes }: &Verified) -> Value {
    json!({
        "name": name,
        "verified_instructions": instructions,
        "machine_bytes": machine_bytes,
    })
}

fn hook(hook: &Hook) -> Value {
    json!({
        "name": hook.name,
        "strategy": hook.strategy.as_ref().map(|strategy| strategy.name),
        "required": hook.required,
        "gives": hook.gives,
        "lost": hook.lost,
        "why": hook.why,
    })
}

/// The report for people: the same facts, in the same order.
fn text(report: &Value) -> String {
    let list = |value: &Value| {
        let items = value.as_array().into_iter().flatten().map(word);
        items.collect::<Vec<_>>().join(", ")
    };
    let mut lines = vec![
        format!("kernel        {}", word(&report["kernel"])),
        format!("lockdown      {}", report["lockdown"].as_str().unwrap_or("not shown")),
    ];
    let missing = list(&report["capabilities"]["missing"]);
    lines.push(match missing.is_empty() {
        true => "capabilities  all that are needed".to_owned(),
        false => format!("capabilities  missing: {missing}"),
    });
    lines.push(format!("cgroups       {}", word(&report["cgroups"]["layout"])));
    for hierarchy in items(&report["cgroups"]["hierarchies"]) {
        let controllers = list(&hierarchy["controllers"]);
        lines.push(format!(
            "              v{} hierarchy {}: {} on {}",
            hierarchy["version"],
            hierarchy["id"],
            if controllers.is_empty() { "no controllers" } else { &controllers },
            hierarchy["mount"].as_str().unwrap_or("(not mounted)"),
        ));
    }
    for feature in items(&report["features"]) {
        let name = word(&feature["name"]);
        lines.push(match feature["reason"].as_str() {
            None => format!("{name:12}  works"),
            Some(reason) => format!("{name:12}  refused: {reason}"),
        });
    }
    lines.push(String::new());
    lines.push(format!("attribution: {}", word(&report["attribution"]["doc"])));
    lines.extend(hook_lines(&report["attribution"]["hooks"]));
    for probe in items(&report["probes"]) {
        lines.push(String::new());
        lines.push(format!("probe {}: {}", word(&probe["name"]), word(&probe["doc"])));
        if let Some(reason) = probe["reason"].as_str() {
            lines.push(format!("  cannot run: {reason}"));
        }
        lines.extend(hook_lines(&probe["hooks"]));
    }
    if let Some(programs) = report["programs"].as_array() {
        lines.extend([String::new(), "programs, as the kernel's verifier saw them:".to_owned()]);
        lines.extend(programs.iter().map(program_line));
    }
    lines.push(String::new());
    lines.push(match report["ready"].as_bool() {
        Some(true) => "ctrace watch can run here.".to_owned(),
        _ => "ctrace watch cannot run here.".to_owned(),
    });
    lines.join("\n") + "\n"
}

fn program_line(program: &Value) -> String {
    let verified = match program["verified_instructions"].as_u64() {
        Some(number) => format!("{number} instructions looked at"),
        None => "instructions looked at are not told before Linux 5.16".to_owned(),
    };
    let bytes = program["machine_bytes"].as_u64().unwrap_or_default();
    format!("  {:24} {verified}, {bytes} bytes of machine code", word(&program["name"]))
}

fn hook_lines(hooks: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    for hook in items(hooks) {
        let strategy = hook["strategy"].as_str().unwrap_or("no hook");
        let gives = word(&hook["gives"]);
        lines.push(format!("  {:24} {strategy:8} {gives}", word(&hook["name"])));
        for fact in ["lost", "why"] {
            if let Some(text) = hook[fact].as_str() {
                lines.push(format!("  {:24} {:8} {fact}: {text}", "", ""));
            }
        }
    }
    lines
}

fn word(value: &Value) -> String {
    value.as_str().unwrap_or("unknown").to_owned()
}

fn items(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}
