//! Registers in the CPU's address space: one of the crate's two unsafe files (the other is [`crate::memory`]).

use core::fmt;
use core::ptr::NonNull;

use crate::arch::registers::REGISTERS_BYTES;
use crate::platform::Registers;

/// The register block of one SMMU, mapped as Device memory: page 0 and page 1, [`REGISTERS_BYTES`] in all.
///
/// Every access is one volatile load or store of the register's own width. The check that it is inside the block costs
/// nothing where the offset is known when the code is compiled, as all of the driver's are.
#[derive(Debug)]
pub struct Mmio {
    base: NonNull<u8>,
}

/// The register block is smaller than page 0 and page 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegistersTooSmall {
    /// Its length in bytes.
    pub found_bytes: usize,
}

impl fmt::Display for RegistersTooSmall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { found_bytes } = self;
        write!(f, "the register block has {found_bytes:#x} bytes, an SMMUv3 has {REGISTERS_BYTES:#x}")
    }
}

impl core::error::Error for RegistersTooSmall {}

// SAFETY: the pointer is to device registers, which are not bound to a thread; accesses are volatile.
unsafe impl Send for Mmio {}
// SAFETY: as above; concurrent accesses to one register are ordered by the bus, not by Rust.
unsafe impl Sync for Mmio {}

impl Mmio {
    /// Takes over the register block of `length_bytes` bytes at `base`.
    ///
    /// # Errors
    ///
    /// [`RegistersTooSmall`] if that is not both pages.
    ///
    /// # Safety
    ///
    /// `base` is 8-byte aligned and maps `length_bytes` bytes of one SMMU's registers as Device memory for as long as the
    /// value lives, and nothing else accesses them.
    pub unsafe fn new(base: NonNull<u8>, length_bytes: usize) -> Result<Self, RegistersTooSmall> {
        if length_bytes < REGISTERS_BYTES {
            return Err(RegistersTooSmall { found_bytes: length_bytes });
        }
        Ok(Self { base })
    }

    /// The address of the register of type `T` at `offset`, if it is aligned and inside the block.
    #[inline(always)]
    fn register<T>(&self, offset: usize) -> Option<NonNull<T>> {
        let end = offset.checked_add(size_of::<T>())?;
        if end > REGISTERS_BYTES || !offset.is_multiple_of(align_of::<T>()) {
            return None;
        }
        // SAFETY: `offset` was just found to be inside the block.
        Some(unsafe { self.base.add(offset) }.cast())
    }
}

/// Implements one read and one write method over [`Mmio::register`].
macro_rules! accessors {
    ($read:ident, $write:ident, $t:ty) => {
        #[inline(always)]
        fn $read(&self, offset: usize) -> $t {
            match self.register::<$t>(offset) {
                // SAFETY: `register` returns only addresses inside the block that `new` was promised.
                Some(register) => <$t>::from_le(unsafe { register.read_volatile() }),
                None => <$t>::MAX,
            }
        }

        #[inline(always)]
        fn $write(&self, offset: usize, value: $t) {
            if let Some(register) = self.register::<$t>(offset) {
                // SAFETY: `register` returns only addresses inside the block that `new` was promised.
                unsafe { register.write_volatile(value.to_le()) }
            }
        }
    };
}

impl Registers for Mmio {
    accessors!(read32, write32, u32);
    accessors!(read64, write64, u64);
}
