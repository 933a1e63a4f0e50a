//! What firmware says about one device: the IOMMUs it sits behind, and the StreamIDs it presents to each.

use alloc::vec::Vec;
use core::fmt;

use crate::addr::StreamId;

/// The number by which a device tree refers to a node; here, the name of an IOMMU instance.
///
/// Never 0 or `0xffff_ffff` in a tree: those stand for "none".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Phandle(u32);

impl Phandle {
    /// Wraps the raw number.
    #[must_use]
    pub const fn new(value: u32) -> Self {
        Self(value)
    }

    /// The raw number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Phandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// One StreamID that a device presents to one IOMMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FwspecEntry {
    /// The IOMMU instance.
    pub iommu: Phandle,
    /// The StreamID at that instance (IHI 0070, 3.2).
    pub stream_id: StreamId,
}

/// A StreamID that the IOMMU it is meant for cannot see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamIdTooLarge {
    /// The entry at fault.
    pub entry: FwspecEntry,
    /// The instance's `SMMU_IDR1.SIDSIZE`: the number of StreamID bits it has.
    pub sidsize: u32,
}

impl fmt::Display for StreamIdTooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FwspecEntry { iommu, stream_id } = self.entry;
        let sidsize = self.sidsize;
        write!(f, "StreamID {stream_id} does not fit the {sidsize} bits of SMMU_IDR1.SIDSIZE of IOMMU {iommu}; ")?;
        f.write_str("correct the device's firmware description")
    }
}

impl core::error::Error for StreamIdTooLarge {}

/// The IOMMUs and StreamIDs of one device, each pair once, in the order in which firmware named them.
///
/// Empty for a device that is not behind an IOMMU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fwspec {
    entries: Vec<FwspecEntry>,
}

impl Fwspec {
    /// A fwspec without entries.
    #[must_use]
    pub const fn new() -> Self {
        Self { entries: Vec::new() }
    }

    /// Adds a StreamID at an IOMMU. Returns whether it is new; one that is there already is not added again.
    pub fn push(&mut self, iommu: Phandle, stream_id: StreamId) -> bool {
        let entry = FwspecEntry { iommu, stream_id };
        let is_new = !self.contains(iommu, stream_id);
        if is_new {
            self.entries.push(entry);
        }
        is_new
    }

    /// All entries, in the order in which they were added.
    #[must_use]
    pub fn entries(&self) -> &[FwspecEntry] {
        &self.entries
    }

    /// Whether the device presents this StreamID to this IOMMU.
    #[must_use]
    pub fn contains(&self, iommu: Phandle, stream_id: StreamId) -> bool {
        self.entries.contains(&FwspecEntry { iommu, stream_id })
    }

    /// Whether the device is behind no IOMMU.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The IOMMU instances, each once, in the order of their first entry.
    pub fn iommus(&self) -> impl Iterator<Item = Phandle> + '_ {
        let named_before = |position, iommu| self.entries.iter().take(position).any(|earlier| earlier.iommu == iommu);
        self.entries
            .iter()
            .enumerate()
            .filter(move |&(position, entry)| !named_before(position, entry.iommu))
            .map(|(_, entry)| entry.iommu)
    }

    /// The StreamIDs at one instance.
    pub fn stream_ids(&self, iommu: Phandle) -> impl Iterator<Item = StreamId> + '_ {
        self.entries.iter().filter(move |entry| entry.iommu == iommu).map(|entry| entry.stream_id)
    }

    /// Checks the StreamIDs at one instance against its `SMMU_IDR1.SIDSIZE`, in bits (IHI 0070, 6.3.2).
    ///
    /// # Errors
    ///
    /// [`StreamIdTooLarge`] names the first that does not fit.
    pub fn check_stream_ids(&self, iommu: Phandle, sidsize: u32) -> Result<(), StreamIdTooLarge> {
        let too_large = |entry: &&FwspecEntry| entry.iommu == iommu && !stream_id_fits(entry.stream_id, sidsize);
        match self.entries.iter().find(too_large) {
            Some(&entry) => Err(StreamIdTooLarge { entry, sidsize }),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Fwspec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("no IOMMU");
        }
        for (position, iommu) in self.iommus().enumerate() {
            let separator = if position == 0 { "" } else { "; " };
            write!(f, "{separator}IOMMU {iommu}: StreamID")?;
            for (position, stream_id) in self.stream_ids(iommu).enumerate() {
                let separator = if position == 0 { " " } else { ", " };
                write!(f, "{separator}{stream_id}")?;
            }
        }
        Ok(())
    }
}

/// Whether a StreamID fits an instance with `sidsize` StreamID bits.
pub(crate) fn stream_id_fits(stream_id: StreamId, sidsize: u32) -> bool {
    u64::from(stream_id.get()) < 1_u64.checked_shl(sidsize).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    const FIRST: Phandle = Phandle::new(0x8004);
    const SECOND: Phandle = Phandle::new(0x8005);

    fn fwspec(entries: &[(Phandle, u32)]) -> Fwspec {
        let mut fwspec = Fwspec::new();
        for &(iommu, stream_id) in entries {
            fwspec.push(iommu, StreamId::new(stream_id));
        }
        fwspec
    }

    #[test]
    fn duplicates_are_folded_and_order_is_kept() {
        let mut fwspec = fwspec(&[(SECOND, 0x21), (FIRST, 0x21), (SECOND, 0x20)]);
        assert!(!fwspec.push(FIRST, StreamId::new(0x21)));
        assert_eq!(fwspec.entries().len(), 3);
        assert_eq!(fwspec.iommus().collect::<Vec<_>>(), [SECOND, FIRST]);
        assert_eq!(fwspec.stream_ids(SECOND).map(StreamId::get).collect::<Vec<_>>(), [0x21, 0x20]);
    }

    #[test]
    fn display_groups_by_instance() {
        let text = fwspec(&[(FIRST, 0x20), (SECOND, 0), (FIRST, 0x21)]).to_string();
        assert_eq!(text, "IOMMU 0x8004: StreamID 0x20, 0x21; IOMMU 0x8005: StreamID 0x0");
        assert_eq!(Fwspec::new().to_string(), "no IOMMU");
    }

    #[test]
    fn stream_ids_are_checked_against_sidsize() {
        let fwspec = fwspec(&[(FIRST, 0xffff), (SECOND, 0x1_0000)]);
        assert_eq!(fwspec.check_stream_ids(FIRST, 16), Ok(()));
        let error = fwspec.check_stream_ids(SECOND, 16).unwrap_err();
        assert_eq!((error.entry.stream_id, error.sidsize), (StreamId::new(0x1_0000), 16));
        assert!(error.to_string().contains("0x10000"));
        assert_eq!(fwspec.check_stream_ids(SECOND, 17), Ok(()));
    }

    #[test]
    fn the_widest_and_narrowest_sidsize() {
        assert!(stream_id_fits(StreamId::new(u32::MAX), 32));
        assert!(stream_id_fits(StreamId::new(u32::MAX), 64));
        assert!(stream_id_fits(StreamId::new(0), 0));
        assert!(!stream_id_fits(StreamId::new(1), 0));
    }
}
