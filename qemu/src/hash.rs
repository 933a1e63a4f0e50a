//! Hashes of files.

use std::fs::File;
use std::io;
use std::path::Path;

use sha2::Digest;

/// Length in bytes of the file `path`, and its hash in lower-case hexadecimal digits.
pub(crate) fn of_file<D: Digest>(path: &Path) -> io::Result<(u64, String)> {
    let mut writer = HashWriter(D::new());
    let bytes = io::copy(&mut File::open(path)?, &mut writer)?;
    let digits = writer.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok((bytes, digits))
}

/// Hashes what is written to it.
struct HashWriter<D>(D);

impl<D: Digest> io::Write for HashWriter<D> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
