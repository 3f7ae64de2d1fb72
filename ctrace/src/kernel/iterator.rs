//! Reads what a BPF iterator writes. aya lets an iterator be read once only.

use std::{
    ffi::{c_int, c_long},
    fs::File,
    io::{self, ErrorKind, Read},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

/// `enum bpf_cmd` of `include/uapi/linux/bpf.h`
#[derive(Clone, Copy)]
#[repr(i32)]
enum Command {
    LinkCreate = 28,
    IterCreate = 33,
}

/// `BPF_TRACE_ITER` of `enum bpf_attach_type`
const TRACE_ITER: u32 = 28;

/// `union bpf_attr` for `BPF_LINK_CREATE`, for an iterator.
#[repr(C)]
struct LinkCreate {
    prog_fd: i32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
}

/// `union bpf_attr` for `BPF_ITER_CREATE`.
#[repr(C)]
struct IterCreate {
    link_fd: i32,
    flags: u32,
}

/// A loaded iterator that can be read again and again.
#[derive(Debug)]
pub struct BpfIterator {
    link: OwnedFd,
}

impl BpfIterator {
    /// `program`: a loaded program of an iterator.
    ///
    /// # Errors
    /// Where the kernel refuses it.
    pub fn new(program: &OwnedFd) -> io::Result<Self> {
        let attr = LinkCreate {
            prog_fd: program.as_raw_fd(),
            target_fd: 0,
            attach_type: TRACE_ITER,
            flags: 0,
        };
        // SAFETY: the layout is `BPF_LINK_CREATE`'s and has no pointers.
        Ok(Self { link: unsafe { bpf(Command::LinkCreate, &attr) }? })
    }

    /// Runs it, and gives all that it writes.
    ///
    /// # Errors
    /// Where the kernel refuses it.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        let attr = IterCreate { link_fd: self.link.as_raw_fd(), flags: 0 };
        // SAFETY: the layout is `BPF_ITER_CREATE`'s and has no pointers.
        let mut file = File::from(unsafe { bpf(Command::IterCreate, &attr) }?);
        let (mut all, mut part) = (Vec::new(), vec![0; 16 << 10]);
        loop {
            match file.read(&mut part) {
                Ok(0) => return Ok(all),
                Ok(length) => all.extend_from_slice(&part[..length]),
                // The kernel takes a rest after a million tasks without output.
                Err(error)
                    if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// # Safety
/// `attr` must be laid out as the command's part of `union bpf_attr`, and its pointers valid.
unsafe fn bpf<T>(command: Command, attr: &T) -> io::Result<OwnedFd> {
    let attr: *const T = attr;
    // SAFETY: the kernel reads `size_of::<T>()` bytes at `attr`, which a reference guarantees; the
    // caller guarantees the contents.
    let fd: c_long =
        unsafe { libc::syscall(libc::SYS_bpf, command as c_int, attr, size_of::<T>()) };
    match c_int::try_from(fd) {
        // SAFETY: the system call has just made this descriptor for us.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}
