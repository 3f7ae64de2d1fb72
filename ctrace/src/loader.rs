//! From a plan to programs that run in the kernel.

use std::{
    cell::OnceCell,
    os::fd::{AsFd, AsRawFd},
};

use anyhow::{Context, Result, anyhow};
use aya::{
    Btf, Ebpf, EbpfLoader, include_bytes_aligned,
    maps::{HashMap, MapData, PerCpuArray, RingBuf},
    programs::{BtfTracePoint, FEntry, FExit, Iter, KProbe, RawTracePoint},
};
use ctrace_common::Settings;
use zerocopy::IntoBytes;

use crate::{
    collect::{Misses, Places, Totals},
    kernel::Facts,
    plan::{RingSizes, Wanted},
    probes::{
        Asked, Attach, Decoder, Hidden, Hook, Probe, ProbePlan, Program, Unsupported, lifecycle,
        offsets,
    },
};

/// The eBPF object, built from `ctrace-ebpf` by the build script.
static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/ctrace.ebpf"));

/// A hook with what became of it.
pub struct Attached {
    pub probe: &'static str,
    pub hook: Hook,
    /// Why it is not in place although a strategy was chosen.
    pub failure: Option<String>,
}

/// What the programs leave out.
#[derive(Clone, Debug, Default)]
pub struct Filtered {
    /// Events of cgroups and mount namespaces that the collector denies.
    pub places: bool,
    /// Events of other processes than these; empty: nothing.
    pub pids: Vec<u32>,
}

/// Programs in place. They are taken out of the kernel when this is dropped.
pub struct Loaded {
    pub rare: RingBuf<MapData>,
    pub lifecycle: RingBuf<MapData>,
    pub bulk: RingBuf<MapData>,
    pub drops: PerCpuArray<MapData, u64>,
    pub places: Places,
    pub totals: Totals,
    pub misses: Misses,
    pub hooks: Vec<Attached>,
    pub decoders: Vec<Box<dyn Decoder>>,
    /// Holds the programs and their links.
    pub programs: Ebpf,
}

/// A probe with its plan.
pub struct Planned {
    pub probe: &'static dyn Probe,
    asked: Asked,
    is_shown: bool,
    /// Or why it cannot run here.
    pub plan: Result<ProbePlan, Unsupported>,
}

/// Asks every probe for its plan.
pub fn plan(wanted: &[Wanted], facts: &Facts) -> Vec<Planned> {
    let plan = |Wanted { probe, asked, is_shown }: &Wanted| Planned {
        probe: *probe,
        asked: asked.clone(),
        is_shown: *is_shown,
        plan: probe.plan(facts, asked),
    };
    wanted.iter().map(plan).collect()
}

