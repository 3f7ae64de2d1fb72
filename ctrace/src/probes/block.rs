//! Block I/O: requests from `block_rq_issue` to `block_rq_complete`, their bios from
//! `block_bio_queue` on; where a device has no requests, bios to `block_bio_complete`.

mod decode;

use aya::Ebpf;
use ctrace_common::offsets::{BlockOffsets, MISSING};
use zerocopy::IntoBytes;

use super::{
    Asked, Attach, Decoder, Hook, Probe, ProbePlan, Program, Strategy, Unsupported,
    offsets::{css_of_subsystem, member},
};
use crate::kernel::{ArgType, Btf, Facts};

pub struct BlockProbe;

impl Probe for BlockProbe {
    fn name(&self) -> &'static str {
        "block"
    }

    fn doc(&self) -> &'static str {
        "block I/O that fails or is slow, with the container that owns it; block:all for every one"
    }

    fn events(&self) -> &'static [&'static str] {
        &["block"]
    }

    fn plan(&self, facts: &Facts, asked: &Asked) -> Result<ProbePlan, Unsupported> {
        if facts.features.raw_tp.is_err() {
            return Err(Unsupported { feature: "raw_tp".to_owned(), min_kernel: Some("4.17") });
        }
        let offsets = offsets(facts, asked)?;
        let programs = |list: &[Argument]| -> Result<Vec<Program>, Unsupported> {
            list.iter().filter_map(|one| one.program(&facts.btf).transpose()).collect()
        };
        let hooks = vec![
            hook("block:block_rq_*", programs(REQUESTS)?, "every request of every device"),
            hook(
                "block:block_bio_*",
                programs(BIOS)?,
                "when it was queued and by whom, and devices that have no requests",
            ),
            writeback(facts),
        ];
        Ok(ProbePlan { globals: vec![("BLOCK_OFFSETS", offsets.as_bytes().to_vec())], hooks })
    }

    fn decoder(
        &self,
        facts: &Facts,
        _asked: &Asked,
        _object: &mut Ebpf,
    ) -> anyhow::Result<Box<dyn Decoder>> {
        Ok(Box::new(decode::BlockDecoder::new(&facts.btf)))
    }
}

fn hook(name: &'static str, programs: Vec<Program>, gives: &'static str) -> Hook {
    let strategy = Some(Strategy { name: "raw_tp", programs });
    Hook { name, strategy, required: true, fallback: None, gives, lost: None, why: None }
}

/// The hierarchy that cgroups own I/O in. Linux calls the controller `blkio` on v1 and in /proc/cgroups,
/// `io` on v2.
fn io_hierarchy(facts: &Facts) -> u32 {
    facts.cgroups.controller("blkio").map_or(0, |hierarchy| hierarchy.id)
}

/// Not a hook of its own: what `bio.bi_blkg` tells on this host.
fn writeback(facts: &Facts) -> Hook {
    let is_v1 = io_hierarchy(facts) != 0;
    let strategy = Strategy { name: "blkcg", programs: Vec::new() };
    Hook {
        name: "owner of buffered writes",
        strategy: (!is_v1).then_some(strategy),
        required: false,
        fallback: None,
        gives: "the cgroup whose processes wrote",
        lost: is_v1.then_some(
            "the kernel charges buffered writes to the root cgroup when it writes them back, where \
             blkio is a controller of cgroup v1: who wrote is not known",
        ),
        why: is_v1.then(|| "blkio is on cgroup v1".to_owned()),
    }
}

/// A program for each place that the interesting argument of a tracepoint may have.
struct Argument {
    tracepoint: &'static str,
    /// The struct that is wanted.
    ty: &'static str,
    /// The program by the argument's place.
    programs: &'static [(usize, &'static str)],
    /// Whether it can be done without.
    optional: bool,
}

const REQUESTS: &[Argument] = &[
    Argument {
        tracepoint: "block_rq_merge",
        ty: "request",
        programs: &[(0, "block_rq_merge"), (1, "block_rq_merge_after_queue")],
        optional: true,
    },
    // What is forgotten at the end must not be noted without the program that forgets it.
    Argument {
        tracepoint: "block_rq_complete",
        ty: "request",
        programs: &[(0, "block_rq_complete")],
        optional: false,
    },
    Argument {
        tracepoint: "block_rq_issue",
        ty: "request",
        programs: &[(0, "block_rq_issue"), (1, "block_rq_issue_after_queue")],
        optional: false,
    },
];

