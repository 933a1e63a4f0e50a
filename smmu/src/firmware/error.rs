//! What can be wrong with a device tree. What is merely odd is in [`warning`](super::warning).

use alloc::string::String;
use core::fmt;

use crate::addr::PhysAddr;
use crate::iommu::fwspec::Phandle;

/// Where in a device tree something is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Full path of the node.
    pub node: String,
    /// Name of the property.
    pub property: &'static str,
    /// Bytes from the start of the property's value.
    pub offset_bytes: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: property `{}`, byte {}", self.node, self.property, self.offset_bytes)
    }
}

/// A device tree, or a part of it, that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FirmwareError {
    /// The blob as a whole is damaged: nothing in it can be trusted.
    Blob {
        /// Bytes from the start of the blob.
        offset_bytes: usize,
        /// What is wrong there.
        problem: BlobProblem,
    },
    /// `fdt` cannot read what passed the checks before it.
    Reader {
        /// What `fdt` says about it.
        message: String,
    },
    /// No node has the path that was asked for.
    NoSuchNode {
        /// The path.
        path: String,
    },
    /// A property is wrong.
    Property(PropertyError),
}

impl fmt::Display for FirmwareError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blob { offset_bytes, problem } => {
                write!(f, "device tree blob, byte {offset_bytes:#x}: {problem}; load an undamaged device tree")
            }
            Self::Reader { message } => {
                write!(f, "device tree blob: {message}; load an undamaged device tree")
            }
            Self::NoSuchNode { path } => write!(f, "the device tree has no node {path}; give a full path from /"),
            Self::Property(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for FirmwareError {}

impl From<PropertyError> for FirmwareError {
    fn from(error: PropertyError) -> Self {
        Self::Property(error)
    }
}

/// A property that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PropertyError {
    /// Which one.
    pub place: Place,
    /// What is wrong with it.
    pub problem: PropertyProblem,
}

impl fmt::Display for PropertyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.problem)
    }
}

impl core::error::Error for PropertyError {}

/// Damage to the blob (Devicetree Specification 0.4, chapter 5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlobProblem {
    /// It ends too early.
    Cut {
        /// Bytes that should be there.
        wanted_bytes: usize,
        /// Bytes that are there.
        found_bytes: usize,
    },
    /// It does not begin with the magic number.
    Magic {
        /// What it begins with.
        found: u32,
    },
    /// It is of a version that is not version 17.
    Version {
        /// `version` of its header.
        version: u32,
        /// `last_comp_version` of its header.
        compatible_version: u32,
    },
    /// The header puts a block outside the blob, or into the header itself.
    BlockOutside {
        /// Which block: structure or strings.
        name: &'static str,
        /// Its offset in bytes.
        start: u32,
        /// Its length in bytes.
        length: u32,
        /// The blob's `totalsize` in bytes.
        total_bytes: u32,
    },
    /// The structure block is not aligned to 4 bytes.
    Misaligned {
        /// Its offset in bytes.
        start: u32,
    },
    /// A token that is unknown or may not stand here.
    Token {
        /// The token.
        found: u32,
    },
    /// More levels of nodes than are read.
    TooDeep {
        /// The levels that are read, the root included.
        max_levels: usize,
    },
    /// A name that is empty, too long, not terminated, not UTF-8, or holds a `/`.
    Name {
        /// The longest that is read, in bytes.
        max_bytes: usize,
    },
    /// The structure block goes on after its end token.
    Trailing {
        /// By that many bytes.
        bytes: usize,
    },
}

