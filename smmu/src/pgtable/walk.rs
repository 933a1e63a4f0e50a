//! Looking things up, as the SMMU would: nothing here writes.

use core::fmt;

use super::tables::load;
use super::{Access, MemoryType, PageTable};
use crate::addr::{Iova, PhysAddr};
use crate::arch::descriptor::{Descriptor, Format, LAST_LEVEL, Leaf};
use crate::platform::Platform;

/// What an address is translated to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// The output address for exactly the address that was asked for.
    pub physical: PhysAddr,
    /// The level of the leaf: 3 for a page.
    pub level: u8,
    /// Size of the page or block.
    pub leaf_bytes: u64,
    /// What the device may do, as hardware enforces it; `None` for nothing.
    pub access: Option<Access>,
    /// The memory type; `None` for one that this crate never writes.
    pub memory: Option<MemoryType>,
}

impl fmt::Display for Translation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (level {}, {:#x} bytes", self.physical, self.level, self.leaf_bytes)?;
        match self.access {
            Some(access) => write!(f, ", {access}")?,
            None => f.write_str(", no access")?,
        }
        match self.memory {
            Some(memory) => write!(f, ", {memory})"),
            None => f.write_str(", other memory type)"),
        }
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
                Descriptor::Leaf(leaf) => translation(self.format, level, leaf, self.iova).fmt(f)?,
            }
        }
        if self.descriptors == [None; LAST_LEVEL as usize + 1] { f.write_str(" not an input address") } else { Ok(()) }
    }
}

/// What `leaf`, found at `level`, makes of `iova`.
fn translation(format: Format, level: u8, leaf: Leaf, iova: Iova) -> Translation {
    let leaf_bytes = 1 << format.entry_log2_bytes(level);
    let physical = PhysAddr::new(leaf.physical.get() | (iova.get() & (leaf_bytes - 1)));
    Translation { physical, level, leaf_bytes, access: leaf.access, memory: leaf.memory }
}

impl<P: Platform> PageTable<P> {
    /// What `iova` is translated to, or `None` if it is not mapped.
    #[must_use]
    pub fn walk(&self, iova: Iova) -> Option<Translation> {
        let mut end = None;
        self.descend(iova, |level, raw| end = Some((level, raw)));
        let (level, raw) = end?;
        match self.format.decode(level, raw) {
            Descriptor::Leaf(leaf) => Some(translation(self.format, level, leaf, iova)),
            Descriptor::Invalid | Descriptor::Table(_) => None,
        }
    }

    /// The descriptors that a walk for `iova` meets, for people to read.
    #[must_use]
    pub fn trace(&self, iova: Iova) -> Walk {
        let mut descriptors = [None; LAST_LEVEL as usize + 1];
        self.descend(iova, |level, raw| {
            if let Some(slot) = descriptors.get_mut(usize::from(level)) {
                *slot = Some(raw);
            }
        });
        Walk { iova, format: self.format, descriptors }
    }

    /// Hands each descriptor on the way to `iova` to `meet`, with its level. None if it is not an input address.
    #[inline]
    fn descend(&self, iova: Iova, mut meet: impl FnMut(u8, u64)) {
        if !self.is_input(iova, 1) {
            return;
        }
        let visit = self.visit();
        let mut next = Some(visit.root());
        while let Some(table) = next {
            let Some(entry) = table.from(iova.get()).first() else { return };
            let raw = load(entry);
            meet(table.level, raw);
            next = visit.below(&table, raw);
        }
    }
}
