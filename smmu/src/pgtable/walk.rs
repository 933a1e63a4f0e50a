//! Looking things up, as the SMMU would: nothing here writes.

use core::cell::Cell;
use core::fmt;

use super::quick::{self, Errand, QuickPlace};
use super::tables::{Place, Visit};
use super::{Access, MemoryType, PageTable};
use crate::addr::{Iova, PhysAddr};
use crate::arch::attributes::Granule;
use crate::arch::descriptor::{Descriptor, Format, LAST_LEVEL, Leaf, LeafAttributes};
use crate::platform::Platform;

/// What an address is translated to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// The output address for exactly the address that was asked for.
    pub physical: PhysAddr,
    /// The level of the leaf: 3 for a page.
    pub level: u8,
    /// log2 of the size of the page or block in bytes.
    pub leaf_log2_bytes: u8,
    /// What else the descriptor says.
    pub attributes: LeafAttributes,
}

impl Translation {
    /// Size of the page or block in bytes.
    #[must_use]
    pub const fn leaf_bytes(&self) -> u64 {
        1 << self.leaf_log2_bytes
    }

    /// What an unprivileged transaction may do, as hardware enforces it; `None` for nothing.
    #[must_use]
    pub fn access(&self) -> Option<Access> {
        self.attributes.access()
    }

    /// The memory type; `None` for one that this crate never writes.
    #[must_use]
    pub fn memory(&self) -> Option<MemoryType> {
        self.attributes.memory()
    }
}

impl fmt::Display for Translation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (level {}, {:#x} bytes", self.physical, self.level, self.leaf_bytes())?;
        match self.attributes.permissions() {
            Some(permissions) => write!(f, ", {permissions}")?,
            None => f.write_str(", no access")?,
        }
        match self.memory() {
            Some(memory) => write!(f, ", {memory}")?,
            None => f.write_str(", other memory type")?,
        }
        if !self.attributes.is_accessed() {
            f.write_str(", not accessed")?;
        }
        if self.attributes.is_dirty() {
            f.write_str(", dirty")?;
        }
        f.write_str(")")
    }
}

/// One walk, descriptor by descriptor. Its `Display` writes a line for each level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walk {
    iova: Iova,
    format: Format,
    /// By level; `None` where the walk did not come.
    descriptors: [Option<u64>; LAST_LEVEL as usize + 1],
}

impl Walk {
    /// The raw descriptor found at `level`, or `None` if the walk starts below, or ended above it.
    #[must_use]
    pub fn descriptor(&self, level: u8) -> Option<u64> {
        self.descriptors.get(usize::from(level)).copied().flatten()
    }
}

impl fmt::Display for Walk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}, {} granule:", self.iova, self.format.stage, self.format.granule)?;
        for level in 0..=LAST_LEVEL {
            let Some(raw) = self.descriptor(level) else { continue };
            write!(f, "\n  level {level}: {raw:#018x} ")?;
            match self.format.decode(level, raw) {
                Descriptor::Invalid => f.write_str("invalid")?,
                Descriptor::Table(table) => write!(f, "table at {table}")?,
                Descriptor::Leaf(leaf) => {
                    translation(level, self.format.entry_log2_bytes(level), leaf, self.iova).fmt(f)?
                }
            }
        }
        if self.descriptors == [None; LAST_LEVEL as usize + 1] { f.write_str(" not an input address") } else { Ok(()) }
    }
}

/// What `leaf`, found at `level` where an entry covers `1 << shift` bytes, makes of `iova`.
#[inline(always)]
#[allow(clippy::cast_possible_truncation, reason = "less than 64")]
pub(super) fn translation(level: u8, shift: u32, leaf: Leaf, iova: Iova) -> Translation {
    let physical = PhysAddr::new(leaf.physical.get() | (iova.get() & ((1 << shift) - 1)));
    Translation { physical, level, leaf_log2_bytes: shift as u8, attributes: leaf.attributes }
}

/// What a descent for `iova` found.
#[inline(always)]
fn translate(format: Format, level: u8, shift: u32, raw: u64, iova: Iova) -> Option<Translation> {
    // It is no table, and nobody writes a reserved descriptor here.
    let leaf = (raw & 1 == 1).then(|| format.decode_leaf(shift, raw))?;
    Some(translation(level, shift, leaf, iova))
}

impl<P: Platform> Visit<'_, P> {
    /// What `iova` is translated to by tables of whatever size.
    #[inline(never)]
    fn translate(self, iova: Iova) -> Option<Translation> {
        let (table, offset) = (self.table, self.table.offset(iova));
        if !table.is_input(offset, 1) {
            return None;
        }
        let place = self.descend(offset)?;
        translate(table.format, place.level, place.shift, place.raw, iova)
    }
}

/// What is to be looked up.
#[derive(Clone, Copy)]
struct Lookup {
    iova: Iova,
}

impl<'t, P: Platform> Errand<'t, P> for Lookup {
    type Output = Option<Translation>;

    #[inline(always)]
    fn at(self, visit: Visit<'t, P>, place: QuickPlace<'t>) -> Option<Translation> {
        let format = Format { granule: Granule::K4, ..visit.table.format };
        translate(format, place.level, quick::shift(place.level), place.raw, self.iova)
    }

    #[inline(always)]
    fn elsewhere(self, visit: Visit<'t, P>) -> Option<Translation> {
        visit.translate(self.iova)
    }
}

impl<P: Platform> PageTable<P> {
    /// What `iova` is translated to, or `None` if it is not mapped.
    #[must_use]
    pub fn walk(&self, iova: Iova) -> Option<Translation> {
        self.visit().quickly(iova, Lookup { iova })
    }

    /// The descriptors that a walk for `iova` meets, for people to read.
    #[must_use]
    pub fn trace(&self, iova: Iova) -> Walk {
        let descriptors = [const { Cell::new(None) }; LAST_LEVEL as usize + 1];
        let meet = |place: &Place<'_>| {
            if let Some(slot) = descriptors.get(usize::from(place.level)) {
                slot.set(Some(place.raw));
            }
            true
        };
        let offset = self.offset(iova);
        if self.is_input(offset, 1)
            && let Some(last) = self.visit().descend_through(offset, meet)
        {
            meet(&last);
        }
        Walk { iova, format: self.format, descriptors: descriptors.map(|slot| slot.get()) }
    }
}