/// Loads and attaches. A hook that fails degrades with a reason; a required one takes the rest of its
/// probe along. With no probe at all there are the hooks that attribution lives on.
///
/// # Errors
/// Where the object or the hooks of attribution cannot be loaded, or none of the probes can run.
pub fn load(
    planned: &[Planned],
    facts: &Facts,
    rings: RingSizes,
    filtered: &Filtered,
) -> Result<Loaded> {
    let able = |one: &&Planned| one.plan.is_ok();
    let plans: Vec<_> =
        planned.iter().filter_map(|one| Some((one.probe, one.plan.as_ref().ok()?))).collect();
    if plans.is_empty() && !planned.is_empty() {
        let reasons = planned.iter().filter_map(|Planned { probe, plan, .. }| {
            Some(format!("{}: {}", probe.name(), plan.as_ref().err()?))
        });
        return Err(anyhow!("no probe can run here: {}", reasons.collect::<Vec<_>>().join("; ")));
    }

    let task = offsets::task(&facts.btf);
    let cgroup = offsets::cgroup(&facts.btf, &facts.cgroups);
    let settings = Settings {
        host_mnt_ns: facts.host_mnt_ns,
        filter_places: filtered.places.into(),
        filter_pids: (!filtered.pids.is_empty()).into(),
        reserved: 0,
    };
    let mut loader = EbpfLoader::new();
    loader
        .override_global("TASK_OFFSETS", task.as_bytes(), true)
        .override_global("CGROUP_OFFSETS", cgroup.as_bytes(), true)
        .override_global("SETTINGS", settings.as_bytes(), true)
        .map_max_entries("RARE", rings.rare)
        .map_max_entries("LIFECYCLE", rings.lifecycle)
        .map_max_entries("BULK", rings.bulk);
    for (name, bytes) in plans.iter().flat_map(|(_, plan)| &plan.globals) {
        loader.override_global(name, bytes.as_slice(), true);
    }
    let mut programs = loader.load(OBJECT).context("the kernel refused ctrace's maps")?;

    if let Some(map) = programs.map_mut("PIDS") {
        let mut wanted: HashMap<_, u32, u8> = HashMap::try_from(map)?;
        for pid in &filtered.pids {
            wanted.insert(pid, 1, 0).context("too many processes to filter by")?;
        }
    }

    let types = Types::default();
    let mut hooks = Vec::new();
    let of_probes = plans
        .iter()
        .flat_map(|(probe, plan)| plan.hooks.iter().map(|hook| (probe.name(), hook.clone())));
    let of_lifecycle = lifecycle::hooks().into_iter().map(|hook| (lifecycle::NAME, hook));
    let mut broken: Vec<&str> = Vec::new();
    for (probe, hook) in of_lifecycle.chain(of_probes) {
        if broken.contains(&probe) {
            continue;
        }
        let attached = attach_or_fall_back(&mut programs, probe, hook, &types);
        if let (Some(failure), true) = (&attached.failure, attached.hook.required) {
            broken.push(probe);
            let is_last = plans.iter().all(|(probe, _)| broken.contains(&probe.name()));
            if probe == lifecycle::NAME || is_last {
                return Err(anyhow!("{} cannot be hooked: {failure}", attached.hook.name));
            }
        }
        hooks.push(attached);
    }

    let decoders = planned
        .iter()
        .filter(able)
        .map(|Planned { probe, asked, is_shown, plan: _ }| {
            let decoder = probe.decoder(facts, asked, &mut programs)?;
            Ok(if *is_shown { decoder } else { Box::new(Hidden(decoder)) })
        })
        .collect::<Result<_>>()?;
    let in_kernel = hooks
        .iter()
        .flat_map(|attached| &attached.hook.strategy)
        .flat_map(|strategy| &strategy.programs)
        .filter_map(|Program { name, .. }| {
            Some((*name, programs.program(name)?.fd().ok()?.as_fd().as_raw_fd()))
        });
    let misses = Misses::new(in_kernel);
    let mut take = |name: &str| {
        programs.take_map(name).ok_or_else(|| anyhow!("the eBPF object has no map {name}"))
    };
    Ok(Loaded {
        rare: RingBuf::try_from(take("RARE")?)?,
        lifecycle: RingBuf::try_from(take("LIFECYCLE")?)?,
        bulk: RingBuf::try_from(take("BULK")?)?,
        drops: PerCpuArray::try_from(take("DROPS")?)?,
        places: Places::new(HashMap::try_from(take("PLACES")?)?),
        totals: Totals::new(
            HashMap::try_from(take("TOTALS")?)?,
            PerCpuArray::try_from(take("TOTALS_LOST")?)?,
        ),
        misses,
        hooks,
        decoders,
        programs,
    })
}

/// What the kernel says of a program.
pub struct Verified {
    pub name: String,
    /// Instructions that the verifier looked at, all paths together; Linux 5.16 and newer tell.
    pub instructions: Option<u32>,
    /// Bytes of machine code.
    pub machine_bytes: u32,
}

