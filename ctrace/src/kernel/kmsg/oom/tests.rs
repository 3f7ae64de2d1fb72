use proptest::prelude::*;

use super::*;

fn constraint_line(scope: &str, task: &str) -> OomConstraintLine {
    let text = format!(
        "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=box,mems_allowed=0-1,3,\
         {scope},task={task},pid=123,uid=1000"
    );
    OomConstraintLine::parse(&text).unwrap_or_else(|| panic!("{text}"))
}

#[test]
fn constraint_of_a_cgroup() {
    let line = constraint_line("oom_memcg=/docker/x,task_memcg=/docker/x/y", "tail");
    let expected = OomConstraintLine {
        constraint: Constraint::Memcg,
        oom_memcg: Some("/docker/x".into()),
        task_memcg: Some("/docker/x/y".into()),
        task: "tail".into(),
        pid: 123,
        uid: 1000,
    };
    assert_eq!(line, expected);
}

#[test]
fn constraint_of_the_host() {
    let text = "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,\
                global_oom,task_memcg=/user.slice/user-0.slice,task=stress-ng,pid=3113,uid=0";
    let line = OomConstraintLine::parse(text).unwrap();
    assert_eq!(line.oom_memcg, None);
    assert_eq!(line.constraint, Constraint::Global);
    assert_eq!(line.task_memcg.as_deref(), Some("/user.slice/user-0.slice"));
    let text = "oom-kill:constraint=CONSTRAINT_CPUSET,nodemask=0-1,3,cpuset=a,b,mems_allowed=0,\
                task=x,pid=1,uid=0";
    let line = OomConstraintLine::parse(text).unwrap();
    assert_eq!((line.constraint, line.task_memcg), (Constraint::Cpuset, None));
}

#[test]
fn hostile_names() {
    let line = constraint_line("oom_memcg=/a,b,task_memcg=/a,b/c", "x,pid=1,uid=2");
    assert_eq!((line.task.as_str(), line.pid), ("x,pid=1,uid=2", 123));
    assert_eq!(line.oom_memcg.as_deref(), Some("/a,b"));

    let line = constraint_line("oom_memcg=/a,task_memcg=/b,task_memcg=/a,task_memcg=/b/c", "t");
    assert_eq!(line.oom_memcg.as_deref(), Some("/a,task_memcg=/b"));
    assert_eq!(line.task_memcg.as_deref(), Some("/a,task_memcg=/b/c"));

    let line = constraint_line("oom_memcg=/a,task_memcg=/a/x,task=long-enough-to-be-no-name", ")(");
    assert_eq!(line.task_memcg.as_deref(), Some("/a/x,task=long-enough-to-be-no-name"));
    assert_eq!(line.task, ")(");

    let text = "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),\
                cpuset=,mems_allowed=0,oom_memcg=x,mems_allowed=0,oom_memcg=/y,task_memcg=/y,\
                task=t,pid=1,uid=0";
    assert_eq!(OomConstraintLine::parse(text).unwrap().oom_memcg.as_deref(), Some("/y"));
}

const SIZES: &str = "total-vm:70000kB, anon-rss:65000kB, file-rss:4kB, shmem-rss:0kB";

#[test]
fn killed() {
    let killed = |message: &str, task: &str, end: &str| {
        let text = format!("{message}: Killed process 123 ({task}) {SIZES}{end}");
        KilledLine::parse(&text).unwrap_or_else(|| panic!("{text}"))
    };
    let full = ", UID:0 pgtables:180kB oom_score_adj:-998";
    let line = killed("Memory cgroup out of memory", "tail", full);
    let expected = KilledLine {
        is_memcg: true,
        pid: 123,
        task: "tail".into(),
        total_vm: 70000 << 10,
        anon_rss: 65000 << 10,
        file_rss: 4 << 10,
        shmem_rss: 0,
        uid: Some(0),
        pgtables: Some(180 << 10),
        oom_score_adj: Some(-998),
    };
    assert_eq!(line, expected);
    assert!(!killed("Out of memory", "x", full).is_memcg);
    assert!(!killed("Out of memory (oom_kill_allocating_task)", "x", full).is_memcg);
    assert_eq!(killed("Out of memory", "x", "").uid, None);
    for task in ["a b", "a) total-vm:1kB", "(x) (", ", UID:7", "", ": Killed proces"] {
        assert_eq!(
            killed("Out of memory", task, full),
            KilledLine { is_memcg: false, task: task.into(), ..expected.clone() }
        );
    }
    let path = format!("Tasks in /a: Killed process 7 (x) {SIZES} are going to be killed");
    assert_eq!(KilledLine::parse(&path), None);
    let huge = "Out of memory: Killed process 1 (x) total-vm:18446744073709551615kB, ";
    assert_eq!(KilledLine::parse(huge), None);
}

#[test]
fn invoked() {
    let text = "kworker/u4:0 invoked oom-killer: gfp_mask=0x1100cca(GFP_HIGHUSER_MOVABLE), \
                order=0, oom_score_adj=0";
    let line = InvokedLine::parse(text).unwrap();
    assert_eq!((line.task.as_str(), line.gfp_mask), ("kworker/u4:0", 0x0110_0cca));
    assert_eq!(line.order, 0);
    let text = "a invoked oom-k invoked oom-killer: \
                gfp_mask=0xcc0(GFP_KERNEL|__GFP_COMP), nodemask=(null), order=-1, \
                oom_score_adj=-1000";
    let line = InvokedLine::parse(text).unwrap();
    assert_eq!((line.task.as_str(), line.order), ("a invoked oom-k", -1));
    let zero = InvokedLine::parse("x invoked oom-killer: gfp_mask=0(), order=0, oom_score_adj=0");
    assert_eq!(zero.unwrap().gfp_mask, 0);
    let path = "Memory cgroup stats for /a invoked oom-killer: gfp_mask=0x1(x), order=3, :";
    assert_eq!(InvokedLine::parse(path), None);
}

proptest! {
    #[test]
    fn any_text(text in ".*", prefix in 0..4_usize) {
        let starts = ["", "oom-kill:constraint=CONSTRAINT_MEMCG,", "Out of memory: Killed process 1 (", "x invoked oom-killer: gfp_mask="];
        let text = format!("{}{text}", starts[prefix]);
        OomConstraintLine::parse(&text);
        KilledLine::parse(&text);
        InvokedLine::parse(&text);
    }

    #[test]
    fn any_names(
        oom in "/[^,]{0,40}",
        below in "(/[^,]{1,20})?",
        task in "[^=]{0,15}",
        cpuset in "[^/]{1,20}",
    ) {
        let text = format!(
            "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset={cpuset},mems_allowed=0,\
             oom_memcg={oom},task_memcg={oom}{below},task={task},pid=7,uid=8"
        );
        let line = OomConstraintLine::parse(&text).unwrap();
        prop_assert_eq!(line.task, task.clone());
        prop_assert_eq!(line.oom_memcg, Some(oom.clone()));
        prop_assert_eq!(line.task_memcg, Some(format!("{oom}{below}")));
        prop_assert_eq!((line.pid, line.uid), (7, 8));
        let text = format!("Out of memory: Killed process 7 ({task}) {SIZES}, UID:0 pgtables:1kB oom_score_adj:0");
        prop_assert_eq!(KilledLine::parse(&text).unwrap().task, task);
    }
}
