//! SHA-256 of files.

use std::fs::File;
use std::io;
use std::path::Path;

use sha2::{Digest as _, Sha256};

/// Length in bytes of the file `path`, and its SHA-256 in lower-case hexadecimal digits.
pub(crate) fn of_file(path: &Path) -> io::Result<(u64, String)> {
    let mut writer = HashWriter(Sha256::new());
    let bytes = io::copy(&mut File::open(path)?, &mut writer)?;
    let digits = writer.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok((bytes, digits))
}

/// Hashes what is written to it.
struct HashWriter(Sha256);

impl io::Write for HashWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