impl Loaded {
    /// The programs that are in the kernel, by name.
    ///
    /// # Errors
    /// Where the kernel does not tell of a program.
    pub fn verified(&self) -> Result<Vec<Verified>> {
        let mut verified = Vec::new();
        for (name, program) in self.programs.programs() {
            // The others were not chosen on this kernel.
            if program.fd().is_err() {
                continue;
            }
            let info = program.info().with_context(|| format!("nothing is told of {name}"))?;
            verified.push(Verified {
                name: name.to_owned(),
                instructions: info.verified_instruction_count(),
                machine_bytes: info.size_jitted(),
            });
        }
        verified.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(verified)
    }
}

/// The kernel's types in aya's form, which finds functions and tracepoints: read once, where needed. They
/// take 20 MiB.
#[derive(Default)]
struct Types(OnceCell<Btf>);

impl Types {
    fn get(&self) -> Result<&Btf> {
        if self.0.get().is_none() {
            let _ = self.0.set(Btf::from_sys_fs()?);
        }
        self.0.get().context("the kernel's BTF cannot be read")
    }
}

fn attach_or_fall_back(
    object: &mut Ebpf,
    probe: &'static str,
    mut hook: Hook,
    types: &Types,
) -> Attached {
    let mut failure = attach_hook(object, &hook, types).err();
    if let (Some(error), Some(other)) = (&failure, hook.fallback.take()) {
        let why = Some(format!("{}: {error:#}", hook.name));
        hook = Hook { why, ..*other };
        failure = attach_hook(object, &hook, types).err();
    }
    Attached { probe, hook, failure: failure.map(|error| format!("{error:#}")) }
}

fn attach_hook(object: &mut Ebpf, hook: &Hook, types: &Types) -> Result<()> {
    let Some(strategy) = &hook.strategy else { return Ok(()) };
    let attached = strategy.programs.iter().try_for_each(|program| attach(object, *program, types));
    if attached.is_err() {
        // A part of it tells nothing, and costs.
        strategy.programs.iter().for_each(|program| detach(object, program.name));
    }
    attached
}

/// Takes a program out of the kernel, if it is there.
fn detach(object: &mut Ebpf, name: &str) {
    let _ = match object.program_mut(name) {
        Some(aya::programs::Program::RawTracePoint(program)) => program.unload(),
        Some(aya::programs::Program::BtfTracePoint(program)) => program.unload(),
        Some(aya::programs::Program::FEntry(program)) => program.unload(),
        Some(aya::programs::Program::FExit(program)) => program.unload(),
        Some(aya::programs::Program::KProbe(program)) => program.unload(),
        Some(aya::programs::Program::Iter(program)) => program.unload(),
        _ => Ok(()),
    };
}

fn attach(object: &mut Ebpf, Program { name, attach }: Program, types: &Types) -> Result<()> {
    let program =
        object.program_mut(name).ok_or_else(|| anyhow!("the eBPF object has no program {name}"))?;
    match attach {
        Attach::RawTracepoint(tracepoint) => {
            let program: &mut RawTracePoint = program.try_into()?;
            program.load()?;
            program.attach(tracepoint)?;
        }
        Attach::BtfTracepoint(tracepoint) => {
            let program: &mut BtfTracePoint = program.try_into()?;
            program.load(tracepoint, types.get()?)?;
            program.attach()?;
        }
        Attach::TaskIterator => {
            let program: &mut Iter = program.try_into()?;
            program.load("task", types.get()?)?;
        }
        Attach::Fentry(function) => {
            let program: &mut FEntry = program.try_into()?;
            program.load(function, types.get()?)?;
            program.attach()?;
        }
        Attach::Fexit(function) => {
            let program: &mut FExit = program.try_into()?;
            program.load(function, types.get()?)?;
            program.attach()?;
        }
        Attach::Kprobe(function) => {
            let program: &mut KProbe = program.try_into()?;
            program.load()?;
            program.attach(function, 0)?;
        }
    }
    Ok(())
}
