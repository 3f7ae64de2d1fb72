//! Programs that make system calls below a seccomp filter, and count what becomes of each.
//!
//! The program is the tests' own executable, started again with a variable in its environment,
//! on the host or in a container that has the host's libraries.

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::process::CommandExt;
use std::os::unix::thread::JoinHandleExt;
use std::path::PathBuf;
use std::process::{self, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::command::finish_child;
use crate::facts::patience;

/// Where it is set, the test executable is the program that it describes.
const VARIABLE: &str = "CTRACE_TEST_SECCOMP";
/// What the program's results begin with.
const RESULT: &str = "RESULT ";
/// What its process id begins with.
const PID: &str = "PID ";

/// A filter's answers: `include/uapi/linux/seccomp.h`.
pub mod ret {
    pub const KILL_PROCESS: u32 = 0x8000_0000;
    pub const KILL_THREAD: u32 = 0;
    pub const TRAP: u32 = 0x0003_0000;
    pub const ERRNO: u32 = 0x0005_0000;
    pub const LOG: u32 = 0x7ffc_0000;
    pub const ALLOW: u32 = 0x7fff_0000;
}

/// What a program does besides its calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Manner {
    /// It handles SIGSYS, and goes on.
    pub handles: bool,
    /// The calls are made by a second thread.
    pub in_thread: bool,
    /// The calls are made by the 32-bit entry of x86.
    pub compat: bool,
    /// Before the calls it makes threads, children and signals, and afterwards a thread runs
    /// another program.
    pub storm: bool,
}

/// A program to be.
#[derive(Clone, Debug)]
pub struct Program {
    /// Its name to the kernel, of its own.
    pub name: String,
    /// The filter's answer to each call that it does not allow; empty: no filter.
    pub filter: Vec<(u32, u32)>,
    /// Calls by number, and how many of each.
    pub calls: Vec<(u32, u32)>,
    /// A file whose mode it tries to change first.
    pub chmod: Option<String>,
    pub manner: Manner,
}

/// What a program left.
#[derive(Debug)]
pub struct Ran {
    pub pid: u32,
    pub status: ExitStatus,
    pub results: Results,
}

/// How often a call gave a result: below 0 an error.
pub type Results = BTreeMap<(u32, i64), u64>;

impl Program {
    pub fn new(filter: &[(u32, u32)], calls: &[(u32, u32)]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Self {
            // At most 15 bytes.
            name: format!("ct{}-{count}", process::id()),
            filter: filter.to_vec(),
            calls: calls.to_vec(),
            chmod: None,
            manner: Manner::default(),
        }
    }

    pub fn manner(self, manner: Manner) -> Self {
        Self { manner, ..self }
    }

    pub fn chmod(self, path: &str) -> Self {
        Self { chmod: Some(path.to_owned()), ..self }
    }

    /// The variable's value.
    fn described(&self) -> String {
        let Self { name, filter, calls, chmod, manner } = self;
        let Manner { handles, in_thread, compat, storm } = manner;
        json!({
            "name": name, "filter": filter, "calls": calls, "chmod": chmod, "handles": handles,
            "in_thread": in_thread, "compat": compat, "storm": storm,
        })
        .to_string()
    }

    /// Where the program and what it is linked with are: to be mounted into a container.
    pub fn container_options(&self) -> Result<Vec<String>> {
        let mut options = vec!["--env".to_owned(), format!("{VARIABLE}={}", self.described())];
        let executable = env::current_exe()?;
        let libraries = ["/lib", "/lib64", "/usr/lib"].map(PathBuf::from);
        for path in libraries.into_iter().filter(|path| path.exists()) {
            let real = fs::canonicalize(&path)?;
            options.extend([
                "--volume".to_owned(),
                format!("{}:{}:ro", real.display(), path.display()),
            ]);
        }
        options.extend(["--volume".to_owned(), format!("{}:/program:ro", executable.display())]);
        Ok(options)
    }

    /// The container's command for the program that `test` hands over to [`become_program`].
    pub fn container_command(test: &str) -> [&str; 4] {
        ["/program", "--exact", test, "--test-threads=1"]
    }

