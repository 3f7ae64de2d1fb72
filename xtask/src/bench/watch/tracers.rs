//! What watches a load.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::process;

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
        Tracer { name: "programs that do nothing", words: words(load, &idle), ready: "attached" },
        Tracer { name: "ctrace", words: words(ctrace, &["watch"]), ready: "attached:" },
        Tracer {
            name: "ctrace, no pairing",
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
        let tracer = Tracer { name, words: words(&program, args), ready };
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
        let mut running = Running { child, name };
        let mut lines = BufReader::new(said).lines();
        let mut before = Vec::new();
        while let Some(line) = lines.next().transpose()? {
            if line.contains(ready) {
                // Whatever else it says must not fill the pipe.
                std::thread::spawn(move || lines.for_each(drop));
                return Ok(running);
            }
            before.push(line);
        }
        let status = running.child.wait()?;
        bail!("{name} ended, {status}: {}", before.join("; "))
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
