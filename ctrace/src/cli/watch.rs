//! `ctrace watch`: live events.

use std::{
    io::{self, BufWriter},
    num::NonZeroU64,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

use super::{Colour, Format, Usage, say, selection::Selection};
use crate::{
    attribute::Attributor,
    enrich::{Enricher, Report, Socket},
    event::text,
    filter::{Condition, Filter},
    kernel::{self, Facts},
    loader::{self, Attached, Filtered, Planned},
    output::Output,
    pipeline::{self, Stages, Summary},
    plan::{self, Limits, Plan, RingSizes},
    probes::{Asked, PROBES, seccomp::Pairing},
    sink::{Json, Sink, Text},
};

/// Shows events as they happen, until Ctrl-C.
#[derive(Debug, clap::Args)]
#[command(after_help = after_help())]
pub struct Args {
    /// Only these families of events; FAMILY:all for everything of one; if absent, those that are
    /// rare or slow
    #[arg(short, long, value_name = "LIST", value_delimiter = ',')]
    events: Vec<String>,
    /// Not these families of events
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    exclude: Vec<String>,
    /// Show waits for a CPU of at least this time
    #[arg(help_heading = "Thresholds and costs", long, value_name = "TIME", default_value = "20ms", value_parser = plan::parse_threshold)]
    runq_slower: Duration,
    /// Show tasks that are blocked for at least this time
    #[arg(help_heading = "Thresholds and costs", long, value_name = "TIME", default_value = "1s", value_parser = plan::parse_duration)]
    blocked_slower: Duration,
    /// Only this container: its name, or the start of its id (repeatable)
    #[arg(help_heading = "Whose events", long, value_name = "NAME|ID")]
    container: Vec<String>,
    #[command(flatten)]
    selection: Selection,
    /// Only this process, by its id on the host (repeatable)
    #[arg(help_heading = "Whose events", long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pid: Vec<u32>,
    /// Only this cgroup and those below it: /system.slice/ssh.service (repeatable)
    #[arg(help_heading = "Whose events", long, value_name = "PATH", value_parser = plan::parse_cgroup)]
    cgroup: Vec<String>,
    /// Only events whose fields, as JSON has them, are so: 'exit.code != 0', 'oom.limit_bytes > 1GiB
    /// && process.comm ~ "java*"' (repeatable: all must hold)
    #[arg(help_heading = "Whose events", long = "where", value_name = "EXPR", value_parser = Condition::parse)]
    conditions: Vec<Condition>,
    /// Wait for a --container that does not exist yet
    #[arg(help_heading = "Whose events", long)]
    wait: bool,
    /// Ask the runtimes at their sockets for what they keep on no disk: pod labels, podman's
    /// labels. Events never wait for it
    #[arg(help_heading = "Whose events", long)]
    enrich: bool,
    /// Ask at this socket: cri:PATH, docker:PATH or podman:PATH (repeatable)
    #[arg(help_heading = "Whose events", long, value_name = "SOCKET", value_parser = Socket::parse)]
    enrich_socket: Vec<Socket>,
    /// How denials by seccomp that return an error are seen where functions cannot be hooked: by
    /// pairing the entry and exit of every system call, which costs about 0.1 us each. off: not at all.
    /// on: by pairing even where there is a better way
    #[arg(help_heading = "Thresholds and costs", long, value_enum, default_value_t = Pairing::Auto, value_name = "HOW")]
    seccomp_pairing: Pairing,
    /// Show each denial by seccomp and each long wait for a CPU; if absent, denials that are alike and
    /// waits in the same container are counted and shown once a second
    #[arg(help_heading = "Thresholds and costs", long)]
    no_fold: bool,
    /// Block I/O that takes so long or longer is an event
    #[arg(help_heading = "Thresholds and costs", long, value_name = "TIME", default_value = "50ms", value_parser = plan::parse_threshold)]
    block_slower: Duration,
    /// End after this time, for example 10s, 5m
    #[arg(help_heading = "End", long, value_name = "TIME", value_parser = plan::parse_duration)]
    duration: Option<Duration>,
    /// End after so many events
    #[arg(help_heading = "End", short = 'n', long, value_name = "N")]
    count: Option<NonZeroU64>,
    /// Form of the output
    #[arg(help_heading = "Output", short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
    /// In text, what is known of each event, indented below its line
    #[arg(help_heading = "Output", short, long)]
    verbose: bool,
    /// When to colour the text
    #[arg(help_heading = "Output", long, value_enum, default_value_t = Colour::Auto, value_name = "WHEN")]
    color: Colour,
    /// Size of the ring for rare events: a power of two
    #[arg(help_heading = "Buffers", long, value_name = "BYTES", default_value = "1M", value_parser = plan::parse_ring_size)]
    rare_ring_size: u32,
    /// Size of the ring for cgroups and processes that come and go: a power of two
    #[arg(help_heading = "Buffers", long, value_name = "BYTES", default_value = "512K", value_parser = plan::parse_ring_size)]
    lifecycle_ring_size: u32,
    /// Size of the ring for frequent events: a power of two
    #[arg(help_heading = "Buffers", long, value_name = "BYTES", default_value = "1M", value_parser = plan::parse_ring_size)]
    bulk_ring_size: u32,
}

/// The families from their table, and what is not about one option alone.
fn after_help() -> String {
    let families = PROBES.iter().map(|probe| {
        let only = if probe.by_default() { "" } else { "; only if named" };
        format!("  {:9} {}{only}\n", probe.name(), probe.doc())
    });
    format!("Families of events:\n{}\n{NOTES}", families.collect::<String>())
}

const NOTES: &str = "\
Of one kind of filter one must fit, of different kinds all; of a signal, its victim or its sender.
A container that starts later and fits is seen from its first event.

--where compares fields by == != < <= > >= and ~ (a glob), with && || ! and parentheses. Sizes may
be in KiB, MiB, GiB, times in us, ms, s, text in quotes. What is null or of another type of event
fits nothing, also by !=; of a list one element that fits is enough. docs/events.schema.json has all
fields.

On standard error, `attached: …` says that every hook is in place, `missing: …` what this host
refuses and what stands in for it. At the end a summary says what was seen and lost, and then, with
-o json as one line of JSON, what happened to each container and outside of them: events, OOM kills,
denials, time throttled, latencies.

Examples:
  ctrace watch
  ctrace watch --container batch --wait
  ctrace watch -e exec,exit:all --image 'nginx*'
  ctrace watch -e exit -o json | jq '.exit.cause | {kind, text}'
  ctrace watch -e exec --pod web-7d4 --namespace shop --enrich
  ctrace watch -e exit --where 'exit.code != 0 && exit.runtime_ns < 1s'
  ctrace watch -e oom -o json -n 1 | jq .oom
  ctrace watch --duration 10m > incidents.txt

Exit codes: 0 ended as asked, 1 failed, 2 bad usage.";

impl Args {
    fn plan(self) -> Result<Plan> {
        let asked = Asked {
            all: false,
            seccomp_pairing: self.seccomp_pairing,
            no_fold: self.no_fold,
            has_conditions: !self.conditions.is_empty(),
            block_slower: self.block_slower,
            runq_slower: self.runq_slower,
            blocked_slower: self.blocked_slower,
        };
        Ok(Plan {
            probes: plan::parse_probes(&self.events, &self.exclude, &asked).map_err(Usage)?,
            filter: Filter {
                pids: self.pid,
                cgroups: self.cgroup,
                conditions: self.conditions,
                ..self.selection.filter(self.container)
            },
            enrich: match (self.enrich_socket.is_empty(), self.enrich) {
                (false, _) => self.enrich_socket,
                (true, true) => Socket::found(),
                (true, false) => Vec::new(),
            },
            wait: self.wait,
            limits: Limits { duration: self.duration, count: self.count },
            rings: RingSizes {
                rare: self.rare_ring_size,
                lifecycle: self.lifecycle_ring_size,
                bulk: self.bulk_ring_size,
            },
        })
    }

    fn sink(&self) -> Box<dyn Sink> {
        match self.output {
            Format::Json => Box::new(Json::default()),
            Format::Text => {
                let colour = self.color.on(&io::stdout());
                let text = Text::new(colour, jiff::tz::TimeZone::system());
                Box::new(text.verbose(self.verbose))
            }
        }
    }
}

pub fn run(args: Args) -> Result<ExitCode> {
    let (sink, format) = (args.sink(), args.output);
    let plan = args.plan()?;
    kernel::require_privileges()?;
    let facts = Facts::gather()?;
    let mut attributor = Attributor::new(facts.cgroups.clone(), facts.host_mnt_ns);
    for selector in &plan.filter.containers {
        if attributor.known(selector, kernel::clock::boot_now()) {
            continue;
        }
        let message = format!("there is no container '{selector}'");
        if !plan.wait {
            return Err(Usage(format!("{message}; --wait waits for it")).into());
        }
        say(format_args!("ctrace: {message} yet; waiting for it"));
    }

    let enrichment = match plan.enrich.is_empty() {
        true => None,
        false => Some(Enricher::start(plan.enrich).context("cannot ask the runtimes")?),
    };

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    let summary = runtime.block_on(async {
        let stop = stop_signal()?;
        let planned = loader::plan(&plan.probes, &facts);
        let filtered =
            Filtered { places: plan.filter.is_of_places(), pids: plan.filter.pids.clone() };
        let loaded = loader::load(&planned, &facts, plan.rings, &filtered)?;
        // The kernel's BTF is large and no longer needed.
        drop(facts);
        report_hooks(&planned, &loaded.hooks);
        if let Some(error) = attributor.watch_refused() {
            say(format_args!("missing: inotify: {error}: a brief container's name may be missed"));
        }
        let out = Box::new(BufWriter::new(io::stdout()));
        let output = Output { sink, out };
        let filter = plan.filter;
        let stages = Stages { loaded, attributor, enrichment, filter, output };
        pipeline::run(stages, plan.limits, stop).await
    })?;
    report_summary(&summary, format);
    Ok(ExitCode::SUCCESS)
}

/// Resolves at Ctrl-C or SIGTERM. From then on they end the process at once: the writer may hang on
/// a reader that does not read.
pub fn stop_signal() -> Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        for number in [libc::SIGINT, libc::SIGTERM] {
            // SAFETY: the default action needs no handler.
            unsafe { libc::signal(number, libc::SIG_DFL) };
        }
    })
}

