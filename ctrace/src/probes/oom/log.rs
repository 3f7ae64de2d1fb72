//! The kernel's log lines of OOM kills, kept until their events come in.

use crate::kernel::kmsg::{InvokedLine, KilledLine, Kmsg, OomConstraintLine};

/// Lines of either kind that are kept: those of kills that ctrace lost are never asked for.
const PENDING_LINES: usize = 256;

/// One call of the OOM killer, as the log has it.
#[derive(Debug, PartialEq, Eq)]
pub struct LoggedCall {
    /// Who asked for what.
    pub invoked: Option<InvokedLine>,
    /// Why, and who was chosen.
    pub constraint: OomConstraintLine,
}

/// The tail of the kernel's log; empty where it may not be read.
#[derive(Default)]
pub struct OomLog {
    kmsg: Option<Kmsg>,
    /// Waits for the constraint line of its call. Calls do not overlap: the kernel's `oom_lock`.
    invoked: Option<InvokedLine>,
    calls: Vec<LoggedCall>,
    killed: Vec<KilledLine>,
}

impl OomLog {
    /// From now on.
    pub fn open() -> Self {
        Self { kmsg: Kmsg::open_at_end().ok(), ..Self::default() }
    }

    /// Takes in what the kernel logged since the last event. The lines of the call are there before
    /// `mark_victim`, that of the victim a moment later: long before the record is drained.
    pub fn read(&mut self) {
        let records = self.kmsg.as_mut().map(Kmsg::drain).unwrap_or_default();
        for record in records.iter().filter(|record| record.is_kernels) {
            self.line(&record.text);
        }
    }

    /// Takes in a line that the kernel itself wrote.
    pub fn line(&mut self, text: &str) {
        if let Some(constraint) = OomConstraintLine::parse(text) {
            let invoked = self.invoked.take();
            push(&mut self.calls, LoggedCall { invoked, constraint });
        } else if let Some(killed) = KilledLine::parse(text) {
            push(&mut self.killed, killed);
        } else if let Some(invoked) = InvokedLine::parse(text) {
            self.invoked = Some(invoked);
        }
    }

    /// The call that chose this victim. `task`: its name; none where only the pid is known.
    pub fn take_call(&mut self, pid: u32, task: Option<&str>) -> Option<LoggedCall> {
        take(&mut self.calls, pid, task, |LoggedCall { constraint: line, .. }| {
            (line.pid, &line.task)
        })
    }

    /// The kernel's report of this victim.
    pub fn take_killed(&mut self, pid: u32, task: Option<&str>) -> Option<KilledLine> {
        take(&mut self.killed, pid, task, |line| (line.pid, &line.task))
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty() && self.killed.is_empty()
    }
}

fn push<T>(lines: &mut Vec<T>, line: T) {
    if lines.len() == PENDING_LINES {
        lines.remove(0);
    }
    lines.push(line);
}

/// Takes the newest line of a victim. The older ones of its pid go, too: a group kill has its first
/// victim twice, and a pid can be used again.
fn take<T>(
    lines: &mut Vec<T>,
    pid: u32,
    task: Option<&str>,
    victim: impl Fn(&T) -> (u32, &str),
) -> Option<T> {
    let (mut of_pid, others): (Vec<T>, _) =
        std::mem::take(lines).into_iter().partition(|line| victim(line).0 == pid);
    *lines = others;
    of_pid.pop().filter(|line| task.is_none_or(|task| victim(line).1 == task))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn killed(pid: u32, task: &str, anon_kb: u64) -> String {
        format!(
            "Memory cgroup out of memory: Killed process {pid} ({task}) total-vm:9kB, \
             anon-rss:{anon_kb}kB, file-rss:0kB, shmem-rss:0kB, UID:0 pgtables:4kB oom_score_adj:0"
        )
    }

    fn constraint(pid: u32, task: &str) -> String {
        format!(
            "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,\
             oom_memcg=/a,task_memcg=/a,task={task},pid={pid},uid=0"
        )
    }

    #[test]
    fn the_newest_line_of_a_pid_counts_and_the_others_go() {
        let mut log = OomLog::default();
        for (pid, anon_kb) in [(7, 1), (8, 2), (7, 3)] {
            log.line(&killed(pid, "tail", anon_kb));
        }
        assert_eq!(log.take_killed(7, Some("tail")).map(|line| line.anon_rss), Some(3 << 10));
        assert_eq!(log.take_killed(7, Some("tail")), None);
        assert_eq!(log.take_killed(8, None).map(|line| line.anon_rss), Some(2 << 10));
        assert!(log.is_empty());
    }

    #[test]
    fn a_pid_s_other_task_is_not_the_victim() {
        let mut log = OomLog::default();
        log.line(&killed(7, "old", 1));
        log.line(&constraint(7, "old"));
        assert_eq!(log.take_killed(7, Some("new")), None);
        assert_eq!(log.take_call(7, Some("new")), None);
        assert!(log.is_empty());
    }

    #[test]
    fn a_call_has_the_line_of_who_asked() {
        let mut log = OomLog::default();
        log.line("sh invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0");
        log.line("CPU: 1 UID: 0 PID: 7 Comm: sh Not tainted");
        log.line(&constraint(7, "a"));
        log.line(&constraint(8, "b"));
        let order = |call: Option<LoggedCall>| Some(call?.invoked?.order);
        assert_eq!(order(log.take_call(7, Some("a"))), Some(0));
        assert_eq!(order(log.take_call(8, Some("b"))), None, "its own was not logged");
    }

    #[test]
    fn a_path_full_of_separators_is_only_a_path() {
        let mut log = OomLog::default();
        let path = "/a invoked oom-killer: gfp_mask=0x1(x), order=3, : Killed process 9 (x) y";
        log.line("sh invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0");
        log.line(&format!("Memory cgroup stats for {path}:"));
        log.line(&constraint(7, "a").replace("oom_memcg=/a", &format!("oom_memcg={path}")));
        let call = log.take_call(7, Some("a")).expect("its line");
        assert_eq!(call.constraint.oom_memcg.as_deref(), Some(path));
        assert_eq!(call.invoked.map(|invoked| invoked.order), Some(0));
        assert!(log.is_empty());
    }

    #[test]
    fn lines_that_nobody_asks_for_are_bounded() {
        let mut log = OomLog::default();
        for pid in 0..1000 {
            log.line(&killed(pid, "x", 1));
            log.line(&constraint(pid, "x"));
        }
        assert_eq!((log.calls.len(), log.killed.len()), (PENDING_LINES, PENDING_LINES));
        assert!(log.take_killed(999, Some("x")).is_some() && log.take_killed(0, None).is_none());
    }
}