const BIOS: &[Argument] = &[
    Argument {
        tracepoint: "block_bio_complete",
        ty: "bio",
        programs: &[(1, "block_bio_complete")],
        optional: false,
    },
    Argument {
        tracepoint: "block_bio_backmerge",
        ty: "bio",
        programs: &[(0, "block_bio_backmerge"), (2, "block_bio_backmerge_after_queue")],
        optional: false,
    },
    Argument {
        tracepoint: "block_bio_frontmerge",
        ty: "bio",
        programs: &[(0, "block_bio_frontmerge"), (2, "block_bio_frontmerge_after_queue")],
        optional: false,
    },
    Argument {
        tracepoint: "block_split",
        ty: "bio",
        programs: &[(0, "block_split"), (1, "block_split_after_queue")],
        optional: true,
    },
    Argument {
        tracepoint: "block_bio_queue",
        ty: "bio",
        programs: &[(0, "block_bio_queue"), (1, "block_bio_queue_after_queue")],
        optional: false,
    },
];

impl Argument {
    /// The program for this kernel's prototype, never for its version: stable kernels change
    /// prototypes too.
    fn program(&self, btf: &Btf) -> Result<Option<Program>, Unsupported> {
        let missing = |what: &str| Unsupported {
            feature: format!("{what} block:{}", self.tracepoint),
            min_kernel: None,
        };
        let Some(prototype) = btf.tracepoint(self.tracepoint) else {
            return if self.optional { Ok(None) } else { Err(missing("the tracepoint")) };
        };
        let is_it = |arg: &ArgType| matches!(arg, ArgType::PointerTo(name) if name == self.ty);
        let place = prototype.args.iter().position(is_it);
        let program = self.programs.iter().find(|(at, _)| Some(*at) == place);
        let (_, name) = program.ok_or_else(|| missing("a known prototype of"))?;
        Ok(Some(Program { name, attach: Attach::RawTracepoint(self.tracepoint) }))
    }
}

/// Whether `block_rq_complete` passes an errno (before 5.18 or so) and not a `blk_status_t`, which
/// is of one byte.
fn passes_errno(btf: &Btf) -> Result<bool, Unsupported> {
    let prototype = btf.tracepoint("block_rq_complete");
    match prototype.as_ref().map(|prototype| prototype.args.as_slice()) {
        Some([_, ArgType::Integer { size: 4, signed: true }, ArgType::Integer { .. }]) => Ok(true),
        Some([_, ArgType::Integer { size: 1, .. }, ArgType::Integer { .. }]) => Ok(false),
        _ => Err(Unsupported {
            feature: "a known prototype of block:block_rq_complete".to_owned(),
            min_kernel: None,
        }),
    }
}

fn offsets(facts: &Facts, asked: &Asked) -> Result<BlockOffsets, Unsupported> {
    let btf = &facts.btf;
    let at = |ty, path| member(btf, ty, path);
    let slower = asked.block_slower;
    // An enum from 6.10 on, a macro before.
    let flush_seq = btf.enum_value("__RQF_FLUSH_SEQ").unwrap_or(4);
    let offsets = BlockOffsets {
        slower_us: u32::try_from(slower.as_micros()).unwrap_or(u32::MAX),
        all: asked.all.into(),
        complete_errno: passes_errno(btf)?.into(),
        flush_seq: 1 << flush_seq,
        rq_queue: at("request", "q"),
        rq_disk: at("request", "rq_disk"),
        rq_cmd_flags: at("request", "cmd_flags"),
        rq_flags: at("request", "rq_flags"),
        rq_data_len: at("request", "__data_len"),
        rq_sector: at("request", "__sector"),
        rq_bio: at("request", "bio"),
        rq_start_time: at("request", "start_time_ns"),
        queue_disk: at("request_queue", "disk"),
        bio_next: at("bio", "bi_next"),
        bio_bdev: at("bio", "bi_bdev"),
        bio_disk: at("bio", "bi_disk"),
        bio_opf: at("bio", "bi_opf"),
        bio_status: at("bio", "bi_status"),
        bio_sector: at("bio", "bi_iter.bi_sector"),
        bio_size: at("bio", "bi_iter.bi_size"),
        bio_private: at("bio", "bi_private"),
        bio_blkg: at("bio", "bi_blkg"),
        bdev_disk: at("block_device", "bd_disk"),
        disk_major: at("gendisk", "major"),
        disk_name: at("gendisk", "disk_name"),
        blkg_blkcg: at("blkcg_gq", "blkcg"),
        blkcg_css: at("blkcg", "css"),
        css_set_io: css_of_subsystem(btf, "io"),
        io_hierarchy: io_hierarchy(facts),
    };
    let is_known = |offset| offset != MISSING;
    // The program reads major and minor at once.
    let follows = |first: u32, second: u32, by| second.checked_sub(first) == Some(by);
    let all_known = is_known(offsets.rq_bio)
        && is_known(offsets.rq_data_len)
        && is_known(offsets.disk_major)
        && is_known(offsets.bio_size)
        && follows(offsets.disk_major, at("gendisk", "first_minor"), 4);
    if !all_known {
        return Err(Unsupported {
            feature: "a known form of request and bio in the kernel's BTF".to_owned(),
            min_kernel: None,
        });
    }
    Ok(offsets)
}