/// Says on standard error what is in place and what is missing.
fn report_hooks(planned: &[Planned], hooks: &[Attached]) {
    // Each probe with the ways that its hooks are attached; `ctrace check` lists the hooks.
    let mut attached: Vec<(&str, Vec<&str>)> = Vec::new();
    let mut missing = Vec::new();
    for Attached { probe, hook, failure } in hooks {
        match (&hook.strategy, failure) {
            (Some(strategy), None) => {
                if attached.last().is_none_or(|last| last.0 != *probe) {
                    attached.push((probe, Vec::new()));
                }
                let ways = attached.last_mut().map(|last| &mut last.1);
                if let Some(ways) = ways.filter(|ways| !ways.contains(&strategy.name)) {
                    ways.push(strategy.name);
                }
            }
            (Some(strategy), Some(failure)) => missing.push(format!(
                "{probe} {} ({}): {failure}: no {}",
                hook.name, strategy.name, hook.gives
            )),
            (None, _) => {
                let lost = hook.lost.unwrap_or(hook.gives);
                missing.push(format!("{probe} {}: {lost} (ctrace check says why)", hook.name));
            }
        }
    }
    for Planned { probe, plan, .. } in planned {
        if let Err(unsupported) = plan {
            missing.push(format!("{}: {unsupported}", probe.name()));
        }
    }
    let attached = attached.iter().map(|(probe, ways)| format!("{probe} ({})", ways.join(", ")));
    say(format_args!("attached: {}", attached.collect::<Vec<_>>().join(", ")));
    for line in missing {
        say(format_args!("missing: {line}"));
    }
}

