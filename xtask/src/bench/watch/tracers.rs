//! What watches a load.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::process;

/// Programs that do nothing.
pub const EMPTY: &str = "programs that do nothing";
pub const CTRACE: &str = "ctrace";
pub const NO_PAIRING: &str = "ctrace, no pairing";
/// How long a tracer may take until it is in place.
const START: Duration = Duration::from_secs(30);

pub struct Tracer {
    pub name: &'static str,
    words: Vec<String>,
    /// What it says once it is in place.
    ready: &'static str,
}

/// Those of a load whose hooks are `hooks`, as far as they are installed and run here. ctrace and the
/// programs that do nothing have to.
pub fn of(hooks: &[&str], ctrace: &Path, load: &Path) -> Vec<Tracer> {
    let words = |program: &Path, args: &[&str]| {
        let args = args.iter().map(|arg| (*arg).to_owned());
        std::iter::once(program.display().to_string()).chain(args).collect::<Vec<_>>()
    };
    let idle = [&["idle"], hooks].concat();
    let mut tracers = vec![
        Tracer { name: EMPTY, words: words(load, &idle), ready: "attached" },
        Tracer { name: CTRACE, words: words(ctrace, &["watch"]), ready: "attached:" },
        Tracer {
            name: NO_PAIRING,
            words: words(ctrace, &["watch", "--seccomp-pairing", "off"]),
            ready: "attached:",
        },
    ];
    for (name, hook, program, args, ready) in PEERS {
        if !hooks.contains(hook) {
            continue;
        }
        let Some(program) = process::find_program(program) else {
            eprintln!("skipped: {name}: {program} is not installed");
            continue;
        };
        // Into a pipe they would write whole blocks.
        let words = [vec!["stdbuf".to_owned(), "-oL".to_owned()], words(&program, args)].concat();
        let tracer = Tracer { name, words, ready };
        match tracer.start().and_then(Running::stop) {
            Ok(()) => tracers.push(tracer),
            Err(error) => eprintln!("skipped: {name}: {error:#}"),
        }
    }
    tracers
}

/// Name, the hook that it shares with a load, program, arguments, what it says when it runs.
type Peer = (&'static str, &'static str, &'static str, &'static [&'static str], &'static str);

const PEERS: &[Peer] = &[
    (
        "bpftrace, count by syscall",
        "sys_enter",
        "bpftrace",
        &["-e", "tracepoint:raw_syscalls:sys_enter { @[args->id] = count(); }"],
        "Attaching",
    ),
    ("syscount -L", "sys_enter", "syscount", &["-L"], "Tracing"),
    ("runqlat", "sched_switch", "runqlat", &[], "Tracing"),
    // The delay is there for what it says after it.
    (
        "perf sched record",
        "sched_switch",
        "perf",
        &["sched", "record", "-D", "1", "-o", "/dev/null"],
        "Events enabled",
    ),
    (
        "bpftrace, latency by request",
        "block_rq_issue",
        "bpftrace",
        &[
            "-e",
            "tracepoint:block:block_rq_issue { @s[args->dev, args->sector] = nsecs; } \
             tracepoint:block:block_rq_complete /@s[args->dev, args->sector]/ { \
             @ns = hist(nsecs - @s[args->dev, args->sector]); \
             delete(@s[args->dev, args->sector]); }",
        ],
        "Attaching",
    ),
    ("biolatency", "block_rq_issue", "biolatency", &[], "Tracing"),
    ("execsnoop", "sched_process_exec", "execsnoop", &[], "PCOMM"),
];

/// A tracer that is in place.
pub struct Running {
    child: Child,
    name: &'static str,
}

impl Tracer {
    /// Starts it and waits until it is in place.
    pub fn start(&self) -> Result<Running> {
        let Self { name, words, ready } = self;
        // Both streams are one, whichever of them it says so on.
        let (said, both) = std::io::pipe()?;
        let child = Command::new(&words[0])
            .args(&words[1..])
            .stdin(Stdio::piped())
            .stdout(both.try_clone()?)
            .stderr(both)
            .spawn()
            .with_context(|| format!("cannot start {}", words[0]))?;
        let running = Running { child, name };
        let (sender, lines) = mpsc::channel();
        // To its end: whatever else it says must not fill the pipe.
        thread::spawn(move || {
            BufReader::new(said).lines().map_while(Result::ok).for_each(|line| {
                let _ = sender.send(line);
            });
        });
        let deadline = Instant::now() + START;
        let mut before = Vec::new();
        let why = loop {
            match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if line.contains(ready) => return Ok(running),
                Ok(line) => before.push(line),
                Err(mpsc::RecvTimeoutError::Timeout) => break "is not in place in time",
                Err(mpsc::RecvTimeoutError::Disconnected) => break "ended",
            }
        };
        running.stop()?;
        bail!("{why}: {}", before.join("; "))
    }
}

impl Running {
    /// Ends it as Ctrl-C would.
    pub fn stop(mut self) -> Result<()> {
        drop(self.child.stdin.take());
        let pid = i32::try_from(self.child.id()).context("a pid is an int")?;
        if self.child.try_wait()?.is_none() {
            process::capture(Command::new("kill").args(["-INT", &pid.to_string()]))?;
        }
        self.child.wait().with_context(|| format!("{} does not end", self.name))?;
        Ok(())
    }
}
