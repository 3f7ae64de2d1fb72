//! Tasks that have been in uninterruptible sleep for long, and still are. All tasks are looked at once
//! a second, by a BPF task iterator.
//!
//! A sleep is reported at the first look at which it is as long as asked, and again at the first
//! after each doubling of that, until it ends. So one that ends less than a second after it was long
//! enough may be missed.
//!
//! When a task went to sleep is what the scheduler keeps: up to when it has counted the task's time on
//! a CPU. It may seem later, by what interrupts and the hypervisor took of that CPU between then and
//! the first look.

mod waits;

use std::{
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use aya::{
    Ebpf,
    programs::{Iter, Program as Loaded},
};
use ctrace_common::{
    Header, Kind, TaskIdentity,
    event::blocked::{BlockedTask, STACK_DEPTH},
    offsets::{MISSING, SchedOffsets},
};
use rustc_hash::FxHashMap;
use zerocopy::{FromBytes, IntoBytes};

use super::{
    Asked, Attach, DecodeError, Decoder, Hook, Probe, ProbePlan, Program, Strategy, Unsupported,
    offsets,
};
use crate::{
    event::{self, Payload, Subject},
    kernel::{BpfIterator, Facts, Frames},
};

pub struct Blocked;

/// The program in the object.
const PROGRAM: &str = "blocked_tasks";

impl Probe for Blocked {
    fn name(&self) -> &'static str {
        "blocked"
    }

    fn doc(&self) -> &'static str {
        "tasks that sleep and no signal wakes (--blocked-slower), while they do, and what they wait \
         for"
    }

    fn events(&self) -> &'static [&'static str] {
        &["blocked"]
    }

    fn plan(&self, facts: &Facts, _asked: &Asked) -> Result<ProbePlan, Unsupported> {
        if facts.btf.function("bpf_iter_task").is_none() {
            let feature = "the BPF iterator of tasks".to_owned();
            return Err(Unsupported { feature, min_kernel: Some("5.8") });
        }
        if !facts.keeps_sched_info {
            let feature = "what the scheduler keeps of each task (CONFIG_SCHED_INFO)".to_owned();
            return Err(Unsupported { feature, min_kernel: None });
        }
        let offsets = offsets::sched(&facts.btf);
        check(&offsets)?;
        let program = Program { name: PROGRAM, attach: Attach::TaskIterator };
        let hook = Hook {
            name: "bpf_iter_task",
            strategy: Some(Strategy { name: "iter", programs: vec![program] }),
            required: false,
            fallback: None,
            gives: "tasks that are blocked",
            lost: None,
            why: None,
        };
        Ok(ProbePlan {
            globals: vec![("SCHED_OFFSETS", offsets.as_bytes().to_vec())],
            hooks: vec![hook],
        })
    }

    fn decoder(
        &self,
        _facts: &Facts,
        asked: &Asked,
        object: &mut Ebpf,
    ) -> anyhow::Result<Box<dyn Decoder>> {
        // Where it could not be loaded that was said already.
        let tasks = match loaded(object) {
            Some(program) => Some(BpfIterator::new(&program)?),
            None => None,
        };
        Ok(Box::new(BlockedDecoder {
            tasks,
            sleeps: Sleeps::new(asked),
            frames: Frames::default(),
        }))
    }
}

fn loaded(object: &mut Ebpf) -> Option<OwnedFd> {
    let program: &Loaded = object.program(PROGRAM)?;
    let program: &Iter = program.try_into().ok()?;
    program.fd().ok()?.as_fd().try_clone_to_owned().ok()
}

/// The program reads all of these without asking whether they are there.
fn check(offsets: &SchedOffsets) -> Result<(), Unsupported> {
    for (offset, name) in [
        (offsets.task_state, "task_struct.__state"),
        (offsets.task_on_cpu, "task_struct.on_cpu (CONFIG_SMP)"),
        (offsets.task_on_rq, "task_struct.on_rq"),
        (offsets.task_cpu, "task_struct.thread_info.cpu"),
        (offsets.task_last_arrival, "task_struct.sched_info.last_arrival"),
        (offsets.task_exec_start, "task_struct.se.exec_start"),
        (offsets.task_nvcsw, "task_struct.nvcsw"),
        (offsets.task_nivcsw, "task_struct.nivcsw"),
        (offsets.task_cfs_rq, "task_struct.se.cfs_rq (CONFIG_FAIR_GROUP_SCHED)"),
        (offsets.cfs_rq_rq, "cfs_rq.rq (CONFIG_FAIR_GROUP_SCHED)"),
        (offsets.rq_clock, "rq.clock"),
        (offsets.rq_clock_task, "rq.clock_task"),
    ] {
        if offset == MISSING {
            let feature = format!("{name} in the kernel's BTF");
            return Err(Unsupported { feature, min_kernel: None });
        }
    }
    Ok(())
}

