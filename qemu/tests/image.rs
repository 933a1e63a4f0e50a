//! Kernel ELF files flattened to images.

mod elf;

use elf::{AARCH64, Segment, image_header};
use qemu::image::{ImageError, LARGEST_BYTES, flatten};

const BASE: u64 = 0x4020_0000;

fn segment(address: u64, contents: &[u8]) -> Segment<'_> {
    Segment { address, contents, memory_bytes: contents.len() as u64 }
}

#[test]
fn segments_lie_at_their_physical_addresses() {
    let text = image_header();
    let data = Segment { address: BASE + 0x60, contents: b"data", memory_bytes: 0x1000 };
    let bss = Segment { address: BASE + 0x2000, contents: b"", memory_bytes: 0x10_0000 };
    // The order in the file does not matter.
    let image = flatten(&elf::elf(AARCH64, &[data, bss, segment(BASE, &text)])).unwrap();
    assert_eq!(image[..64], text);
    assert_eq!(image[64..0x60], [0; 0x20]);
    assert_eq!(&image[0x60..], b"data");
}

#[test]
fn an_image_of_2_mib_passes_and_a_larger_one_does_not() {
    let text = image_header();
    let with_end = |end: u64| flatten(&elf::elf(AARCH64, &[segment(BASE, &text), segment(BASE + end - 1, b"x")]));
    assert_eq!(with_end(LARGEST_BYTES).unwrap().len() as u64, LARGEST_BYTES);
    let error = with_end(LARGEST_BYTES + 1).unwrap_err();
    assert_eq!(error.to_string(), "the image takes 2097153 bytes, and 2097152 is the limit");
    assert!(matches!(with_end(u64::MAX - BASE), Err(ImageError::TooLarge { .. })));
}

#[test]
fn what_is_no_kernel_is_refused() {
    let text = image_header();
    assert!(matches!(flatten(b"\x7fELF"), Err(ImageError::Elf(_))));
    assert!(matches!(flatten(&elf::elf(62, &[segment(BASE, &text)])), Err(ImageError::Machine { found: 62 })));
    assert!(matches!(flatten(&elf::elf(AARCH64, &[])), Err(ImageError::Empty)));
    assert!(matches!(flatten(&elf::elf(AARCH64, &[segment(BASE, &[0; 64])])), Err(ImageError::Header)));
    assert!(matches!(flatten(&elf::elf(AARCH64, &[segment(BASE, b"short")])), Err(ImageError::Header)));
}

#[test]
fn a_truncated_file_is_refused() {
    let whole = elf::elf(AARCH64, &[segment(BASE, &image_header())]);
    for length in 0..whole.len() {
        assert!(flatten(&whole[..length]).is_err(), "{length} bytes of {}", whole.len());
    }
}
