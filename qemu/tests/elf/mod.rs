//! ELF files made for tests.

/// A loadable segment: physical address, contents, size in memory.
pub(crate) struct Segment<'a> {
    pub(crate) address: u64,
    pub(crate) contents: &'a [u8],
    pub(crate) memory_bytes: u64,
}

/// An executable ELF64 file for `machine` with these segments.
pub(crate) fn elf(machine: u16, segments: &[Segment<'_>]) -> Vec<u8> {
    const HEADER_BYTES: u16 = 64;
    const PROGRAM_HEADER_BYTES: u16 = 56;
    let count = segments.len() as u16;
    let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    file.extend([2_u16, machine].iter().flat_map(|field| field.to_le_bytes()));
    file.extend(1_u32.to_le_bytes());
    file.extend([0_u64, HEADER_BYTES.into(), 0].iter().flat_map(|field| field.to_le_bytes()));
    file.extend(0_u32.to_le_bytes());
    let sizes = [HEADER_BYTES, PROGRAM_HEADER_BYTES, count, 64, 0, 0];
    file.extend(sizes.iter().flat_map(|field| field.to_le_bytes()));
    let mut offset = u64::from(HEADER_BYTES + count * PROGRAM_HEADER_BYTES);
    for segment in segments {
        let bytes = segment.contents.len() as u64;
        file.extend([1_u32, 5].iter().flat_map(|field| field.to_le_bytes()));
        // The virtual address is another one on purpose.
        let fields = [offset, segment.address | 0xffff_0000_0000_0000, segment.address, bytes, segment.memory_bytes, 8];
        file.extend(fields.iter().flat_map(|field| field.to_le_bytes()));
        offset += bytes;
    }
    file.extend(segments.iter().flat_map(|segment| segment.contents));
    file
}

/// What every kernel image begins with: 64 bytes with the magic number of the Linux arm64 image header.
pub(crate) fn image_header() -> Vec<u8> {
    let mut header = vec![0; 64];
    header[56..60].copy_from_slice(b"ARM\x64");
    header
}

/// The ELF machine number of AArch64.
pub(crate) const AARCH64: u16 = 183;
