//! Live entries: whatever mix of old and new words hardware may read, it is one of the two meanings, or invalid
//! (IHI 0070, 3.21.3).
//!
//! Memory cannot be watched store by store. So an entry is compared, whenever commands are published, with what hardware
//! was last certain to see: its words when a CFGI for it was last synced. Hardware may combine any of the two. An entry
//! that no CFGI was sent for yet counts as all zero before.

use super::Machine;
use super::bits::{bit, mask};
use super::commands::Command;
use super::laws::Law;
use super::registers::enable;
use super::structures::{Cd, Ste, StreamConfig, cd_reserved, ste_reserved};

/// What hardware was last certain to see of an entry, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Settled {
    physical: u64,
    words: [u64; 8],
}

impl Machine {
    /// Watches the entries of a stream from here on.
    pub(super) fn watch_stream(&mut self, stream: u32) {
        self.watched.insert(stream);
    }

    /// Eight words of memory, as the SMMU would read them now; nothing is cached or logged.
    fn peek(&self, physical: u64, view: super::memory::View) -> Option<Settled> {
        let mut words = [0; 8];
        let memory = self.platform.memory();
        for (index, word) in words.iter_mut().enumerate() {
            *word = memory.read(physical + index as u64 * 8, view).ok()?;
        }
        Some(Settled { physical, words })
    }

    /// The STE of a stream as memory has it now.
    pub(super) fn peek_ste(&self, stream: u32) -> Option<(u64, Ste)> {
        let table = self.stream_table();
        if u64::from(stream) >> table.log2_streams != 0 {
            return None;
        }
        let view = self.table_view();
        let physical = match table.split {
            None => table.base + u64::from(stream) * 64,
            Some(split) => {
                let first = table.base + u64::from(stream >> split) * 8;
                let word = self.platform.memory().read(first, view).ok()?;
                table.entry_address(word, stream)?
            }
        };
        let found = self.peek(physical, view)?;
        Some((physical, Ste(found.words)))
    }

    /// A CD of a stream without stage 2 as memory has it now.
    pub(super) fn peek_cd(&self, ste: &Ste, index: u32) -> Option<(u64, Cd)> {
        if ste.config() != StreamConfig::Stage1 {
            return None;
        }
        let view = self.view(ste.context_attributes());
        let physical = match (ste.log2_contexts(&self.config), ste.log2_leaf_contexts()) {
            (1.., Some(leaf)) => {
                let first = ste.context_pointer() + u64::from(index >> leaf) * 8;
                let word = self.platform.memory().read(first, view).ok()?;
                let low = u64::from(index & ((1 << leaf) - 1));
                bit(word, 0).then_some((word & mask(51, 12)) + low * 64)?
            }
            _ => ste.context_pointer() + u64::from(index) * 64,
        };
        let found = self.peek(physical, view)?;
        Some((physical, Cd(found.words)))
    }

    /// The contexts of a stream that are watched.
    pub(super) fn contexts_of(&self, stream: u32) -> Vec<u32> {
        let others = self.watched_contexts.range((stream, 1)..=(stream, u32::MAX)).map(|&(_, index)| index);
        std::iter::once(0).chain(others).collect()
    }

    /// Judges all watched entries as they are now.
    pub(super) fn sample_live_entries(&mut self) {
        if !self.registers.enabled(enable::SMMUEN) {
            return;
        }
        for stream in self.watched.difference(&self.unjudged).copied().collect::<Vec<_>>() {
            let Some((physical, ste)) = self.peek_ste(stream) else { continue };
            self.judge_ste(stream, &ste);
            let blank = Settled { physical, words: [0; 8] };
            let settled = *self.settled_stes.entry(stream).or_insert(blank);
            self.judge_change(&format!("STE of stream {stream:#x}"), &settled.words, &ste.0, ste_used);
            if !ste.valid() {
                continue;
            }
            for index in self.contexts_of(stream) {
                let Some((physical, cd)) = self.peek_cd(&ste, index) else { continue };
                self.judge_cd(stream, &ste, &cd);
                let now = Settled { physical, words: cd.0 };
                let settled = self.settled_cds.entry((stream, index)).or_insert(now);
                if settled.physical != physical {
                    // Another table: the CD became reachable as a whole.
                    *settled = now;
                }
                let before = settled.words;
                self.judge_change(&format!("CD {index} of stream {stream:#x}"), &before, &cd.0, cd_used);
            }
        }
    }

    fn judge_change(&self, what: &str, old: &[u64; 8], new: &[u64; 8], used: fn(&[u64; 8]) -> [u64; 8]) {
        let (used_old, used_new) = (used(old), used(new));
        let critical = (0..8).filter(|&i| (old[i] ^ new[i]) & (used_old[i] | used_new[i]) != 0).count();
        let is_valid = used_new.iter().any(|&bits| bits.count_ones() > 1);
        if is_valid && critical > 1 {
            let details = format!("{what}: {critical} words that count changed at once, from {old:x?} to {new:x?}");
            self.violation(Law::LiveEntry, details);
        }
    }