impl fmt::Display for BlobProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut { wanted_bytes, found_bytes } => {
                write!(f, "{wanted_bytes} bytes expected, but it ends after {found_bytes}")
            }
            Self::Magic { found } => write!(f, "magic number 0xd00dfeed expected, found {found:#010x}"),
            Self::Version { version, compatible_version } => {
                write!(f, "version 17 expected, found {version} (compatible with {compatible_version})")
            }
            Self::BlockOutside { name, start, length, total_bytes } => {
                write!(f, "the {name} block ({length:#x} bytes at {start:#x}) lies outside the {total_bytes:#x} bytes")
            }
            Self::Misaligned { start } => write!(f, "the structure block at {start:#x} is not aligned to 4 bytes"),
            Self::Token { found } => write!(f, "unexpected token {found:#x}"),
            Self::TooDeep { max_levels } => write!(f, "more than {max_levels} levels of nodes"),
            Self::Name { max_bytes } => {
                write!(f, "a name is empty, longer than {max_bytes} bytes, not terminated, not UTF-8, or holds a slash")
            }
            Self::Trailing { bytes } => write!(f, "{bytes} bytes follow the end token"),
        }
    }
}

/// What is wrong with a property.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PropertyProblem {
    /// It is not there, and has to be.
    Missing,
    /// Its length is zero or not a multiple of its entries' length.
    BadLength {
        /// Length of the property in bytes.
        length_bytes: usize,
        /// Length of an entry in bytes.
        entry_bytes: usize,
    },
    /// It ends inside an entry.
    Truncated {
        /// Bytes that are left, where the next cell of 4 should be.
        left_bytes: usize,
    },
    /// It is longer than its type.
    TooLong {
        /// Length of the property in bytes.
        length_bytes: usize,
        /// Length of its type in bytes.
        expected_bytes: usize,
    },
    /// It is not a list of terminated UTF-8 strings.
    NotText,
    /// It has more entries than are read, so that the work stays bounded.
    TooManyEntries {
        /// The most that are read.
        limit: usize,
    },
    /// A cell count that is not supported here.
    UnsupportedCells {
        /// The count.
        found: u32,
        /// The smallest that is.
        smallest: u32,
        /// The largest that is.
        largest: u32,
    },
    /// A phandle of 0 or `0xffff_ffff`, which names no node.
    NullPhandle {
        /// Its value.
        value: u32,
    },
    /// No node has this phandle.
    DanglingPhandle {
        /// The phandle.
        phandle: Phandle,
    },
    /// More than one node has this phandle.
    AmbiguousPhandle {
        /// The phandle.
        phandle: Phandle,
        /// Path of the first of them.
        first: String,
        /// Path of the second.
        second: String,
    },
    /// The phandle's node is not an IOMMU: it lacks `#iommu-cells`.
    NotAnIommu {
        /// The phandle.
        phandle: Phandle,
        /// Path of its node.
        target: String,
    },
    /// The phandle's node is no interrupt controller: it lacks `#interrupt-cells`.
    NotAnInterruptController {
        /// The phandle.
        phandle: Phandle,
        /// Path of its node.
        target: String,
    },
    /// The IOMMU's `status` disables it, or a bus above it: the device has no IOMMU.
    IommuDisabled {
        /// The IOMMU's phandle.
        phandle: Phandle,
        /// Path of its node.
        target: String,
    },
    /// The register window is smaller than an SMMU's.
    WindowTooSmall {
        /// Its size in bytes.
        size_bytes: u64,
        /// The least that is accepted, in bytes.
        expected_bytes: u64,
    },
    /// An address range runs past the end of the 64-bit space.
    AddressOverflow {
        /// Its start.
        address: u64,
        /// Its size in bytes.
        size_bytes: u64,
    },
    /// No entry of a bus' `ranges` covers the whole register window.
    Untranslatable {
        /// Start of the window on that bus.
        address: u64,
        /// Its size in bytes.
        size_bytes: u64,
    },
    /// The register window overlaps another SMMU's.
    WindowTaken {
        /// Start of the window.
        base: PhysAddr,
        /// Path of the other SMMU.
        other: String,
    },
    /// A region of addresses overlaps another.
    RegionsOverlap {
        /// Where it starts.
        address: u64,
        /// Where the other starts.
        other: u64,
    },
    /// `iommu-map-mask` clears bits of a tuple's rid-base, which could then never match as written.
    BaseUnderMask {
        /// The tuple's rid-base.
        rid_base: u32,
        /// The mask.
        mask: u32,
    },
    /// A tuple's StreamIDs run past 32 bits.
    StreamIdOverflow {
        /// The tuple's iommu-base.
        iommu_base: u32,
        /// Its length, in requester IDs, as far as those exist.
        length: u32,
    },
    /// A tuple yields StreamIDs that its IOMMU does not have.
    StreamIdTooLarge {
        /// The largest that it yields.
        stream_id: u64,
        /// The IOMMU's phandle.
        iommu: Phandle,
        /// That IOMMU's `SMMU_IDR1.SIDSIZE`, in bits.
        sidsize: u32,
    },
}