struct BlockedDecoder {
    /// Absent: it could not be loaded.
    tasks: Option<BpfIterator>,
    sleeps: Sleeps,
    frames: Frames,
}

impl Decoder for BlockedDecoder {
    fn kinds(&self) -> &'static [Kind] {
        &[]
    }

    fn decode(&mut self, record: &[u8]) -> Result<(Subject, Payload), DecodeError> {
        // It goes through no ring.
        Err(DecodeError::Kind(
            Header::read_from_prefix(record).map_or(0, |(header, _)| header.kind),
        ))
    }

    fn tick(&mut self, _now_ns: u64) -> Vec<(Subject, Payload)> {
        let Some(tasks) = &self.tasks else { return Vec::new() };
        // The run queue's clock, which the program reads, stands still between ticks and switches.
        // SAFETY: the call has no preconditions.
        unsafe { libc::sched_yield() };
        // Where it fails there is nothing to be seen this time.
        let bytes = tasks.read().unwrap_or_default();
        let long = self.sleeps.look(&records(&bytes));
        let addresses: Vec<u64> = long.iter().flat_map(|(task, _)| stack(task)).copied().collect();
        // Without the file there are no names.
        let _ = self.frames.learn(&addresses);
        long.iter().filter_map(|(task, ns)| to_event(task, *ns, &self.frames)).collect()
    }
}

/// The whole records of what the iterator wrote.
fn records(bytes: &[u8]) -> Vec<BlockedTask> {
    let whole = bytes.chunks_exact(size_of::<BlockedTask>());
    whole.filter_map(|record| BlockedTask::read_from_bytes(record).ok()).collect()
}

fn stack(task: &BlockedTask) -> &[u64] {
    &task.stack[..(task.stack_len as usize / size_of::<u64>()).min(STACK_DEPTH)]
}

/// None for a kernel thread that waits for a timer, which is what many do for a living.
fn to_event(task: &BlockedTask, blocked_ns: u64, frames: &Frames) -> Option<(Subject, Payload)> {
    /// `TASK_WAKEKILL` of `include/linux/sched.h`
    const WAKEKILL: u32 = 0x100;
    // One unknown name leaves the rest in its place.
    let name = |address: &u64| frames.name(*address).unwrap_or("?").to_owned();
    let mut stack: Vec<String> = stack(task).iter().map(name).collect();
    if stack.iter().all(|name| name == "?") {
        stack.clear();
    }
    let payload = event::Blocked {
        blocked_ns,
        cpu: task.cpu,
        is_killable: task.state & WAKEKILL != 0,
        wait: waits::named(&stack),
        stack,
        is_kernel_thread: task.task.flags & TaskIdentity::KERNEL_THREAD != 0,
    };
    if payload.is_kernel_thread && payload.wait == Some(waits::TIMER) {
        return None;
    }
    Some((Subject::of_record(&task.task, None), Payload::Blocked(payload)))
}

/// The sleeps that were seen at the last look.
struct Sleeps {
    slower_ns: u64,
    known: FxHashMap<Sleep, Seen>,
}

/// A sleep of a task. A thread's id is used again, but not with as many switches of a process that
/// started at the same time.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Sleep {
    tid: u32,
    start_boottime_ns: u64,
    switches: u64,
}

#[derive(Clone, Copy)]
struct Seen {
    /// Since when, by the run queue's clock.
    since_ns: u64,
    /// To be reported when it is as long.
    next_ns: u64,
}

impl Sleeps {
    fn new(asked: &Asked) -> Self {
        // Never 0, which has no double.
        let slower = asked.blocked_slower.max(Duration::from_nanos(1)).as_nanos();
        let slower_ns = if asked.all { 1 } else { slower.try_into().unwrap_or(u64::MAX) };
        Self { slower_ns, known: FxHashMap::default() }
    }

