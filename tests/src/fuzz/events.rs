//! Event and page request records: any bits decode to what they say by the positions in IHI 0070, 7.3 and 8.1, print, and
//! are attributed without flooding anybody.

use std::sync::OnceLock;

use smmu::addr::{Iova, StreamId, SubstreamId};
use smmu::arch::event::{AccessDirection, Event, EventKind, Stage};
use smmu::arch::page_request::PageRequest;
use smmu::iommu::fwspec::{Fwspec, Phandle};
use smmu::iommu::{DeviceDescription, Iommus};

use crate::model::ModelPlatform;
use crate::model::bits::{field, flag};

const IOMMU: Phandle = Phandle::new(1);
/// The one stream that a device has.
const STREAM: u32 = 8;
/// Reports that may be due while the clock stands still, for one device or all strangers.
const DUE_MAX: u32 = 8;

/// A platform whose clock stands still.
fn platform() -> &'static ModelPlatform {
    static PLATFORM: OnceLock<&ModelPlatform> = OnceLock::new();
    PLATFORM.get_or_init(ModelPlatform::leaked)
}

/// Takes `data` for a run of event records, and each half of one for a page request.
///
/// # Panics
///
/// If a record is not decoded as the architecture has it.
pub fn run(data: &[u8]) {
    let iommus = Iommus::new(platform());
    let mut fwspec = Fwspec::new();
    fwspec.push(IOMMU, StreamId::new(STREAM));
    let device = iommus.add_device(DeviceDescription::new("disk", fwspec)).expect("the only device");
    let (mut due_of_device, mut due_of_strangers) = (0, 0);
    for record in data.chunks(Event::BYTES) {
        let mut words = [0; 4];
        for (word, bytes) in words.iter_mut().zip(record.chunks(8)) {
            *word = bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
        }
        let event = Event::decode(words);
        check_event(&words, &event);
        check_page_request([words[0], words[1]]);
        check_page_request([words[2], words[3]]);
        let report = iommus.attribute(IOMMU, event);
        assert_eq!(report.device().is_some(), field(&words, 63, 32) == u64::from(STREAM));
        assert!(report.to_string().contains(", "));
        *(if report.device().is_some() { &mut due_of_device } else { &mut due_of_strangers }) +=
            u32::from(report.is_due);
    }
    assert!(due_of_device <= DUE_MAX && due_of_strangers <= DUE_MAX, "{due_of_device} and {due_of_strangers} lines");
    assert!(device.faults() <= data.len().div_ceil(Event::BYTES) as u64);
}

fn check_event(words: &[u64; 4], event: &Event) {
    let bit = |position| flag(words, position);
    let number = field(words, 7, 0);
    assert_eq!(u64::from(event.stream().get()), field(words, 63, 32));
    let substream = match number {
        0x06 | 0x07 => None,
        0x08 => Some(field(words, 31, 12)),
        _ => bit(11).then(|| field(words, 31, 12)),
    };
    assert_eq!(event.source.substream.map(SubstreamId::get).map(u64::from), substream);
    assert!(event.to_string().starts_with("stream "), "{event}");
    match event.kind {
        EventKind::Unknown { number: found, words: kept } => {
            assert!(!matches!(number, 1..=0x0b | 0x10..=0x13 | 0x20 | 0x21 | 0x24 | 0x25), "{number:#x} has a meaning");
            assert_eq!((u64::from(found), kept), (number, *words));
        }
        EventKind::Translation(fault) => {
            assert!(matches!(number, 0x10..=0x13), "{number:#x} is no translation fault");
            assert_eq!(fault.stall.map(|stag| u64::from(stag.get())), bit(95).then(|| field(words, 79, 64)));
            assert_eq!(fault.access.direction == AccessDirection::Read, bit(99));
            assert_eq!((fault.access.instruction, fault.access.privileged), (bit(98), bit(97)));
            assert_eq!(fault.stage == Stage::Stage2, bit(103));
            assert_eq!(fault.input, Iova::new(words[2]));
            assert_eq!(fault.ipa.map(Iova::get), bit(103).then(|| field(words, 247, 204) << 12));
        }
        EventKind::Fetch(fault) => {
            assert!(matches!(number, 0x03 | 0x09 | 0x25), "{number:#x} is no failed fetch");
            assert_eq!(fault.address.get(), field(words, 247, 195) << 3);
        }
        EventKind::PageRequest { span, input, .. } => {
            assert_eq!((number, u64::from(span)), (0x24, field(words, 115, 108)));
            assert_eq!(input.get(), field(words, 191, 140) << 12);
        }
        _ => assert!(matches!(number, 1..=0x0b | 0x20 | 0x21), "{number:#x} has no such meaning"),
    }
}

fn check_page_request(words: [u64; 2]) {
    let request = PageRequest::decode(words);
    let bit = |position| flag(&words, position);
    assert_eq!(u64::from(request.stream.get()), field(&words, 31, 0));
    let substream = bit(63).then(|| field(&words, 51, 32));
    assert_eq!(request.substream.map(SubstreamId::get).map(u64::from), substream);
    assert_eq!(request.address.get(), field(&words, 127, 76) << 12);
    assert_eq!(u64::from(request.group), field(&words, 72, 64));
    assert_eq!((request.last, request.privileged), (bit(62), bit(58)));
    let access = request.access;
    assert_eq!((access.write, access.read, access.execute), (bit(61), bit(60), bit(59)));
    assert_eq!(request.is_stop_marker(), bit(63) && bit(62) && !bit(61) && !bit(60));
    assert!(!request.to_string().is_empty());
}