    fn judge_ste(&self, stream: u32, ste: &Ste) {
        if !ste.valid() {
            return;
        }
        if let Some(why) = ste.illegal(&self.config) {
            self.violation(Law::IllegalEntry, format!("STE of stream {stream:#x}: {why} ({:x?})", ste.0));
        }
        let reserved = ste_reserved(ste, &self.config);
        if reserved != [0; 8] {
            self.violation(Law::ReservedBit, format!("STE of stream {stream:#x}: reserved bits {reserved:x?}"));
        }
        let contexts = 64u64 << if ste.log2_leaf_contexts().is_some() { 0 } else { ste.log2_contexts(&self.config) };
        if ste.config().stage1() && !ste.context_pointer().is_multiple_of(contexts) {
            self.violation(Law::Alignment, format!("STE of stream {stream:#x}: S1ContextPtr is not aligned"));
        }
    }

    fn judge_cd(&self, stream: u32, ste: &Ste, cd: &Cd) {
        if !cd.valid() {
            return;
        }
        if let Some(why) = cd.illegal(ste, &self.config, self.e2h()) {
            self.violation(Law::IllegalEntry, format!("CD of stream {stream:#x}: {why} ({:x?})", cd.0));
        }
        let reserved = cd_reserved(cd, &self.config);
        if reserved != [0; 8] {
            self.violation(Law::ReservedBit, format!("CD of stream {stream:#x}: reserved bits {reserved:x?}"));
        }
    }

    /// A CFGI is complete: hardware has seen what memory holds now.
    pub(super) fn settle(&mut self, command: &Command) {
        match *command {
            Command::CfgiSte { first, last, .. } => {
                for stream in self.watched.range(first..=last).copied().collect::<Vec<_>>() {
                    self.settle_stream(stream);
                }
            }
            Command::CfgiCd { stream, substream, .. } => {
                self.watched_contexts.insert((stream, substream));
                self.settle_contexts(stream, &[substream]);
            }
            Command::CfgiCdAll { stream } => self.settle_contexts(stream, &self.contexts_of(stream)),
            _ => {}
        }
    }

    fn settle_stream(&mut self, stream: u32) {
        if let Some((physical, ste)) = self.peek_ste(stream) {
            self.settled_stes.insert(stream, Settled { physical, words: ste.0 });
            self.settle_contexts(stream, &self.contexts_of(stream));
        }
    }

    fn settle_contexts(&mut self, stream: u32, contexts: &[u32]) {
        let ste = self.peek_ste(stream).map(|(_, ste)| ste).filter(Ste::valid);
        for &index in contexts {
            // Without an STE none is reachable: the next one may be at the same address, and becomes so as a whole.
            match ste.as_ref().and_then(|ste| self.peek_cd(ste, index)) {
                Some((physical, cd)) => {
                    self.settled_cds.insert((stream, index), Settled { physical, words: cd.0 });
                }
                None => {
                    self.settled_cds.remove(&(stream, index));
                }
            }
        }
    }

    /// Translation begins: hardware sees what is there now, which must be whole.
    pub(super) fn settle_everything(&mut self) {
        let table = self.stream_table();
        // No more than a driver would fill in before.
        let streams = 0..1u32 << table.log2_streams.min(12);
        let valid: Vec<_> =
            streams.filter(|&stream| self.peek_ste(stream).is_some_and(|(_, ste)| ste.valid())).collect();
        self.watched.extend(valid);
        self.settled_cds.clear();
        for stream in self.watched.clone() {
            self.settle_stream(stream);
        }
        self.sample_live_entries();
    }
}

/// The bits of an STE that mean something in its Config (IHI 0070, 5.2.1).
fn ste_used(words: &[u64; 8]) -> [u64; 8] {
    let ste = Ste(*words);
    if !ste.valid() {
        return [1, 0, 0, 0, 0, 0, 0, 0];
    }
    let software = mask(23, 20) | mask(11, 8);
    let stage1 = mask(7, 0) | 1 << 27 | mask(31, 30);
    match ste.config() {
        StreamConfig::Abort => [0xf, 0, 0, 0, 0, 0, 0, 0],
        StreamConfig::Bypass => [0xf, mask(51, 32), 0, 0, 0, 0, 0, 0],
        StreamConfig::Stage1 => [!0, !software, mask(15, 0), 0, 0, 0, 0, 0],
        StreamConfig::Stage2 => [0xf, !software & !stage1, !0, !0, 0, 0, 0, 0],
        StreamConfig::Nested => [!0, !software, !0, !0, 0, 0, 0, 0],
    }
}

/// The bits of a CD that mean something (IHI 0070, 5.4).
fn cd_used(words: &[u64; 8]) -> [u64; 8] {
    let cd = Cd(*words);
    if !cd.valid() {
        return [1 << 31, 0, 0, 0, 0, 0, 0, 0];
    }
    let table = |disabled: bool| if disabled { 0 } else { !0 };
    let (lower, upper) = (bit(words[0], 14), bit(words[0], 30));
    [!0, table(lower), table(upper), !0, 0, 0, 0, 0]
}
