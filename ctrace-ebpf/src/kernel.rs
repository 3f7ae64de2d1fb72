//! Reads of kernel memory at offsets that the collector resolved.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use ctrace_common::offsets::MISSING;
use zerocopy::FromZeros;

/// A read-only global that the collector fills before the object is loaded. The verifier knows its
/// value: the map behind it is frozen.
#[repr(transparent)]
pub struct Global<T>(T);

// SAFETY: nothing writes it once the object is loaded.
unsafe impl<T> Sync for Global<T> {}

impl<T: Copy> Global<T> {
    pub const fn new(default: T) -> Self {
        Self(default)
    }
}

/// A field of a [`Global`], read so that the compiler cannot take the default for the value.
macro_rules! global {
    ($global:expr, $field:ident) => {
        // SAFETY: the place is a `u32` of a static.
        unsafe { core::ptr::read_volatile(&raw const (*$global.as_ptr()).$field) }
    };
}
pub(crate) use global;

impl<T> Global<T> {
    pub const fn as_ptr(&self) -> *const T {
        &raw const self.0
    }
}

/// An address in the kernel; 0 is NULL.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Address(pub u64);

impl Address {
    pub const NULL: Self = Self(0);

    pub fn is_null(self) -> bool {
        self.0 == 0
    }

    /// The place of a member inside the object at this address; NULL where the kernel has none.
    #[inline(always)]
    pub fn member(self, offset: u32) -> Self {
        if offset == MISSING { Self::NULL } else { Self(self.0.wrapping_add(offset as u64)) }
    }

    /// Reads the member at `offset`. All bits are 0 where the kernel has no such member or the
    /// address is bad: the helper clears what it cannot fill. No branch depends on its result, so
    /// that the verifier follows one path.
    #[inline(always)]
    pub fn read<T: FromZeros>(self, offset: u32) -> T {
        let mut value = T::new_zeroed();
        let place = self.member(offset).0 as *const _;
        // SAFETY: the helper checks the address and writes the size of a T.
        unsafe { bpf_probe_read_kernel((&raw mut value).cast(), size_of::<T>() as u32, place) };
        value
    }

    /// Follows the pointer at `offset`; NULL where there is none.
    #[inline(always)]
    pub fn follow(self, offset: u32) -> Self {
        Self(self.read(offset))
    }
}

/// The first bytes of an object, read at once: a read costs more than what it reads.
#[repr(C, align(8))]
pub struct Head<const BYTES: usize> {
    at: Address,
    bytes: [u8; BYTES],
}

impl<const BYTES: usize> Head<BYTES> {
    #[inline(always)]
    pub fn of(at: Address) -> Self {
        let mut bytes = MaybeUninit::<[u8; BYTES]>::uninit();
        let place = at.0 as *const _;
        // SAFETY: the helper checks the address and writes all bytes, zeros where it cannot read: to
        // clear them before would cost more than the read.
        let bytes = unsafe {
            bpf_probe_read_kernel(bytes.as_mut_ptr().cast(), BYTES as u32, place);
            bytes.assume_init()
        };
        Self { at, bytes }
    }

    /// The member at `offset`; as [`Address::read`], which reads it where it is not among the first.
    #[inline(always)]
    pub fn read<T: FromZeros + Copy>(&self, offset: u32) -> T {
        if offset as usize > BYTES - size_of::<T>() {
            return self.at.read(offset);
        }
        // SAFETY: the place is inside `bytes`, and any bytes are a T that the kernel has there.
        unsafe { self.bytes.as_ptr().add(offset as usize).cast::<T>().read_volatile() }
    }
}

/// A pointer into the kernel whose type the verifier knows: an argument of a BTF tracepoint, and what
/// is followed from there. Its reads are plain loads that give 0 where the address is bad. A member
/// that the kernel does not have must not be read: the verifier refuses the program.
#[derive(Clone, Copy)]
pub struct Typed(*const u8);

impl Typed {
    pub fn new(pointer: *const u8) -> Self {
        Self(pointer)
    }

    pub fn address(self) -> u64 {
        self.0 as u64
    }

    /// Reads the number at `offset`.
    #[inline(always)]
    pub fn read<T: FromZeros>(self, offset: u32) -> T {
        // SAFETY: the kernel handles the fault of a bad address.
        unsafe { self.0.add(offset as usize).cast::<T>().read_volatile() }
    }

    /// Follows the pointer at `offset`.
    #[inline(always)]
    pub fn follow(self, offset: u32) -> Self {
        // SAFETY: as for `read`.
        Self(unsafe { self.0.add(offset as usize).cast::<*const u8>().read_volatile() })
    }
}