    /// Its command on the host; `test` is the test that hands over to [`become_program`]. `around`: a
    /// command that is to run it.
    pub fn command(&self, test: &str, around: &[&str]) -> Result<Command> {
        let executable = env::current_exe()?;
        let mut command = match around {
            [] => Command::new(&executable),
            [program, arguments @ ..] => {
                let mut command = Command::new(program);
                command.args(arguments).arg(&executable);
                command
            }
        };
        command.args(["--exact", test, "--test-threads=1"]).env(VARIABLE, self.described());
        Ok(command)
    }

    /// Runs it on the host to its end.
    pub fn run(&self, test: &str) -> Result<Ran> {
        self.run_in(test, &[])
    }

    /// [`Program::run`] by another command.
    pub fn run_in(&self, test: &str, around: &[&str]) -> Result<Ran> {
        let mut command = self.command(test, around)?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().with_context(|| format!("starting {command:?}"))?;
        let finished = finish_child(child, self.name.clone(), patience(60))?;
        let output = finished.text()?;
        let pid = output.lines().find_map(|line| line.split_once(PID)?.1.parse().ok());
        let pid = pid.with_context(|| finished.report("no process id"))?;
        let results = results(output);
        Ok(Ran { pid, status: finished.status, results })
    }
}

/// The results in what the program wrote.
pub fn results(output: &str) -> Results {
    let lines = output.lines().filter_map(|line| line.split_once(RESULT));
    let parsed = lines.filter_map(|(_, line)| {
        let mut fields = line.split(' ');
        let (call, result) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(((call, result), fields.next()?.parse().ok()?))
    });
    parsed.collect()
}

/// In the process that is to be the program: does not return there.
pub fn become_program() {
    let Some(described) = env::var_os(VARIABLE) else { return };
    let described = described.into_string().expect("JSON");
    let value: Value = serde_json::from_str(&described).expect("JSON");
    let pairs = |name: &str| -> Vec<(u32, u32)> {
        serde_json::from_value(value[name].clone()).expect("pairs of numbers")
    };
    let is = |name: &str| value[name] == true;
    // The test runner has a thread besides this one: the child has none.
    // SAFETY: the other thread waits, so that it holds no lock.
    match unsafe { libc::fork() } {
        0 => {}
        child => {
            let _ = writeln!(io::stdout(), "{PID}{child}");
            end_like(child)
        }
    }
    let name = format!("{}\0", value["name"].as_str().expect("a name"));
    // SAFETY: the name ends in 0.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
    if is("handles") {
        extern "C" fn handle(_signal: libc::c_int) {}
        let handler: extern "C" fn(libc::c_int) = handle;
        // SAFETY: the handler does nothing.
        unsafe { libc::signal(libc::SIGSYS, handler as libc::sighandler_t) };
    }
    let filter = pairs("filter");
    if !filter.is_empty() {
        install(&filter);
    }
    if is("storm") {
        storm();
    }
    let mut results = Results::new();
    if let Some(path) = value["chmod"].as_str() {
        let path = format!("{path}\0");
        // SAFETY: the path ends in 0.
        let result = unsafe { libc::chmod(path.as_ptr().cast(), 0o644) };
        let result = if result == 0 { 0 } else { -errno() };
        results.insert((libc::SYS_chmod as u32, result), 1);
    }
    let (calls, compat) = (pairs("calls"), is("compat"));
    let make = move || {
        for (number, times) in calls {
            for _ in 0..times {
                *results.entry((number, call(number, compat))).or_default() += 1;
            }
        }
        let mut text = String::new();
        for ((number, result), count) in &results {
            let _ = writeln!(text, "{RESULT}{number} {result} {count}");
        }
        // The test runner captures what is printed, but not this.
        let _ = io::stdout().write_all(text.as_bytes());
    };
    if is("in_thread") {
        let thread = thread::spawn(make).into_pthread_t();
        // The standard library's own does not expect that a thread is killed.
        // SAFETY: the thread is joined once.
        unsafe { libc::pthread_join(thread, std::ptr::null_mut()) };
    } else {
        make();
    }
    if is("storm") {
        // A thread that is not the leader takes its id.
        let _ = thread::spawn(|| Command::new("/bin/true").exec()).join();
    }
    process::exit(0)
}

