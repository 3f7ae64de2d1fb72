//! ctrace's eBPF programs. One file per probe family in `probes`; what they share is beside it.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod cgroup;
mod emit;
mod filter;
mod kernel;
mod probes;
mod task;
mod totals;

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