impl fmt::Display for PropertyProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("is missing; add it"),
            Self::BadLength { length_bytes, entry_bytes } => write!(
                f,
                "its length of {length_bytes} bytes is not a positive multiple of {entry_bytes}; write whole entries"
            ),
            Self::Truncated { left_bytes } => {
                write!(f, "a cell of 4 bytes expected, {left_bytes} left; complete the entry")
            }
            Self::TooLong { length_bytes, expected_bytes } => {
                write!(f, "{expected_bytes} bytes expected, found {length_bytes}; write a single value")
            }
            Self::NotText => f.write_str("is not a list of terminated UTF-8 strings; write it as strings"),
            Self::TooManyEntries { limit } => write!(f, "has more than {limit} entries; merge some"),
            Self::UnsupportedCells { found, smallest, largest } if smallest == largest => {
                write!(f, "{found} cells are not supported; {smallest} expected")
            }
            Self::UnsupportedCells { found, smallest, largest } => {
                write!(f, "{found} cells are not supported; {smallest} to {largest} expected")
            }
            Self::NullPhandle { value } => write!(f, "phandle {value:#x} names no node; name an existing one"),
            Self::DanglingPhandle { phandle } => {
                write!(f, "no node has phandle {phandle}; add the node or correct the phandle")
            }
            Self::AmbiguousPhandle { phandle, first, second } => {
                write!(f, "phandle {phandle} belongs to both {first} and {second}; give each its own")
            }
            Self::NotAnIommu { phandle, target } => {
                write!(f, "phandle {phandle} is {target}, which is no IOMMU: it has no `#iommu-cells`; name an IOMMU")
            }
            Self::NotAnInterruptController { phandle, target } => {
                write!(
                    f,
                    "phandle {phandle} is {target}, which has no `#interrupt-cells`; name an interrupt controller"
                )
            }
            Self::IommuDisabled { phandle, target } => {
                write!(f, "IOMMU {target} (phandle {phandle}) is disabled; enable it, or remove this reference")
            }
            Self::WindowTooSmall { size_bytes, expected_bytes } => {
                write!(
                    f,
                    "the window is {size_bytes:#x} bytes, but an SMMUv3 has at least {expected_bytes:#x}; enlarge it"
                )
            }
            Self::AddressOverflow { address, size_bytes } => {
                write!(
                    f,
                    "{size_bytes:#x} bytes from {address:#x} run past the 64-bit address space; correct the range"
                )
            }
            Self::Untranslatable { address, size_bytes } => {
                write!(f, "no entry covers the {size_bytes:#x} bytes from {address:#x}; add one")
            }
            Self::WindowTaken { base, other } => {
                write!(f, "the window at {base} overlaps that of {other}; give each SMMU its own")
            }
            Self::RegionsOverlap { address, other } => {
                write!(f, "the region at {address:#x} overlaps the one at {other:#x}; keep them apart")
            }
            Self::BaseUnderMask { rid_base, mask } => {
                write!(
                    f,
                    "rid-base {rid_base:#x} has bits outside `iommu-map-mask` {mask:#x}; clear them or widen the mask"
                )
            }
            Self::StreamIdOverflow { iommu_base, length } => {
                write!(f, "{length:#x} StreamIDs from {iommu_base:#x} run past 32 bits; correct iommu-base or length")
            }
            Self::StreamIdTooLarge { stream_id, iommu, sidsize } => write!(
                f,
                "StreamID {stream_id:#x} does not fit the {sidsize} bits of SMMU_IDR1.SIDSIZE of IOMMU {iommu}; \
                 correct iommu-base or length"
            ),
        }
    }
}
