//! The upper half of a stage-1 address space: TTB1 and what goes with it.

use super::{CD0, CD2, ContextDescriptor};
use crate::addr::PhysAddr;
use crate::arch::attributes::{Granule, WalkAttributes};

/// The upper half of an address space: addresses up to the last one of 64 bits, by a table of their own. ASID, IPS, MAIR and
/// faults are those of the lower half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpperHalf {
    /// TG1.
    pub granule: Granule,
    /// T1SZ: 64 minus the bits of an input address, 16 to 39 (12 with IDR5.VAX and 64 KiB granule).
    pub t1sz: u8,
    /// TTB1: the start-level table, aligned to its size.
    pub table: PhysAddr,
    /// IR1, OR1, SH1: how tables are walked.
    pub walk: WalkAttributes,
}

impl ContextDescriptor {
    /// The same address space with an upper half (EPD1 = 0). Not for [`Strw::El2`], which has none.
    ///
    /// A live descriptor without an upper half gets one, or loses it, in one store
    /// ([`EntryUpdate`](crate::arch::entry_update::EntryUpdate)).
    ///
    /// [`Strw::El2`]: crate::arch::stream_table::Strw::El2
    #[must_use]
    pub fn with_upper_half(mut self, upper: &UpperHalf) -> Self {
        let [word0, _, word2, ..] = &mut self.words;
        *word0 = (CD0::EPD1::CLEAR
            + CD0::T1SZ.val(upper.t1sz.into())
            + CD0::TG1.val(upper.granule.tg1())
            + CD0::IR1.val(upper.walk.inner.walk_code())
            + CD0::OR1.val(upper.walk.outer.walk_code())
            + CD0::SH1.val(upper.walk.shareability.code()))
        .modify(*word0);
        *word2 = CD2::TTB1.val(upper.table.get() >> 4).modify(*word2);
        self
    }

    /// TTB1: the start-level table of the upper half, or `None` without one (EPD1).
    #[must_use]
    pub fn upper_table(&self) -> Option<PhysAddr> {
        let [_, _, word2, ..] = self.words;
        (!self.word0().is_set(CD0::EPD1)).then(|| PhysAddr::new(CD2::TTB1.read(word2) << 4))
    }
}
