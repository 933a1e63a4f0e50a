//! Reading a property's value: cells and strings, each with an error that says where it is wrong.

use alloc::vec::Vec;

use super::MAX_ENTRIES;
use super::error::{Place, PropertyError, PropertyProblem};
use super::tree::Node;

const CELL_BYTES: usize = 4;

/// A property of a node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Property<'t> {
    pub(super) node: Node<'t>,
    pub(super) name: &'static str,
    pub(super) value: &'t [u8],
}

impl<'t> Property<'t> {
    pub(super) fn place(self, offset_bytes: usize) -> Place {
        Place { node: self.node.path(), property: self.name, offset_bytes }
    }

    pub(super) fn error(self, offset_bytes: usize, problem: PropertyProblem) -> PropertyError {
        PropertyError { place: self.place(offset_bytes), problem }
    }

    pub(super) fn cells(self) -> Cells<'t> {
        Cells { property: self, rest: self.value }
    }

    /// The cells of a list whose entries have `entry_cells` cells each; at least one entry, all of them whole.
    pub(super) fn entries(self, entry_cells: u32) -> Result<Cells<'t>, PropertyError> {
        let length_bytes = self.value.len();
        let entry_bytes = bytes(entry_cells);
        if length_bytes == 0 || !length_bytes.is_multiple_of(entry_bytes) {
            return Err(self.error(0, PropertyProblem::BadLength { length_bytes, entry_bytes }));
        }
        if length_bytes > entry_bytes.saturating_mul(MAX_ENTRIES) {
            return Err(self.too_many_entries(entry_bytes.saturating_mul(MAX_ENTRIES)));
        }
        Ok(self.cells())
    }

    pub(super) fn too_many_entries(self, offset_bytes: usize) -> PropertyError {
        self.error(offset_bytes, PropertyProblem::TooManyEntries { limit: MAX_ENTRIES })
    }

    /// Whether any of its cells has this value.
    pub(super) fn holds_cell(self, value: u32) -> bool {
        self.value.as_chunks().0.iter().any(|&cell| u32::from_be_bytes(cell) == value)
    }

    /// The only cell of the property.
    pub(super) fn single(self) -> Result<u32, PropertyError> {
        let mut cells = self.cells();
        let value = cells.next()?;
        if !cells.is_empty() {
            let problem = PropertyProblem::TooLong { length_bytes: self.value.len(), expected_bytes: CELL_BYTES };
            return Err(self.error(CELL_BYTES, problem));
        }
        Ok(value)
    }

    /// A cell count between `smallest` and `largest`.
    pub(super) fn cell_count(self, smallest: u32, largest: u32) -> Result<u32, PropertyError> {
        let found = self.single()?;
        if (smallest..=largest).contains(&found) {
            Ok(found)
        } else {
            Err(self.error(0, PropertyProblem::UnsupportedCells { found, smallest, largest }))
        }
    }

    /// The strings of a list, each with its offset in bytes.
    pub(super) fn strings(self) -> Result<impl Iterator<Item = (usize, &'t str)>, PropertyError> {
        let text = core::str::from_utf8(self.value).ok().and_then(|text| text.strip_suffix('\0'));
        let text = text.ok_or_else(|| self.error(0, PropertyProblem::NotText))?;
        Ok(text.split('\0').scan(0_usize, |next, string| {
            let offset_bytes = *next;
            *next = offset_bytes.saturating_add(string.len()).saturating_add(1);
            Some((offset_bytes, string))
        }))
    }
}

/// What is left to read of a property of big-endian 32-bit cells.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cells<'t> {
    property: Property<'t>,
    rest: &'t [u8],
}

impl Cells<'_> {
    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Bytes read so far.
    pub(super) fn offset_bytes(&self) -> usize {
        self.property.value.len().saturating_sub(self.rest.len())
    }

    /// The next cell.
    pub(super) fn next(&mut self) -> Result<u32, PropertyError> {
        let Some((&cell, rest)) = self.rest.split_first_chunk() else {
            let problem = PropertyProblem::Truncated { left_bytes: self.rest.len() };
            return Err(self.property.error(self.offset_bytes(), problem));
        };
        self.rest = rest;
        Ok(u32::from_be_bytes(cell))
    }

    /// The next `count` cells.
    pub(super) fn take(&mut self, count: u32) -> Result<Vec<u32>, PropertyError> {
        (0..count).map(|_| self.next()).collect()
    }

    /// The number in the next `count` cells, one or two, the more significant first.
    pub(super) fn number(&mut self, count: u32) -> Result<u64, PropertyError> {
        (0..count).try_fold(0, |number, _| Ok(number << 32 | u64::from(self.next()?)))
    }
}

fn bytes(cells: u32) -> usize {
    usize::try_from(cells).unwrap_or(usize::MAX).saturating_mul(CELL_BYTES)
}
