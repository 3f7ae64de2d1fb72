//! A cgroup's id is its file handle in kernfs: no directory is ever walked.

use std::{
    ffi::{CString, c_int, c_uint, c_void},
    fs,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

/// `struct file_handle` as kernfs fills it: type `FILEID_KERNFS` and the 64-bit id.
#[repr(C)]
struct FileHandle {
    bytes: c_uint,
    kind: c_int,
    id: u64,
}

/// `include/linux/exportfs.h`; since kernel 5.5.
const FILEID_KERNFS: c_int = 0xfe;
const ID_BYTES: c_uint = size_of::<u64>() as c_uint;

unsafe extern "C" {
    // The libc crate's own declarations take a handle without room for its contents.
    fn open_by_handle_at(mount: c_int, handle: *mut FileHandle, flags: c_int) -> c_int;
    fn name_to_handle_at(
        directory: c_int,
        path: *const std::ffi::c_char,
        handle: *mut c_void,
        mount_id: *mut c_int,
        flags: c_int,
    ) -> c_int;
}

/// The full path of the file with this id on the file system mounted at `mount`.
pub(super) fn path_of_id(mount: &Path, id: u64) -> Option<PathBuf> {
    let mount = fs::File::open(mount).ok()?;
    let mut handle = FileHandle { bytes: ID_BYTES, kind: FILEID_KERNFS, id };
    // SAFETY: the handle says how many bytes follow its head, and they are there.
    let fd = unsafe {
        open_by_handle_at(mount.as_raw_fd(), &raw mut handle, libc::O_PATH | libc::O_CLOEXEC)
    };
    if fd < 0 {
        return None;
    }
    // SAFETY: the call has just made this descriptor for us.
    let file = unsafe { OwnedFd::from_raw_fd(fd) };
    let path = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()?;
    // Removed since it was opened: the link has a suffix that a cgroup's name may have too.
    if path.as_os_str().as_bytes().ends_with(b" (deleted)") && id_of_path(&path) != Some(id) {
        return None;
    }
    Some(path)
}

/// The id of the cgroup whose directory this is.
pub(super) fn id_of_path(path: &Path) -> Option<u64> {
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    let mut handle = FileHandle { bytes: ID_BYTES, kind: 0, id: 0 };
    let mut mount_id = 0;
    let place: *mut FileHandle = &raw mut handle;
    // SAFETY: the path ends with a NUL, the handle says how much room follows its head, and both
    // outlive the call.
    let result = unsafe {
        name_to_handle_at(libc::AT_FDCWD, path.as_ptr(), place.cast(), &raw mut mount_id, 0)
    };
    (result == 0 && handle.kind == FILEID_KERNFS && handle.bytes == ID_BYTES).then_some(handle.id)
}
