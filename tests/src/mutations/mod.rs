//! Ways to break the driver, each of which a test must notice: a table and how to apply it to the sources.
//!
//! The tables are in `table`, for one SMMU, and `iommu`, for the core above. What runs the tests against each broken driver is the example `mutations`; that they
//! still fit the sources is a test.

mod iommu;
mod table;

use std::path::{Path, PathBuf};
use std::{fs, io};

use thiserror::Error;

/// One way to break the driver.
#[derive(Clone, Copy, Debug)]
pub struct Mutation {
    /// What it is called, in lower case with hyphens.
    pub name: &'static str,
    /// What the broken driver does wrong, as a sentence without a full stop.
    pub breaks: &'static str,
    /// The source that changes, from the workspace's root.
    pub file: &'static str,
    /// What is replaced by what, one after the other. Each old text occurs exactly once at its turn.
    pub edits: &'static [(&'static str, &'static str)],
}

/// All of them.
pub fn mutations() -> impl Iterator<Item = &'static Mutation> {
    table::DRIVER.iter().chain(iommu::IOMMU)
}

/// Why a mutation does not apply.
#[derive(Debug, Error)]
pub enum MutationError {
    /// The source cannot be read.
    #[error("mutation `{name}`: {path}: {source}", path = path.display())]
    Unreadable {
        /// The mutation.
        name: &'static str,
        /// The source.
        path: PathBuf,
        /// What reading it said.
        source: io::Error,
    },
    /// The source has changed since the table was written.
    #[error(
        "mutation `{name}`: {file} has this text {found} times instead of once, so the entry in \
         tests/src/mutations/table.rs needs to follow the source: {old:?}"
    )]
    Outdated {
        /// The mutation.
        name: &'static str,
        /// The source, from the workspace's root.
        file: &'static str,
        /// The text to be replaced.
        old: &'static str,
        /// How often it occurs.
        found: usize,
    },
}

impl Mutation {
    /// The beginning of the mutation's row in a table, up to what caught it.
    #[must_use]
    pub fn row(&self) -> String {
        let Self { name, breaks, file, .. } = self;
        format!("| {name} | {breaks} | {file} | ")
    }

    /// The broken source, made from the one in the workspace at `root`. Nothing is written.
    ///
    /// # Errors
    ///
    /// [`MutationError::Unreadable`], and [`MutationError::Outdated`] if an old text does not occur exactly once.
    pub fn apply(&self, root: &Path) -> Result<String, MutationError> {
        let &Self { name, file, edits, .. } = self;
        let path = root.join(file);
        let source = fs::read_to_string(&path).map_err(|source| MutationError::Unreadable { name, path, source })?;
        edits.iter().try_fold(source, |text, &(old, new)| match text.matches(old).count() {
            1 => Ok(text.replacen(old, new, 1)),
            found => Err(MutationError::Outdated { name, file, old, found }),
        })
    }
}