/// Says on standard error what was seen and what was lost, then what happened to each container and
/// outside.
fn report_summary(summary: &Summary, format: Format) {
    let Summary {
        events,
        lost,
        undecoded,
        metadata_overflows,
        metadata_unreadable,
        enrichment,
        report,
        totals_lost,
        waits_untold,
    } = summary;
    let list = |counts: Vec<String>| {
        if counts.is_empty() { "none".to_owned() } else { counts.join(", ") }
    };
    let seen = list(events.iter().map(|(name, count)| format!("{count} {name}")).collect());
    let lost = list(
        lost.iter().map(|((ring, kind), count)| format!("{count} {kind} in {ring}")).collect(),
    );
    say(format_args!("events: {seen}; lost: {lost}"));
    if *undecoded > 0 {
        say(format_args!("undecoded records: {undecoded}"));
    }
    if *metadata_overflows > 0 {
        say(format_args!(
            "metadata read again for an overflow of inotify: {metadata_overflows} times"
        ));
    }
    if *metadata_unreadable > 0 {
        say(format_args!("metadata files that could not be read: {metadata_unreadable}"));
    }
    for Report { socket, lists, failures, error, is_open: _ } in enrichment {
        let error = error.as_ref().map(|error| format!(", at last: {}", text::escape(error)));
        let error = error.unwrap_or_default();
        say(format_args!("asked {socket}: {lists} answers, {failures} failures{error}"));
    }
    if *totals_lost > 0 {
        say(format_args!(
            "latencies of more cgroups than there was room for, not in the table: {totals_lost}"
        ));
    }
    if *waits_untold > 0 {
        say(format_args!(
            "waits for a CPU that the kernel's tracepoint left out, not in the table: {waits_untold}"
        ));
    }
    match format {
        Format::Text => report.table(disk).lines().for_each(say),
        Format::Json => report.line(disk).iter().for_each(|line| say(format_args!("{line}"))),
    }
}

/// The name of a disk by its numbers, such as `vda` of `254:0`.
fn disk(number: &str) -> Option<String> {
    let link = std::fs::read_link(format!("/sys/dev/block/{number}")).ok()?;
    Some(link.file_name()?.to_string_lossy().into_owned())
}
