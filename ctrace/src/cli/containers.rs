//! `ctrace containers`: what is known of this host's containers.

use std::{
    io::{self, IsTerminal, Write},
    num::NonZeroU64,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result};
use jiff::tz::TimeZone;

use super::{Format, Usage, print, say, selection::Selection, watch};
use crate::{
    attribute::{Attributor, inventory::Ask},
    event::{CgroupPlace, Container, Event, Listed, ListedUnit, Payload, Turn, text::escape},
    filter::Filter,
    kernel::{self, Capabilities, Capability, CgroupLayout, Facts, clock, host},
    loader::{self, Filtered, Loaded},
    pipeline::{self, Follow, Happening},
    plan::{self, Limits, RingSizes},
    sink::{Json, Sink, Text},
};

mod details;
mod table;

use details::details;
use table::Look;

/// Lists this host's containers, of every runtime, daemons running or not: who they are, what they
/// do, and which cgroups, namespaces and processes are theirs.
///
/// Needs no BPF without --watch. Without root it says less.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Only these, in full: by name, or by the start of the id
    #[arg(value_name = "NAME|ID")]
    containers: Vec<String>,
    /// Also those without a process: created, stopped, or only known from files
    #[arg(short, long)]
    all: bool,
    /// Also systemd units
    #[arg(long)]
    units: bool,
    #[command(flatten)]
    selection: Selection,
    /// All that is known of each, and where each fact comes from
    #[arg(long)]
    sources: bool,
    /// Do not shorten ids and paths, nor cut columns to the terminal's width
    #[arg(long)]
    no_trunc: bool,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
    /// After the list, say which containers start and end, until Ctrl-C
    #[arg(short, long)]
    watch: bool,
    /// With --watch: end after this time, for example 10s, 5m
    #[arg(long, value_name = "TIME", value_parser = plan::parse_duration, requires = "watch")]
    duration: Option<Duration>,
    /// With --watch: end after so many starts and ends
    #[arg(short = 'n', long, value_name = "N", requires = "watch")]
    count: Option<NonZeroU64>,
}

const EXAMPLES: &str = "\
Examples:
  ctrace containers                       those that run
  ctrace containers --all --no-trunc      also those that do not, with whole ids
  ctrace containers batch                 all that is known of one
  ctrace containers --namespace prod -o json | jq -r '.container.name'
  ctrace containers --watch --duration 1h

The JSON is described in docs/container.schema.json.

Exit codes: 0 ended as asked, 1 failed, 2 bad usage, or no such container.";

/// Sizes of the rings: only that for cgroups that come and go is used.
const RINGS: RingSizes = RingSizes { rare: 4096, lifecycle: 4 << 20, bulk: 4096 };

pub fn run(args: Args) -> Result<ExitCode> {
    let filter = args.selection.clone().filter(args.containers.clone());
    // What comes between the list and the first record is nothing: the hooks are there first.
    let loaded = if args.watch { Some(load()?) } else { None };
    let layout = CgroupLayout::of_host().context("cannot read the cgroup layout")?;
    let host_mnt_ns = host::mnt_ns().context("cannot read the host's mount namespace")?;
    let mut attributor = Attributor::new(layout.clone(), host_mnt_ns);
    say_what_is_hidden();
    attributor.walk(clock::boot_now());
    let (list, units) = look(&mut attributor, &args, &filter, &layout);
    if !args.watch {
        for selector in &args.containers {
            if !list.iter().any(|listed| crate::event::matches(&listed.container, selector)) {
                return Err(Usage(format!("there is no container '{selector}'")).into());
            }
        }
    }
    let text = match args.output {
        Format::Json => json(&list, &units)?,
        Format::Text => text(&list, &units, &args),
    };
    print(text.as_bytes())?;
    if list.is_empty() {
        let hint = if args.all { "" } else { "; --all also lists those that do not run" };
        say(format_args!("ctrace: no containers{hint}"));
    }
    let Some(loaded) = loaded else { return Ok(ExitCode::SUCCESS) };
    watch_turns(Follow { loaded, attributor, filter }, &args, &layout)
}

/// The containers and units that are asked for, complete.
fn look(
    attributor: &mut Attributor,
    args: &Args,
    filter: &Filter,
    layout: &CgroupLayout,
) -> (Vec<Listed>, Vec<ListedUnit>) {
    let ask = Ask {
        wanted: &|container: &Container| filter.wants_one(container),
        all: args.all || !args.containers.is_empty(),
        details: args.output == Format::Json || is_detailed(args),
    };
    let mut list = attributor.inventory(&ask);
    for listed in &mut list {
        complete(&mut listed.cgroups, layout);
        if let Some(process) = &mut listed.process {
            let ticks = process.start_ticks;
            process.started_ns = ticks.and_then(clock::boot_ns_of_ticks).map(clock::wall_of_boot);
        }
    }
    let mut units = if args.units { attributor.units() } else { Vec::new() };
    for unit in &mut units {
        complete(&mut unit.cgroups, layout);
    }
    (list, units)
}

