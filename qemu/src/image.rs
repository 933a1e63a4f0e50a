//! A kernel ELF flattened to the raw image that a boot loader starts.
//!
//! QEMU starts an ELF file without telling it where the device tree is; an image with the Linux arm64 header gets its
//! address in `x0`, so that the kernel needs to know nothing of the board.

use object::elf::PT_LOAD;
use object::read::elf::{ElfFile64, FileHeader as _, ProgramHeader as _};
use object::{Endianness, elf};

/// The largest image that is accepted, in bytes: 2 MiB.
pub const LARGEST_BYTES: u64 = 2 << 20;

/// Offset of the magic number in the Linux arm64 image header, in bytes (Linux, Documentation/arch/arm64/booting).
const MAGIC_OFFSET: usize = 56;
const MAGIC: &[u8; 4] = b"ARM\x64";

/// Why an ELF file cannot become a kernel image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Not an ELF file, or a damaged one.
    #[error("not a readable ELF file: {0}")]
    Elf(#[from] object::read::Error),
    /// An ELF file of another machine.
    #[error("built for ELF machine {found}, but the kernel has to be AArch64 ({})", elf::EM_AARCH64.0)]
    Machine {
        /// The `e_machine` of the file.
        found: u16,
    },
    /// Nothing in it is loaded.
    #[error("it has no loadable segment; was it linked with linker.ld?")]
    Empty,
    /// The flattened image is too large.
    #[error("the image takes {bytes} bytes, and {LARGEST_BYTES} is the limit")]
    TooLarge {
        /// Size of the image in bytes.
        bytes: u64,
    },
    /// The first bytes are not the header that QEMU and boot loaders look for.
    #[error(
        "it does not begin with the Linux arm64 image header (no \"ARM\\x64\" at byte {MAGIC_OFFSET}), so it would be \
         started without a device tree; was it linked with linker.ld?"
    )]
    Header,
}

/// Lays the loadable segments of `elf` out as they lie in memory, from the lowest physical address on, zeros between.
///
/// # Errors
///
/// If `elf` is not an AArch64 ELF file, its image would exceed [`LARGEST_BYTES`], or it lacks the image header.
pub fn flatten(elf: &[u8]) -> Result<Vec<u8>, ImageError> {
    let file = ElfFile64::<Endianness>::parse(elf)?;
    let endian = file.endian();
    let machine = file.elf_header().e_machine(endian);
    if machine != elf::EM_AARCH64 {
        return Err(ImageError::Machine { found: machine.0 });
    }
    let loaded = || file.elf_program_headers().iter().filter(|header| header.p_type(endian) == PT_LOAD);
    let filled = || loaded().filter(|header| header.p_filesz(endian) > 0);
    let base = filled().map(|header| header.p_paddr(endian)).min().ok_or(ImageError::Empty)?;

    let mut image = Vec::new();
    for header in filled() {
        let offset = header.p_paddr(endian) - base;
        let end = offset.saturating_add(header.p_filesz(endian));
        if end > LARGEST_BYTES {
            return Err(ImageError::TooLarge { bytes: end });
        }
        let bytes = header.data(endian, elf).map_err(|()| ImageError::Empty)?;
        // Both fit into usize: they are at most LARGEST_BYTES.
        let (start, end) = (offset as usize, end as usize);
        image.resize(image.len().max(end), 0);
        image[start..end].copy_from_slice(bytes);
    }
    if image.get(MAGIC_OFFSET..MAGIC_OFFSET + MAGIC.len()) != Some(MAGIC.as_slice()) {
        return Err(ImageError::Header);
    }
    Ok(image)
}
