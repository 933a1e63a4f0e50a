//! Memory types: what MAIR, MemAttr and both stages together make of an access (Arm ARM, D8.6; IHI 0070, 13).

use super::super::bits::bits;

/// How caches treat an access, the weaker first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cacheability {
    /// Not at all.
    NonCacheable,
    /// Writes go to memory at once.
    WriteThrough,
    /// Writes stay in the cache.
    WriteBack,
}

/// The type of memory that an access meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryType {
    /// Device memory, from 0 for nGnRnE to 3 for GRE.
    Device(u8),
    /// Ordinary memory.
    Normal {
        /// In the outer caches.
        outer: Cacheability,
        /// In the inner caches.
        inner: Cacheability,
    },
}

use Cacheability::{NonCacheable, WriteBack, WriteThrough};

impl MemoryType {
    /// What an ordinary device asks for by itself.
    pub(in super::super) const CACHED: Self = Self::Normal { outer: WriteBack, inner: WriteBack };

    /// By the byte of MAIR that AttrIndx names. Reserved bytes count as Device-nGnRnE.
    pub(super) fn of_stage1(mair: u64, index: u64) -> Self {
        let byte = mair >> (index * 8) & 0xff;
        let nibble = |code| match code {
            0b0100 => NonCacheable,
            0b0001..=0b0011 | 0b1000..=0b1011 => WriteThrough,
            _ => WriteBack,
        };
        match (bits(byte, 7, 4), bits(byte, 3, 0)) {
            (0, device) => Self::Device((device >> 2) as u8),
            (_, 0) => Self::Device(0),
            (outer, inner) => Self::Normal { outer: nibble(outer), inner: nibble(inner) },
        }
    }

    /// What stage 2 makes of the type so far, by MemAttr and S2FWB.
    pub(in super::super) fn through_stage2(self, attributes: u64, force_write_back: bool) -> Self {
        let level = |code| [NonCacheable, NonCacheable, WriteThrough, WriteBack][code as usize];
        let own = match (force_write_back, attributes) {
            (_, 0..=3) => Self::Device(attributes as u8),
            (true, 0b110) => return Self::CACHED,
            (true, 0b101) => Self::Normal { outer: NonCacheable, inner: NonCacheable },
            (true, _) => return self,
            (false, _) => Self::Normal { outer: level(bits(attributes, 3, 2)), inner: level(bits(attributes, 1, 0)) },
        };
        // The weaker of the two.
        match (self, own) {
            (Self::Device(first), Self::Device(second)) => Self::Device(first.min(second)),
            (device @ Self::Device(_), _) | (_, device @ Self::Device(_)) => device,
            (Self::Normal { outer: o1, inner: i1 }, Self::Normal { outer: o2, inner: i2 }) => {
                Self::Normal { outer: o1.min(o2), inner: i1.min(i2) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_mair() {
        let types = [0xff, 0x44, 0x04, 0x00, 0xf4, 0xbb].map(|byte| MemoryType::of_stage1(byte, 0));
        let normal = |outer, inner| MemoryType::Normal { outer, inner };
        assert_eq!(types[0], normal(WriteBack, WriteBack));
        assert_eq!(types[1], normal(NonCacheable, NonCacheable));
        assert_eq!(types[2..4], [MemoryType::Device(1), MemoryType::Device(0)]);
        assert_eq!(types[4..], [normal(WriteBack, NonCacheable), normal(WriteThrough, WriteThrough)]);
        assert_eq!(MemoryType::of_stage1(0xff44, 1), MemoryType::CACHED);
    }

    #[test]
    fn stage2_weakens_unless_it_forces() {
        let uncached = MemoryType::of_stage1(0x44, 0);
        assert_eq!(MemoryType::CACHED.through_stage2(0b0101, false), uncached);
        assert_eq!(uncached.through_stage2(0b1111, false), uncached);
        assert_eq!(uncached.through_stage2(0b110, true), MemoryType::CACHED);
        assert_eq!(MemoryType::Device(1).through_stage2(0b111, true), MemoryType::Device(1));
        assert_eq!(MemoryType::CACHED.through_stage2(0b0001, false), MemoryType::Device(1));
    }
}