fn is_detailed(args: &Args) -> bool {
    args.sources || !args.containers.is_empty()
}

/// Adds what the layout knows of each cgroup's hierarchy.
fn complete(places: &mut [CgroupPlace], layout: &CgroupLayout) {
    for place in places {
        let hierarchy = layout.hierarchies.iter().find(|h| h.id == place.key.hierarchy);
        place.controllers = hierarchy.map(|h| h.controllers.clone()).unwrap_or_default();
    }
}

/// The list is shorter without root: says so.
fn say_what_is_hidden() {
    let may_read = Capabilities::of_self().is_ok_and(|own| own.has(Capability::DacReadSearch));
    if !may_read {
        say(format_args!(
            "ctrace: missing CAP_DAC_READ_SEARCH: names, images and containers without a cgroup \
             stay unknown; run ctrace as root"
        ));
    }
}

fn json(list: &[Listed], units: &[ListedUnit]) -> Result<String> {
    let now = clock::wall_now();
    let mut lines = String::new();
    for listed in list {
        lines += &(serde_json::to_string(&listed.value(now))? + "\n");
    }
    for unit in units {
        lines += &(serde_json::to_string(&unit.value(now))? + "\n");
    }
    Ok(lines)
}

fn text(list: &[Listed], units: &[ListedUnit], args: &Args) -> String {
    let bold = super::Colour::Auto.on(&io::stdout());
    let width = terminal_width().filter(|_| !args.no_trunc);
    let look = Look { bold, width, whole: args.no_trunc };
    let mut text = String::new();
    if is_detailed(args) {
        let blocks: Vec<String> = list.iter().map(|listed| details(listed, bold)).collect();
        text += &blocks.join("\n");
    } else if !list.is_empty() {
        text += &table::containers(list, look);
    }
    if !units.is_empty() {
        if !text.is_empty() {
            text.push('\n');
        }
        text += &table::units(units, look);
    }
    text
}

/// Characters of a line, where standard output is a terminal.
fn terminal_width() -> Option<usize> {
    let out = io::stdout();
    let size = out.is_terminal().then(|| rustix::termios::tcgetwinsize(&out).ok()).flatten()?;
    Some(size.ws_col.into()).filter(|width| *width > 0)
}

fn load() -> Result<Loaded> {
    kernel::require_privileges()?;
    let facts = Facts::gather()?;
    loader::load(&[], &facts, RINGS, &Filtered::default())
}

fn watch_turns(stages: Follow, args: &Args, layout: &CgroupLayout) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    let limits = Limits { duration: args.duration, count: args.count };
    let format = args.output;
    let bold = super::Colour::Auto.on(&io::stdout());
    let zone = TimeZone::system();
    runtime.block_on(async {
        let stop = watch::stop_signal()?;
        say(format_args!("attached: starts and ends of containers"));
        pipeline::follow(stages, limits, stop, |happenings| {
            let mut out = io::stdout().lock();
            for happening in happenings {
                write_turn(&mut out, happening, format, layout, bold, &zone)?;
            }
            out.flush()
        })
        .await
    })?;
    Ok(ExitCode::SUCCESS)
}

fn write_turn(
    out: &mut dyn Write,
    happening: &Happening,
    format: Format,
    layout: &CgroupLayout,
    bold: bool,
    zone: &TimeZone,
) -> io::Result<()> {
    match happening {
        Happening::Lost(lost) => {
            let payload = Payload::Lost(lost.clone());
            let event = Event { time_ns: clock::wall_now(), subject: None, payload };
            match format {
                Format::Json => Json::default().write(&event, out),
                Format::Text => Text::new(bold, zone.clone()).write(&event, out),
            }
        }
        Happening::Turn { turn, listed, time_ns } => match format {
            Format::Json => {
                let mut listed = listed.clone();
                complete(&mut listed.cgroups, layout);
                listed.cgroups.sort_by_key(|place| place.key.hierarchy);
                serde_json::to_writer(&mut *out, &listed.turn_value(*turn, *time_ns))?;
                out.write_all(b"\n")
            }
            Format::Text => writeln!(out, "{}", turn_line(*turn, listed, *time_ns, zone)),
        },
    }
}

/// `+ 04:05:06.789 b9771916bc00 batch nightly-report:1.4`; what is unknown is `-`.
fn turn_line(turn: Turn, listed: &Listed, time_ns: i128, zone: &TimeZone) -> String {
    let sign = match turn {
        Turn::Start => '+',
        Turn::End => '-',
    };
    let container = &listed.container;
    let or_dash = |text: &Option<String>| text.as_deref().map_or_else(|| "-".to_owned(), escape);
    let time = crate::sink::clock(time_ns, zone);
    let (name, image) = (or_dash(&container.name), or_dash(&container.image));
    format!("{sign} {time}  {}  {name}  {image}", escape(&container.short_id()))
}

#[cfg(test)]
mod tests;
