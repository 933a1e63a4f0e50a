//! The kernel's command line, `/chosen/bootargs`: words of the form `key=value`.

use crate::devicetree::{DeviceTree, DeviceTreeError};

/// The command line.
#[derive(Clone, Copy, Debug, Default)]
pub struct Arguments(&'static str);

impl Arguments {
    /// Reads the command line from the tree; it is empty where there is none.
    ///
    /// # Errors
    ///
    /// [`DeviceTreeError`] if the tree is damaged.
    pub fn read(tree: &DeviceTree) -> Result<Self, DeviceTreeError> {
        let Some(chosen) = tree.find_node("/chosen")? else { return Ok(Self::default()) };
        let bootargs = chosen.raw_property("bootargs")?;
        let text = bootargs.and_then(|property| core::str::from_utf8(property.value).ok()).unwrap_or_default();
        Ok(Self(text.trim_end_matches('\0')))
    }

    /// The value of `key`, or an empty string for a word without `=`; the last one counts.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&'static str> {
        self.values(key).last()
    }

    /// Whether `key` is given with this value, among others perhaps.
    #[must_use]
    pub fn has(&self, key: &str, value: &str) -> bool {
        self.values(key).any(|given| given == value)
    }

    fn values(&self, key: &str) -> impl Iterator<Item = &'static str> {
        let words = self.0.split_ascii_whitespace().map(|word| word.split_once('=').unwrap_or((word, "")));
        words.filter(move |(name, _)| *name == key).map(|(_, value)| value)
    }
}
