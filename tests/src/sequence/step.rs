//! One step of a sequence, and how random ones are made up.
//!
//! Addresses come from a few places, so that steps get in each other's way: pages side by side, at the border of two tables
//! of each level, where blocks fit, and at the end of what a domain can map.

use proptest::prelude::*;
use smmu::pgtable::Access;

use super::flaw::Flaw;

/// How many pages of memory there are to map: room for two blocks of 2 MiB.
pub(super) const POOL_PAGES: u16 = 1024;
/// How many devices steps are made up for.
const DEVICES: u8 = 3;
/// Words of 4 bytes in a page.
const PAGE_WORDS: u16 = 1024;
/// Pages of a block.
pub(super) const BLOCK_PAGES: u16 = 512;

/// One step. Devices are named by an index, modulo how many there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Attaches a device to a new domain of its own; nothing if it is attached and its stream table entry is the driver's.
    Attach {
        /// The device.
        device: u8,
    },
    /// Detaches a device; nothing if it is not attached.
    Detach {
        /// The device.
        device: u8,
    },
    /// Moves a device to a new domain, while the one that it leaves stays, and what is cached of that: the new one has
    /// another ASID (at stage 2, another VMID). Nothing if the device is not attached.
    ChangeAsid {
        /// The device.
        device: u8,
    },
    /// Overwrites a field of the device's stream table entry, behind the driver's back, until the device is detached or
    /// attached anew. Nothing if it is not attached, or that was done already, or the flaw does not matter there.
    BreakEntry {
        /// The device.
        device: u8,
        /// What the entry has from then on.
        flaw: Flaw,
    },
    /// Maps pages; nothing if the device is not attached.
    Map {
        /// The device.
        device: u8,
        /// Where, as the device sees it.
        at: Spot,
        /// How many pages, 1 or more.
        pages: u16,
        /// The first page of the pool that they lead to. Where the pool ends, fewer pages are mapped.
        target: u16,
        /// What the device may do.
        access: Access,
    },
    /// Unmaps what one earlier step mapped.
    Unmap {
        /// The device.
        device: u8,
        /// Which of its mappings, modulo how many there are.
        mapping: u8,
    },
    /// Unmaps a range, whatever is mapped there.
    UnmapRange {
        /// The device.
        device: u8,
        /// The first page.
        at: Spot,
        /// How many pages, 1 or more.
        pages: u16,
    },
    /// Unmaps what one earlier step mapped and maps it anew: the same pages, with other permissions.
    Remap {
        /// The device.
        device: u8,
        /// Which of its mappings, modulo how many there are.
        mapping: u8,
        /// What the device may do from now on.
        access: Access,
    },
    /// The device writes 4 bytes.
    Write {
        /// The device.
        device: u8,
        /// Where.
        address: Address,
        /// Which of its words.
        index: u16,
    },
    /// The device reads 4 bytes.
    Read {
        /// The device.
        device: u8,
        /// Where.
        address: Address,
    },
}

/// A page, as a device sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spot {
    /// Around where.
    pub place: Place,
    /// How many pages after that.
    pub page: u16,
}

/// Places in a domain's address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the midst of a last-level table.
    Low,
    /// Four pages before the border of two last-level tables.
    TableBorder,
    /// Where blocks fit.
    Blocks,
    /// Four pages before the border of two tables of level 1.
    TopBorder,
    /// Four pages before the end of the input addresses.
    End,
}

/// An address to be accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// In what one earlier step mapped for the device, or at the place [`Place::Low`] if there is no such step.
    Mapped {
        /// Which of its mappings, modulo how many there are.
        mapping: u8,
        /// Which page of that, modulo how many there are.
        page: u16,
        /// Which word of the page.
        word: u16,
    },
    /// Where a device accessed memory before, or at the place [`Place::Low`] if none has. It may have changed since.
    Again {
        /// How many accesses ago.
        ago: u8,
    },
    /// Anywhere.
    At {
        /// Which page.
        spot: Spot,
        /// Which word of the page.
        word: u16,
    },
}

impl Place {
    /// The page, in a domain with input addresses of `input_bits`.
    pub(super) fn first_page(self, input_bits: u8) -> u64 {
        match self {
            Self::Low => 0x100,
            Self::TableBorder => (1 << 9) - 4,
            Self::Blocks => 1 << 18,
            Self::TopBorder => (1 << 27) - 4,
            Self::End => (1 << (input_bits - 12)) - 4,
        }
    }
}

/// Sequences of `count` steps. They begin with all devices attached, and shrink by losing steps.
pub fn steps(count: usize) -> impl Strategy<Value = Vec<Step>> {
    // All true at first. They come first, so that what does not matter is left out before anything else is simplified.
    let is_kept = prop::collection::vec(prop::bool::weighted(1.0), count);
    let attach: Vec<_> = (0..DEVICES).take(count).map(|device| Just(Step::Attach { device })).collect();
    let rest = prop::collection::vec(step(), count.saturating_sub(DEVICES.into()));
    (is_kept, attach, rest)
        .prop_map(|(is_kept, attach, rest)| kept(is_kept.into_iter().zip(attach.into_iter().chain(rest))))
}