/// Waits for the child, and ends as it did.
fn end_like(child: libc::pid_t) -> ! {
    let mut status = 0;
    // SAFETY: the status is an int; the child is this process's.
    unsafe {
        libc::waitpid(child, &raw mut status, 0);
        if libc::WIFSIGNALED(status) {
            libc::signal(libc::WTERMSIG(status), libc::SIG_DFL);
            libc::raise(libc::WTERMSIG(status));
        }
    }
    process::exit(libc::WEXITSTATUS(status))
}

fn errno() -> i64 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0).into()
}

/// Makes a call with arguments that no call takes.
fn call(number: u32, compat: bool) -> i64 {
    if compat {
        return compat_call(number);
    }
    // SAFETY: the arguments are no addresses of this process.
    match unsafe { libc::syscall(number.into(), 11_i64, 22_i64, 33_i64, 44_i64, 55_i64, 66_i64) } {
        -1 => -errno(),
        result => result,
    }
}

#[cfg(target_arch = "x86_64")]
fn compat_call(number: u32) -> i64 {
    let result: u64;
    // SAFETY: the arguments are no addresses of this process; the registers are those that the entry
    // changes.
    unsafe {
        std::arch::asm!(
            "xchg rbx, {first}",
            "int 0x80",
            "xchg rbx, {first}",
            first = inout(reg) 11_u64 => _,
            inout("rax") u64::from(number) => result,
            in("rcx") 22_u64, in("rdx") 33_u64, in("rsi") 44_u64, in("rdi") 55_u64,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    i64::from(result as i32)
}

#[cfg(not(target_arch = "x86_64"))]
fn compat_call(_number: u32) -> i64 {
    -i64::from(libc::ENOSYS)
}

/// Installs a filter that allows all but these calls, of whatever ABI.
pub fn install(answers: &[(u32, u32)]) {
    install_by(answers, 0);
}

/// [`install`] with a supervisor's listener, which comes back.
pub fn install_with_listener(answers: &[(u32, u32)]) -> i32 {
    install_by(answers, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER)
}

fn install_by(answers: &[(u32, u32)], flags: libc::c_ulong) -> i32 {
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let returns = |k| statement(libc::BPF_RET | libc::BPF_K, k);
    // The number is the first word of `struct seccomp_data`.
    let mut filter = vec![statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0)];
    for (number, answer) in answers {
        let equals = statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, *number);
        filter.extend([libc::sock_filter { jf: 1, ..equals }, returns(*answer)]);
    }
    filter.push(returns(ret::ALLOW));
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    let place = &raw const program;
    // SAFETY: the program and its statements live for the calls.
    let installed = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, place)
    };
    assert!(installed >= 0, "installing the filter: {}", io::Error::last_os_error());
    installed as i32
}

/// Threads and children that come and go, and calls that a signal ends: none of them is denied.
fn storm() {
    extern "C" fn wake(_signal: libc::c_int) {}
    let handler: extern "C" fn(libc::c_int) = wake;
    // SAFETY: the handler does nothing, and the timer is this process's.
    unsafe {
        libc::signal(libc::SIGALRM, handler as libc::sighandler_t);
        let every = libc::timeval { tv_sec: 0, tv_usec: 1000 };
        let timer = libc::itimerval { it_interval: every, it_value: every };
        libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut());
    }
    for _ in 0..200 {
        let threads: Vec<_> = (0..4)
            // SAFETY: no address is passed.
            .map(|_| thread::spawn(|| unsafe { libc::usleep(1500) }))
            .collect();
        // SAFETY: the child makes one call and ends.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: as above.
            unsafe {
                libc::getppid();
                libc::_exit(0)
            };
        }
        for thread in threads {
            let _ = thread.join();
        }
        let mut status = 0;
        // SAFETY: the status is an int; an interrupted call is made again.
        while unsafe { libc::waitpid(child, &raw mut status, 0) } < 0 && errno() == 4 {}
    }
    let off = libc::timeval { tv_sec: 0, tv_usec: 0 };
    let timer = libc::itimerval { it_interval: off, it_value: off };
    // SAFETY: the timer is this process's.
    unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()) };
}
