//! The raw system calls of the probes. Errors are error numbers.
//!
//! aya would do, but it hides the error numbers of some steps behind its own checks.

use std::{
    ffi::{CString, c_int, c_long, c_uint},
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

/// The kernel's own "not supported", which libc does not name (`include/linux/errno.h`).
pub(super) const ENOTSUPP: i32 = 524;

/// `enum bpf_prog_type`.
#[derive(Clone, Copy)]
#[repr(u32)]
pub(super) enum ProgType {
    Kprobe = 2,
    RawTracepoint = 17,
    Tracing = 26,
}

/// `enum bpf_attach_type`.
#[derive(Clone, Copy)]
#[repr(u32)]
pub(super) enum AttachType {
    None = 0,
    TraceRawTp = 23,
    TraceFentry = 24,
}

/// `enum bpf_cmd`.
#[repr(i32)]
enum Command {
    MapCreate = 0,
    ProgLoad = 5,
    RawTracepointOpen = 17,
}

/// The start of `union bpf_attr` for `BPF_MAP_CREATE`.
#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
}

/// `union bpf_attr` for `BPF_PROG_LOAD`, up to `attach_prog_fd`.
#[repr(C)]
#[derive(Default)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
    prog_btf_fd: u32,
    func_info_rec_size: u32,
    func_info: u64,
    func_info_cnt: u32,
    line_info_rec_size: u32,
    line_info: u64,
    line_info_cnt: u32,
    attach_btf_id: u32,
    attach_prog_fd: u64,
}

/// `union bpf_attr` for `BPF_RAW_TRACEPOINT_OPEN`.
#[repr(C)]
struct RawTracepointOpen {
    name: u64,
    prog_fd: u64,
}

/// `struct perf_event_attr`, `PERF_ATTR_SIZE_VER1`.
#[repr(C)]
#[derive(Default)]
struct PerfEventAttr {
    event_type: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    bp_type: u32,
    /// `kprobe_func`: a pointer to the function's name.
    config1: u64,
    /// `probe_offset`.
    config2: u64,
}

/// `r0 = 0; exit`.
const RETURN_ZERO: [u64; 2] = [0xb7_u64.to_le(), 0x95_u64.to_le()];

fn owned(result: c_long) -> Result<OwnedFd, i32> {
    let fd = c_int::try_from(checked(result)?).map_err(|_| libc::EBADF)?;
    // SAFETY: the system call that returned this descriptor has just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn checked(result: c_long) -> Result<c_long, i32> {
    if result < 0 {
        Err(io::Error::last_os_error().raw_os_error().unwrap_or(0))
    } else {
        Ok(result)
    }
}

/// # Safety
/// `attr` must be laid out as the command's part of `union bpf_attr`, and its pointers valid.
unsafe fn bpf<T>(command: Command, attr: &T) -> Result<OwnedFd, i32> {
    let attr: *const T = attr;
    // SAFETY: the kernel reads `size_of::<T>()` bytes at `attr`, which a reference guarantees; the
    // caller guarantees the contents.
    owned(unsafe { libc::syscall(libc::SYS_bpf, command as c_int, attr, size_of::<T>()) })
}

/// Loads a program that does nothing. `attach_btf_id` is 0 for the types that need none.
pub(super) fn load(
    prog_type: ProgType,
    attach_type: AttachType,
    attach_btf_id: u32,
) -> Result<OwnedFd, i32> {
    let attr = ProgLoad {
        prog_type: prog_type as u32,
        insn_cnt: RETURN_ZERO.len() as u32,
        insns: RETURN_ZERO.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        expected_attach_type: attach_type as u32,
        attach_btf_id,
        ..ProgLoad::default()
    };
    // SAFETY: the layout is `BPF_PROG_LOAD`'s; instructions and licence are constants.
    unsafe { bpf(Command::ProgLoad, &attr) }
}

/// Attaches to a raw tracepoint by name, or without one to what the program was loaded for.
pub(super) fn raw_tracepoint_open(prog: &OwnedFd, name: Option<&str>) -> Result<OwnedFd, i32> {
    let name = name.map(|name| CString::new(name).map_err(|_| libc::EINVAL)).transpose()?;
    let attr = RawTracepointOpen {
        name: name.as_ref().map_or(0, |name| name.as_ptr() as u64),
        prog_fd: prog.as_raw_fd() as u64,
    };
    // SAFETY: the layout is `BPF_RAW_TRACEPOINT_OPEN`'s; `name` outlives the call.
    unsafe { bpf(Command::RawTracepointOpen, &attr) }
}

/// Makes a ring buffer of one page.
pub(super) fn create_ring_buffer() -> Result<OwnedFd, i32> {
    const BPF_MAP_TYPE_RINGBUF: u32 = 27;
    // SAFETY: sysconf has no preconditions.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    let max_entries = u32::try_from(page).unwrap_or(4096);
    let attr =
        MapCreate { map_type: BPF_MAP_TYPE_RINGBUF, key_size: 0, value_size: 0, max_entries };
    // SAFETY: the layout is `BPF_MAP_CREATE`'s and has no pointers.
    unsafe { bpf(Command::MapCreate, &attr) }
}

/// Opens a kernel probe on a function's entry, through the perf PMU of that type number.
pub(super) fn open_kprobe(pmu: u32, function: &str) -> Result<OwnedFd, i32> {
    let function = CString::new(function).map_err(|_| libc::EINVAL)?;
    let attr = PerfEventAttr {
        event_type: pmu,
        size: size_of::<PerfEventAttr>() as u32,
        config1: function.as_ptr() as u64,
        ..PerfEventAttr::default()
    };
    let (attr, any_process, cpu): (*const PerfEventAttr, c_int, c_int) = (&attr, -1, 0);
    let (no_group, flags): (c_int, c_uint) = (-1, 8 /* PERF_FLAG_FD_CLOEXEC */);
    // SAFETY: `attr` is a perf_event_attr that says its own size; the name outlives the call.
    owned(unsafe {
        libc::syscall(libc::SYS_perf_event_open, attr, any_process, cpu, no_group, flags)
    })
}

/// Attaches a program to a perf event.
pub(super) fn set_bpf(event: &OwnedFd, prog: &OwnedFd) -> Result<(), i32> {
    // _IOW('$', 8, __u32)
    const PERF_EVENT_IOC_SET_BPF: c_uint = 0x4004_2408;
    // SAFETY: both descriptors are open; this request takes a descriptor by value.
    let result =
        unsafe { libc::ioctl(event.as_raw_fd(), PERF_EVENT_IOC_SET_BPF as _, prog.as_raw_fd()) };
    checked(c_long::from(result)).map(drop)
}
