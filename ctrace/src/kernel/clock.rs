//! The kernel's clocks.

use std::mem::MaybeUninit;

/// Nanoseconds of a clock of `clock_gettime(2)`.
fn now(clock: libc::clockid_t) -> i128 {
    let mut time = MaybeUninit::<libc::timespec>::zeroed();
    // SAFETY: the call writes a timespec to the place given.
    let time = unsafe {
        libc::clock_gettime(clock, time.as_mut_ptr());
        time.assume_init()
    };
    i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
}

/// Nanoseconds since the epoch, UTC.
pub fn wall_now() -> i128 {
    now(libc::CLOCK_REALTIME)
}

/// Nanoseconds since boot, as records count them.
pub fn boot_now() -> u64 {
    u64::try_from(now(libc::CLOCK_BOOTTIME)).unwrap_or(0)
}

/// The wall clock's time of an instant given in nanoseconds since boot. The two clocks are compared
/// anew at each call: the wall clock may be set while ctrace runs.
pub fn wall_of_boot(boot_ns: u64) -> i128 {
    wall_now() - now(libc::CLOCK_BOOTTIME) + i128::from(boot_ns)
}

/// Nanoseconds since boot of a time in clock ticks, as `/proc/PID/stat` has it; `None` where the
/// length of a tick is unknown.
pub fn boot_ns_of_ticks(ticks: u64) -> Option<u64> {
    // SAFETY: sysconf has no preconditions.
    let per_second = u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).ok()?;
    1_000_000_000_u64.checked_div(per_second)?.checked_mul(ticks)
}
