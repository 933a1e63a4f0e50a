//! What hardware may reach, for all that the driver was told: what it wrote leads there, or did until something that the
//! hardware has not yet said to have carried out.
//!
//! Read from memory and commands by the positions in IHI 0070, 4 and 5, and the Arm ARM, D8.3.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::atomic::Ordering;

use super::super::platform::Memory;
use super::STREAMS;
use super::registers::{CMDQ_BASE, EVENTQ_BASE, PRIQ_BASE, QUEUE_ADDRESS, STRTAB_BASE, STRTAB_BASE_CFG};

const SMMUEN: u32 = 1;
const PRIQEN: u32 = 1 << 1;
const EVENTQEN: u32 = 1 << 2;
const CMDQEN: u32 = 1 << 3;
/// The bits of CR0 that make hardware reach memory.
const ENABLES: u32 = SMMUEN | PRIQEN | EVENTQEN | CMDQEN;

/// What makes the hardware forget something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Forgotten {
    /// The queues and stream tables that registers lead to: by switching them off.
    Off(u32),
    /// Context descriptors: by an invalidation of configuration.
    Configuration,
    /// Translation tables and what they lead to: by an invalidation of translations.
    Translations,
}

/// A range that hardware reaches, or reached.
#[derive(Clone, Copy, Debug)]
struct Reached {
    end: u64,
    forgotten: Forgotten,
    /// How many commands were published when nothing led there any more.
    since: Option<u64>,
}

/// What the driver was told.
#[derive(Clone, Copy, Debug)]
pub(super) enum Told {
    /// A value of CR0ACK.
    Enabled(u32),
    /// A value of CMDQ_CONS.
    Consumed(u32),
    /// That the command at the last CMDQ_CONS was refused, which the driver has acknowledged.
    Refused,
}

/// The record.
#[derive(Default)]
pub(super) struct Reach {
    programmed: BTreeMap<usize, u32>,
    /// CR0 as written last.
    cr0: u32,
    /// What may be enabled.
    enabled: u32,
    published: u64,
    consumer: u32,
    /// Positions of the invalidations that are not said to be carried out yet.
    invalidations: BTreeSet<(u64, Forgotten)>,
    reached: BTreeMap<u64, Reached>,
}

impl Reach {
    /// Takes note of a register write.
    pub(super) fn program(&mut self, offset: usize, value: u32) {
        if (STRTAB_BASE..=PRIQ_BASE + 4).contains(&offset) {
            self.programmed.insert(offset, value);
        }
    }

    /// CR0 is written: what is set may be in force from now on, what is cleared is until CR0ACK says otherwise.
    pub(super) fn enable(&mut self, memory: &Memory, cr0: u32) {
        self.cr0 = cr0 & ENABLES;
        self.enabled |= self.cr0;
        self.look(memory);
    }

    /// CMDQ_PROD is written.
    pub(super) fn publish(&mut self, memory: &Memory, producer: u32) {
        let base = self.register64(CMDQ_BASE);
        let mask = self.index_mask();
        while self.enabled & CMDQEN != 0 && self.published & mask != u64::from(producer) & mask {
            let slot = (base & QUEUE_ADDRESS) + (self.published & mask >> 1) * 16;
            let forgotten = match memory.read(slot) & 0xff {
                0x03..=0x06 => Some(Forgotten::Configuration),
                0x10..=0x13 | 0x28 | 0x2a | 0x30 => Some(Forgotten::Translations),
                _ => None,
            };
            self.invalidations.extend(forgotten.map(|forgotten| (self.published, forgotten)));
            self.published += 1;
        }
    }

    /// The driver has read a register, or acknowledged an error.
    pub(super) fn told(&mut self, told: Told) {
        match told {
            Told::Enabled(value) => {
                // Each field changes by itself, when both registers show it.
                self.enabled &= self.cr0 | value;
                if self.enabled & CMDQEN == 0 {
                    // What was not carried out by now never will be.
                    self.invalidations.clear();
                }
                let enabled = self.enabled;
                self.reached.retain(|_, reached| match reached.forgotten {
                    Forgotten::Off(by) => by & enabled != 0,
                    Forgotten::Configuration | Forgotten::Translations => SMMUEN & enabled != 0,
                });
            }
            Told::Consumed(value) => {
                self.consumer = value;
                let mask = self.index_mask();
                if u64::from(value) & mask == self.published & mask {
                    self.forget();
                }
            }
            Told::Refused => {
                let (mask, consumer) = (self.index_mask(), u64::from(self.consumer));
                let refused = |&(position, _): &(u64, _)| position & mask == consumer & mask;
                self.invalidations.retain(|invalidation| !refused(invalidation));
            }
        }
    }

    /// Everything published is said to be carried out.
    fn forget(&mut self) {
        let invalidations = std::mem::take(&mut self.invalidations);
        let latest = |by| invalidations.iter().filter(|(_, kind)| *kind == by).map(|(position, _)| *position).max();
        self.reached.retain(|_, reached| {
            let since = reached.since.unwrap_or(u64::MAX);
            latest(reached.forgotten).is_none_or(|position| position < since)
        });
    }

