//! Addresses and identifiers, each a type of its own, so that none passes for another.
//!
//! What lives here: plain numbers with a meaning. What does not: memory itself (see [`crate::memory`]).

use core::fmt;

/// Declares a transparent newtype over an integer with hexadecimal display.
macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(transparent)]
        pub struct $name($inner);

        impl $name {
            /// Wraps the raw number.
            #[must_use]
            pub const fn new(value: $inner) -> Self {
                Self(value)
            }

            /// The raw number.
            #[must_use]
            pub const fn get(self) -> $inner {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }

        impl fmt::LowerHex for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::LowerHex::fmt(&self.0, f)
            }
        }
    };
}

/// Adds checked address arithmetic, in bytes, to a newtype over `u64`.
macro_rules! address {
    ($name:ident) => {
        impl $name {
            /// The address `bytes` further on, or `None` past the end of the 64-bit space.
            #[must_use]
            pub const fn checked_add(self, bytes: u64) -> Option<Self> {
                match self.0.checked_add(bytes) {
                    Some(sum) => Some(Self(sum)),
                    None => None,
                }
            }

            /// The distance in bytes from `start` to this address, or `None` if it lies before `start`.
            #[must_use]
            pub const fn checked_sub(self, start: Self) -> Option<u64> {
                self.0.checked_sub(start.0)
            }

            /// Whether the address is a multiple of `alignment_bytes` (a power of two).
            #[must_use]
            pub const fn is_aligned(self, alignment_bytes: u64) -> bool {
                self.0 & alignment_bytes.wrapping_sub(1) == 0
            }

            /// The address rounded down to a multiple of `alignment_bytes` (a power of two).
            #[must_use]
            pub const fn align_down(self, alignment_bytes: u64) -> Self {
                Self(self.0 & !alignment_bytes.wrapping_sub(1))
            }
        }
    };
}

number! {
    /// An I/O virtual address: what a device puts on the bus when its stream is translated by stage 1
    /// (or by stage 2 alone, where the architecture calls it an intermediate physical address).
    Iova(u64)
}
address!(Iova);

number! {
    /// A physical address, as the SMMU and the memory system see it.
    PhysAddr(u64)
}
address!(PhysAddr);

number! {
    /// A StreamID: who a transaction comes from (IHI 0070, 3.2). At most 32 bits.
    StreamId(u32)
}

impl StreamId {
    /// How many bits it takes to name this StreamID and all smaller ones, 0 to 32: what an SMMU that has it needs in
    /// IDR1.SIDSIZE and STRTAB_BASE_CFG.LOG2SIZE.
    #[must_use]
    pub const fn bits(self) -> u8 {
        (u32::BITS - self.0.leading_zeros()) as u8
    }
}

number! {
    /// A SubstreamID, PCIe's PASID: which address space of a device (IHI 0070, 3.2). At most 20 bits.
    SubstreamId(u32)
}

number! {
    /// An address space identifier: tags the stage-1 translations of one page table.
    Asid(u16)
}

number! {
    /// A virtual machine identifier: tags the translations of one stage-2 page table.
    Vmid(u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addition_never_wraps() {
        assert_eq!(Iova::new(u64::MAX).checked_add(1), None);
        assert_eq!(Iova::new(0x1000).checked_add(0xfff), Some(Iova::new(0x1fff)));
        assert_eq!(PhysAddr::new(1).checked_sub(PhysAddr::new(2)), None);
    }

    #[test]
    fn alignment() {
        assert!(PhysAddr::new(0x3000).is_aligned(0x1000));
        assert!(!PhysAddr::new(0x3008).is_aligned(0x1000));
        assert_eq!(Iova::new(0x3fff).align_down(0x1000), Iova::new(0x3000));
    }

    #[test]
    fn stream_ids_take_as_many_bits_as_they_need() {
        let bits = [0, 1, 0x100, 0xffff, 0xffff_0000].map(|stream| StreamId::new(stream).bits());
        assert_eq!(bits, [0, 1, 9, 16, 32]);
    }

    #[test]
    fn display_is_hexadecimal() {
        extern crate std;
        assert_eq!(std::format!("{}", StreamId::new(0x18)), "0x18");
    }
}
