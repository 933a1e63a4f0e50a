//! Checks a flattened device tree before `fdt` reads it (Devicetree Specification 0.4, chapter 5).
//!
//! `fdt` takes the header's offsets at their word, and ends quietly at a token it does not expect or below the
//! sixteenth level: an SMMU could go unnoticed. After these checks it has the whole tree to show.

use core::ffi::CStr;

use super::error::{BlobProblem, FirmwareError};

const MAGIC: u32 = 0xd00d_feed;
/// The only version in use since 2007; version 16 lacks the size of the structure block.
const VERSION: u32 = 17;
const HEADER_BYTES: usize = 40;

const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROP: u32 = 3;
const NOP: u32 = 4;
const END: u32 = 9;

/// Levels of nodes, the root included; `fdt` remembers that many.
const MAX_LEVELS: usize = 16;
/// Length of a node's or a property's name in bytes; the specification allows 31.
const MAX_NAME_BYTES: usize = 255;

fn error(offset_bytes: usize, problem: BlobProblem) -> FirmwareError {
    FirmwareError::Blob { offset_bytes, problem }
}

/// Checks the header and structure of the device tree at the start of `buffer`, and returns it without what follows it
/// there. The `fdt` crate then reads all of it, and nothing beside it.
///
/// # Errors
///
/// [`FirmwareError::Blob`] names the byte at fault.
pub fn check_blob(buffer: &[u8]) -> Result<&[u8], FirmwareError> {
    let Some(&header) = buffer.as_chunks::<4>().0.first_chunk::<10>() else {
        return Err(error(0, BlobProblem::Cut { wanted_bytes: HEADER_BYTES, found_bytes: buffer.len() }));
    };
    let [
        magic,
        total_bytes,
        structure_at,
        strings_at,
        _,
        version,
        compatible_version,
        _,
        strings_bytes,
        structure_bytes,
    ] = header.map(u32::from_be_bytes);
    if magic != MAGIC {
        return Err(error(0, BlobProblem::Magic { found: magic }));
    }
    if version < VERSION || compatible_version > VERSION {
        return Err(error(20, BlobProblem::Version { version, compatible_version }));
    }
    let blob = buffer
        .get(..size(total_bytes))
        .ok_or_else(|| error(4, BlobProblem::Cut { wanted_bytes: size(total_bytes), found_bytes: buffer.len() }))?;
    let block = |field_at, name, start, length| {
        let outside = || error(field_at, BlobProblem::BlockOutside { name, start, length, total_bytes });
        let range = size(start)..size(start).checked_add(size(length)).ok_or_else(outside)?;
        blob.get(range).filter(|_| size(start) >= HEADER_BYTES).ok_or_else(outside)
    };
    let structure = block(8, "structure", structure_at, structure_bytes)?;
    let strings = block(12, "strings", strings_at, strings_bytes)?;
    if !structure_at.is_multiple_of(4) {
        return Err(error(8, BlobProblem::Misaligned { start: structure_at }));
    }
    Walk { rest: structure, offset_bytes: size(structure_at), strings }.run()?;
    Ok(blob)
}

/// A 32-bit size or offset. Where `usize` is narrower it saturates, and so ends outside every buffer.
fn size(value: u32) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// One pass over the structure block.
struct Walk<'a> {
    rest: &'a [u8],
    /// Of `rest`, from the start of the blob.
    offset_bytes: usize,
    strings: &'a [u8],
}

impl<'a> Walk<'a> {
    fn run(mut self) -> Result<(), FirmwareError> {
        let mut levels = 0_usize;
        let mut root_seen = false;
        // Properties come before child nodes; `fdt` relies on it.
        let mut properties_may_follow = false;
        loop {
            let token_at = self.offset_bytes;
            match self.word()? {
                BEGIN_NODE if levels > 0 || !root_seen => {
                    if levels == MAX_LEVELS {
                        return Err(error(token_at, BlobProblem::TooDeep { max_levels: MAX_LEVELS }));
                    }
                    self.node_name(levels == 0)?;
                    levels = levels.saturating_add(1);
                    root_seen = true;
                    properties_may_follow = true;
                }
                END_NODE if levels > 0 => {
                    levels = levels.saturating_sub(1);
                    properties_may_follow = false;
                }
                PROP if properties_may_follow => self.property()?,
                NOP => {}
                END if levels == 0 && root_seen => {
                    return if self.rest.is_empty() {
                        Ok(())
                    } else {
                        Err(error(self.offset_bytes, BlobProblem::Trailing { bytes: self.rest.len() }))
                    };
                }
                token => return Err(error(token_at, BlobProblem::Token { found: token })),
            }
        }
    }

    fn node_name(&mut self, is_root: bool) -> Result<(), FirmwareError> {
        let name_at = self.offset_bytes;
        let name = text(self.rest, name_at)?;
        if !is_root && (name.is_empty() || name.contains('/')) {
            return Err(error(name_at, BlobProblem::Name { max_bytes: MAX_NAME_BYTES }));
        }
        self.padded(name.len().saturating_add(1)).map(drop)
    }

    fn property(&mut self) -> Result<(), FirmwareError> {
        let value_bytes = size(self.word()?);
        let field_at = self.offset_bytes;
        let name_at = size(self.word()?);
        text(self.strings.get(name_at..).unwrap_or_default(), field_at)?;
        self.padded(value_bytes).map(drop)
    }

    fn word(&mut self) -> Result<u32, FirmwareError> {
        let cut = error(self.offset_bytes, BlobProblem::Cut { wanted_bytes: 4, found_bytes: self.rest.len() });
        self.padded(4)?.first_chunk::<4>().map(|&bytes| u32::from_be_bytes(bytes)).ok_or(cut)
    }

    /// Takes `wanted_bytes` and the padding that aligns what follows to 4 bytes.
    fn padded(&mut self, wanted_bytes: usize) -> Result<&'a [u8], FirmwareError> {
        let cut = || error(self.offset_bytes, BlobProblem::Cut { wanted_bytes, found_bytes: self.rest.len() });
        let padded_bytes = wanted_bytes.checked_next_multiple_of(4).ok_or_else(cut)?;
        let (taken, rest) = self.rest.split_at_checked(padded_bytes).ok_or_else(cut)?;
        self.rest = rest;
        self.offset_bytes = self.offset_bytes.saturating_add(padded_bytes);
        Ok(taken)
    }
}

/// The NUL-terminated name at the start of `bytes`; its length bounds the work for a tree full of names.
fn text(bytes: &[u8], offset_bytes: usize) -> Result<&str, FirmwareError> {
    let longest = bytes.get(..=MAX_NAME_BYTES).unwrap_or(bytes);
    CStr::from_bytes_until_nul(longest)
        .ok()
        .and_then(|name| name.to_str().ok())
        .ok_or_else(|| error(offset_bytes, BlobProblem::Name { max_bytes: MAX_NAME_BYTES }))
}