    /// Why a block is in reach, if it is.
    pub(super) fn holds(&self, block: &Range<u64>) -> Option<String> {
        let found = self.reached.iter().find(|(start, reached)| **start < block.end && block.start < reached.end);
        found.map(|(start, reached)| {
            format!("{block:x?} was freed, but hardware may reach {start:#x}: {reached:x?}, CR0 {:#x}", self.enabled)
        })
    }

    /// Follows everything from the registers on, as hardware may have done by now.
    pub(super) fn look(&mut self, memory: &Memory) {
        let mut found = BTreeMap::new();
        for (enable, offset, entry_bytes) in
            [(CMDQEN, CMDQ_BASE, 16), (EVENTQEN, EVENTQ_BASE, 32), (PRIQEN, PRIQ_BASE, 16)]
        {
            if self.enabled & enable != 0 {
                let base = self.register64(offset);
                let bytes = entry_bytes << (base & 0x1f);
                found.insert(base & QUEUE_ADDRESS, (bytes, Forgotten::Off(enable)));
            }
        }
        if self.enabled & SMMUEN != 0 {
            self.follow_streams(memory, &mut found);
        }
        for (start, reached) in &mut self.reached {
            if !found.contains_key(start) {
                reached.since.get_or_insert(self.published);
            }
        }
        for (start, (bytes, forgotten)) in found {
            let end = start + bytes;
            let before = self.reached.get(&start).map_or(end, |reached| reached.end);
            self.reached.insert(start, Reached { end: end.max(before), forgotten, since: None });
        }
    }

    fn follow_streams(&self, memory: &Memory, found: &mut Found) {
        let config = u64::from(self.programmed.get(&STRTAB_BASE_CFG).copied().unwrap_or(0));
        let base = self.register64(STRTAB_BASE) & 0x00ff_ffff_ffff_ffc0;
        let (log2_streams, split) = (config & 0x3f, config >> 6 & 0x1f);
        let two_levels = config >> 16 & 3 == 1;
        let bytes = if two_levels { 8 << log2_streams.saturating_sub(split) } else { 64 << log2_streams };
        found.insert(base, (bytes, Forgotten::Off(SMMUEN)));
        for stream in STREAMS.map(u64::from).into_iter().filter(|stream| stream >> log2_streams == 0) {
            let mut entries = base + stream * 64;
            if two_levels {
                let descriptor = memory.read(base + (stream >> split) * 8);
                if descriptor & 0x1f == 0 {
                    continue;
                }
                let table = descriptor & 0x00ff_ffff_ffff_ffc0;
                found.insert(table, (32 << (descriptor & 0x1f), Forgotten::Off(SMMUEN)));
                entries = table + (stream & ((1 << split) - 1)) * 64;
            }
            follow_entry(memory, entries, found);
        }
    }

    /// What an index into the command queue consists of: the position and the wrap bit.
    fn index_mask(&self) -> u64 {
        (2 << (self.register64(CMDQ_BASE) & 0x1f)) - 1
    }

    fn register64(&self, offset: usize) -> u64 {
        let get = |offset| u64::from(self.programmed.get(&offset).copied().unwrap_or(0));
        get(offset) | get(offset + 4) << 32
    }
}

/// Length and kind of each range, by its start.
type Found = BTreeMap<u64, (u64, Forgotten)>;

fn follow_entry(memory: &Memory, entry: u64, found: &mut Found) {
    let word0 = memory.read(entry);
    match word0 & 0xf {
        // V, stage 1.
        0b1011 => {
            let context = word0 & 0x00ff_ffff_ffff_ffc0;
            found.insert(context, (64, Forgotten::Configuration));
            let t0sz = memory.read(context) & 0x3f;
            let levels = (64 - t0sz - 12).div_ceil(9);
            let table = memory.read(context + 8) & 0x00ff_ffff_ffff_fff0;
            follow_table(memory, table, 4 - levels, (64 - t0sz - 12) - 9 * (levels - 1), found);
        }
        // V, stage 2.
        0b1101 => {
            let word2 = memory.read(entry + 16);
            let (t0sz, level) = (word2 >> 32 & 0x3f, 2 - (word2 >> 38 & 3).min(2));
            let table = memory.read(entry + 24) & 0x00ff_ffff_ffff_fff0;
            follow_table(memory, table, level, 64 - t0sz - 12 - 9 * (3 - level), found);
        }
        _ => {}
    }
}

/// A table with a 4 KiB granule and `2^log2_entries` entries, and all that it leads to.
fn follow_table(memory: &Memory, table: u64, level: u64, log2_entries: u64, found: &mut Found) {
    if found.insert(table, (8 << log2_entries, Forgotten::Translations)).is_some() {
        return;
    }
    for word in memory.words(table).iter().take(1 << log2_entries) {
        let descriptor = u64::from_le(word.load(Ordering::Relaxed));
        let address = descriptor & 0x0000_ffff_ffff_f000;
        match (level, descriptor & 3) {
            (0..=2, 3) => follow_table(memory, address, level + 1, 9, found),
            (1..=2, 1) | (3, 3) => {
                found.insert(address, (1 << (12 + 9 * (3 - level)), Forgotten::Translations));
            }
            _ => {}
        }
    }
}