/// The steps that are kept. Those that go back to an earlier access still do when others in between are left out.
fn kept(all: impl Iterator<Item = (bool, Step)>) -> Vec<Step> {
    let (mut accesses, mut kept) = (Vec::new(), Vec::new());
    for (is_kept, mut step) in all {
        let address = match &mut step {
            Step::Write { address, .. } | Step::Read { address, .. } => Some(address),
            _ => None,
        };
        if let Some(address) = address {
            if let Address::Again { ago } = address {
                let since = accesses.iter().rev().take(usize::from(*ago)).filter(|&&is_kept| is_kept);
                *ago = since.count() as u8;
            }
            accesses.push(is_kept);
        }
        if is_kept {
            kept.push(step);
        }
    }
    kept
}

fn step() -> impl Strategy<Value = Step> {
    // Most of it concerns two devices: then steps get in each other's way.
    let device = prop_oneof![5 => Just(0), 3 => Just(1), 1 => 0..DEVICES];
    prop_oneof![
        4 => device.clone().prop_map(|device| Step::Attach { device }),
        1 => device.clone().prop_map(|device| Step::Detach { device }),
        2 => device.clone().prop_map(|device| Step::ChangeAsid { device }),
        2 => (device.clone(), prop::sample::select(&Flaw::ALL[..]))
            .prop_map(|(device, flaw)| Step::BreakEntry { device, flaw }),
        12 => (device.clone(), spot(), pages(), target(), access())
            .prop_map(|(device, at, pages, target, access)| Step::Map { device, at, pages, target, access }),
        3 => (device.clone(), any::<u8>()).prop_map(|(device, mapping)| Step::Unmap { device, mapping }),
        2 => (device.clone(), spot(), pages()).prop_map(|(device, at, pages)| Step::UnmapRange { device, at, pages }),
        3 => (device.clone(), any::<u8>(), access())
            .prop_map(|(device, mapping, access)| Step::Remap { device, mapping, access }),
        16 => (device.clone(), address(), 0..256u16)
            .prop_map(|(device, address, index)| Step::Write { device, address, index }),
        12 => (device, address()).prop_map(|(device, address)| Step::Read { device, address }),
    ]
}

fn spot() -> impl Strategy<Value = Spot> {
    let place = prop_oneof![
        4 => Just(Place::Low),
        2 => Just(Place::TableBorder),
        3 => Just(Place::Blocks),
        1 => Just(Place::TopBorder),
        1 => Just(Place::End),
    ];
    let page = prop_oneof![4 => Just(0), 8 => 0..8u16, 1 => Just(BLOCK_PAGES), 1 => BLOCK_PAGES - 2..BLOCK_PAGES + 2];
    (place, page).prop_map(|(place, page)| Spot { place, page })
}

fn pages() -> impl Strategy<Value = u16> {
    prop_oneof![8 => 1..4u16, 2 => 4..20u16, 2 => Just(BLOCK_PAGES), 1 => BLOCK_PAGES - 2..=POOL_PAGES]
}

fn target() -> impl Strategy<Value = u16> {
    prop_oneof![2 => Just(0), 6 => 0..16u16, 2 => Just(BLOCK_PAGES), 1 => 0..POOL_PAGES]
}

fn access() -> impl Strategy<Value = Access> {
    prop_oneof![3 => Just(Access::ReadWrite), 2 => Just(Access::Read), 1 => Just(Access::Write)]
}

fn address() -> impl Strategy<Value = Address> {
    let word = 0..PAGE_WORDS;
    let page = prop_oneof![3 => 0..3u16, 1 => any::<u16>()];
    prop_oneof![
        6 => (any::<u8>(), page, word.clone())
            .prop_map(|(mapping, page, word)| Address::Mapped { mapping, page, word }),
        3 => (0..6u8).prop_map(|ago| Address::Again { ago }),
        1 => (spot(), word).prop_map(|(spot, word)| Address::At { spot, word }),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_goes_back_to_the_same_access_when_others_are_left_out() {
        let read = |address| Step::Read { device: 0, address };
        let mapped = |mapping| read(Address::Mapped { mapping, page: 0, word: 0 });
        let again = |ago| read(Address::Again { ago });
        let attach = Step::Attach { device: 0 };
        let all = [(true, mapped(1)), (false, mapped(2)), (true, attach), (true, mapped(3)), (false, attach)];
        let steps = |ago| kept(all.into_iter().chain([(true, again(ago))]));
        assert_eq!(steps(2), [mapped(1), attach, mapped(3), again(1)]);
        assert_eq!(steps(0), [mapped(1), attach, mapped(3), again(0)]);
        // That one is left out itself: the one before it.
        assert_eq!(steps(1), [mapped(1), attach, mapped(3), again(1)]);
    }
}