    /// Takes in what a look gave; returns those to be reported, with how long they have slept.
    fn look(&mut self, tasks: &[BlockedTask]) -> Vec<(BlockedTask, u64)> {
        let before = std::mem::take(&mut self.known);
        let mut long = Vec::new();
        for task in tasks {
            let TaskIdentity { tid, start_boottime_ns, .. } = task.task;
            let sleep = Sleep { tid, start_boottime_ns, switches: task.switches };
            let new = Seen { since_ns: task.clock_ns, next_ns: self.slower_ns };
            let mut seen = before.get(&sleep).copied().unwrap_or(new);
            if task.left_ns != 0 {
                // What is taken of the CPU in the meantime makes it later, never earlier.
                seen.since_ns = seen.since_ns.min(task.left_ns);
            }
            seen.since_ns = seen.since_ns.max(task.arrived_ns);
            let ns = task.clock_ns.saturating_sub(seen.since_ns);
            if ns >= seen.next_ns {
                while seen.next_ns <= ns {
                    seen.next_ns = seen.next_ns.saturating_mul(2);
                }
                long.push((*task, ns));
            }
            self.known.insert(sleep, seen);
        }
        long
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zerocopy::FromZeros;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn task(tid: u32, switches: u64, clock_s: u64) -> BlockedTask {
        let mut task = BlockedTask::new_zeroed();
        task.task.tid = tid;
        task.switches = switches;
        task.arrived_ns = 9 * SECOND;
        task.left_ns = 10 * SECOND;
        task.clock_ns = clock_s * SECOND;
        task
    }

    fn sleeps(all: bool) -> Sleeps {
        let blocked_slower = Duration::from_secs(1);
        Sleeps::new(&Asked { all, blocked_slower, ..Asked::default() })
    }

    #[test]
    fn a_sleep_is_told_at_doubling_times() {
        let mut sleeps = sleeps(false);
        let mut told = Vec::new();
        for clock in 10..=20 {
            let long = sleeps.look(&[task(1, 7, clock)]);
            told.extend(long.iter().map(|(_, ns)| ns / SECOND));
        }
        assert_eq!(told, [1, 2, 4, 8]);
        assert_eq!(sleeps.look(&[task(1, 8, 20)]).len(), 1, "another sleep");
        assert!(sleeps.look(&[]).is_empty() && sleeps.known.is_empty());
    }

    #[test]
    fn a_late_look_tells_once() {
        let mut sleeps = sleeps(false);
        assert_eq!(sleeps.look(&[task(1, 7, 19)])[0].1, 9 * SECOND);
        assert!(sleeps.look(&[task(1, 7, 20)]).is_empty());
        assert_eq!(sleeps.look(&[task(1, 7, 26)])[0].1, 16 * SECOND);
    }

    #[test]
    fn what_interrupts_take_does_not_count_twice() {
        let mut sleeps = sleeps(false);
        assert!(sleeps.look(&[task(1, 7, 10)]).is_empty());
        let late = BlockedTask { left_ns: 11 * SECOND, ..task(1, 7, 12) };
        assert_eq!(sleeps.look(&[late])[0].1, 2 * SECOND, "since what was seen first");
    }

    #[test]
    fn a_moved_sleeper_counts_from_the_first_look() {
        let mut sleeps = sleeps(false);
        let moved = |clock| BlockedTask { left_ns: 0, ..task(1, 7, clock) };
        assert!(sleeps.look(&[moved(50)]).is_empty());
        assert_eq!(sleeps.look(&[moved(52)])[0].1, 2 * SECOND);
        let early = BlockedTask { left_ns: 1, ..task(2, 7, 50) };
        assert_eq!(sleeps.look(&[early])[0].1, 41 * SECOND, "not before it got a CPU");
    }

    #[test]
    fn threads_of_the_kernel_may_wait_for_timers() {
        let mut sleeper = task(1, 1, 12);
        sleeper.task.flags = TaskIdentity::KERNEL_THREAD;
        let event = to_event(&sleeper, 5, &Frames::default());
        let Some((_, Payload::Blocked(blocked))) = event else { panic!("an event") };
        assert!(blocked.is_kernel_thread && blocked.stack.is_empty() && blocked.wait.is_none());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            for task in records(&bytes) {
                let mut sleeps = sleeps(true);
                for (task, ns) in sleeps.look(&[task, task]) {
                    to_event(&task, ns, &Frames::default());
                }
            }
        }
    }
}
