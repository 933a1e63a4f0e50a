//! Registers in the CPU's address space: one of the crate's two unsafe files (the other is [`crate::memory`]).

use core::ptr::NonNull;

use crate::platform::Registers;

/// The register block of one SMMU, mapped as Device memory.
///
/// Every access is one volatile load or store of the register's own width, bounds-checked against the block.
#[derive(Debug)]
pub struct Mmio {
    base: NonNull<u8>,
    length_bytes: usize,
}

// SAFETY: the pointer is to device registers, which are not bound to a thread; accesses are volatile.
unsafe impl Send for Mmio {}
// SAFETY: as above; concurrent accesses to one register are ordered by the bus, not by Rust.
unsafe impl Sync for Mmio {}

impl Mmio {
    /// Takes over the register block at `base`.
    ///
    /// # Safety
    ///
    /// `base` is 8-byte aligned and maps `length_bytes` bytes of one SMMU's registers (128 KiB: page 0 and page 1) as
    /// Device memory for as long as the value lives, and nothing else accesses them.
    #[must_use]
    pub unsafe fn new(base: NonNull<u8>, length_bytes: usize) -> Self {
        Self { base, length_bytes }
    }

    /// The address of the register of type `T` at `offset`, if it is aligned and inside the block.
    fn register<T>(&self, offset: usize) -> Option<NonNull<T>> {
        let end = offset.checked_add(size_of::<T>())?;
        if end > self.length_bytes || !offset.is_multiple_of(align_of::<T>()) {
            return None;
        }
        // SAFETY: `offset` was just found to be inside the block.
        Some(unsafe { self.base.add(offset) }.cast())
    }
}

/// Implements one read and one write method over [`Mmio::register`].
macro_rules! accessors {
    ($read:ident, $write:ident, $t:ty) => {
        fn $read(&self, offset: usize) -> $t {
            match self.register::<$t>(offset) {
                // SAFETY: `register` returns only addresses inside the block that `new` was promised.
                Some(register) => <$t>::from_le(unsafe { register.read_volatile() }),
                None => <$t>::MAX,
            }
        }

        fn $write(&self, offset: usize, value: $t) {
            if let Some(register) = self.register::<$t>(offset) {
                // SAFETY: `register` returns only addresses inside the block that `new` was promised.
                unsafe { register.write_volatile(value.to_le()) }
            }
        }
    };
}

impl Registers for Mmio {
    fn length_bytes(&self) -> usize {
        self.length_bytes
    }

    accessors!(read32, write32, u32);
    accessors!(read64, write64, u64);
}
