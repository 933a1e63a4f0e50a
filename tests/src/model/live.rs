//! Live entries: whatever mix of old and new words hardware may read, it is one of the two meanings, or invalid
//! (IHI 0070, 3.21.3).
//!
//! Memory cannot be watched store by store. So an entry is looked at at every write barrier and whenever commands are
//! published, which is the earliest that hardware can be relied on to see a store. From the sync of the last CFGI for an
//! entry on, hardware may combine any values that its words have had; all combinations are judged. An entry that no CFGI was
//! sent for yet counts as all zero before.

use super::Machine;
use super::bits::{bit, mask};
use super::commands::Command;
use super::laws::Law;
use super::registers::enable;
use super::structures::{Cd, Meaning, Ste, cd_reserved, ste_reserved};

/// More combinations of an entry than this are not looked at: no update comes near.
const COMBINATIONS_MAX: usize = 20_000;

/// What hardware may have of an entry, and where it is.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    physical: u64,
    /// Its words at the sync of the last CFGI for it.
    settled: [u64; 8],
    /// The values that each word has had since, that one first.
    values: [Vec<u64>; 8],
}

impl Seen {
    fn new(physical: u64, words: [u64; 8]) -> Self {
        Self { physical, settled: words, values: words.map(|word| vec![word]) }
    }

    /// Adds what memory has now. Whether there was anything new in it.
    fn add(&mut self, words: &[u64; 8]) -> bool {
        let mut is_new = false;
        for (values, word) in self.values.iter_mut().zip(words) {
            if !values.contains(word) {
                values.push(*word);
                is_new = true;
            }
        }
        is_new
    }

    /// Every entry that hardware may have put together.
    fn combinations(&self) -> impl Iterator<Item = [u64; 8]> {
        let count = self.values.iter().map(Vec::len).product::<usize>().min(COMBINATIONS_MAX);
        (0..count).map(|mut number| {
            self.values.each_ref().map(|values| {
                let value = values[number % values.len()];
                number /= values.len();
                value
            })
        })
    }

    /// A combination that means neither what the entry meant nor what it means by now, if there is one.
    fn third_meaning(&self, now: &[u64; 8], meaning: fn(&[u64; 8]) -> Meaning) -> Option<Meaning> {
        let allowed = [meaning(&self.settled), meaning(now)];
        self.combinations().map(|words| meaning(&words)).find(|found| !found.is_invalid() && !allowed.contains(found))
    }
}

impl Machine {
    /// Watches the entries of a stream from here on.
    pub(super) fn watch_stream(&mut self, stream: u32) {
        self.watched.insert(stream);
    }

    /// Watches a context of a stream from here on.
    pub(super) fn watch_context(&mut self, stream: u32, index: u32) {
        self.watched_contexts.insert((stream, index));
    }

    /// Eight words of memory, as the SMMU would read them now; nothing is cached or logged.
    fn peek(&self, physical: u64, view: super::memory::View) -> Option<[u64; 8]> {
        let mut words = [0; 8];
        let memory = self.platform.memory();
        for (index, word) in words.iter_mut().enumerate() {
            *word = memory.read(physical + index as u64 * 8, view).ok()?;
        }
        Some(words)
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
        Some((physical, Ste(self.peek(physical, view)?)))
    }

    /// A CD of a stream as memory has it now, behind stage 2 if the stream has one.
    pub(super) fn peek_cd(&self, ste: &Ste, index: u32) -> Option<(u64, Cd)> {
        if !ste.config().stage1() {
            return None;
        }
        let reached = |address| if ste.config().stage2() { self.peek_stage2(ste, address) } else { Some(address) };
        let view = self.view(ste.context_attributes());
        let physical = match (ste.log2_contexts(&self.config), ste.log2_leaf_contexts()) {
            (1.., Some(leaf)) => {
                let first = reached(ste.context_pointer() + u64::from(index >> leaf) * 8)?;
                let word = self.platform.memory().read(first, view).ok()?;
                let low = u64::from(index & ((1 << leaf) - 1));
                reached(bit(word, 0).then_some((word & mask(51, 12)) + low * 64)?)?
            }
            _ => reached(ste.context_pointer() + u64::from(index) * 64)?,
        };
        Some((physical, Cd(self.peek(physical, view)?)))
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
            let seen = self.seen_stes.entry(stream).or_insert_with(|| Seen::new(physical, [0; 8]));
            if seen.physical != physical {
                // Another second level: the STE became reachable as a whole.
                *seen = Seen::new(physical, ste.0);
            }
            if seen.add(&ste.0)
                && let Some(third) = seen.third_meaning(&ste.0, Meaning::of_ste)
            {
                self.third_meaning(&format!("STE of stream {stream:#x}"), &third);
            }
            if !ste.valid() {
                continue;
            }
            for index in self.contexts_of(stream) {
                let Some((physical, cd)) = self.peek_cd(&ste, index) else { continue };
                self.judge_cd(stream, &ste, &cd);
                let seen = self.seen_cds.entry((stream, index)).or_insert_with(|| Seen::new(physical, cd.0));
                if seen.physical != physical {
                    // Another table: the CD became reachable as a whole.
                    *seen = Seen::new(physical, cd.0);
                }
                if seen.add(&cd.0)
                    && let Some(third) = seen.third_meaning(&cd.0, Meaning::of_cd)
                {
                    self.third_meaning(&format!("CD {index} of stream {stream:#x}"), &third);
                }
            }
        }
    }

    fn third_meaning(&self, what: &str, third: &Meaning) {
        self.violation(Law::LiveEntry, format!("{what}: hardware may take it for {third}"));
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
            Command::CfgiCd { stream, substream, .. } => self.settle_contexts(stream, &[substream]),
            Command::CfgiCdAll { stream } => self.settle_contexts(stream, &self.contexts_of(stream)),
            _ => {}
        }
    }

    fn settle_stream(&mut self, stream: u32) {
        if let Some((physical, ste)) = self.peek_ste(stream) {
            self.seen_stes.insert(stream, Seen::new(physical, ste.0));
            self.settle_contexts(stream, &self.contexts_of(stream));
        }
    }

    fn settle_contexts(&mut self, stream: u32, contexts: &[u32]) {
        let ste = self.peek_ste(stream).map(|(_, ste)| ste).filter(Ste::valid);
        for &index in contexts {
            // Without an STE none is reachable: the next one may be at the same address, and becomes so as a whole.
            match ste.as_ref().and_then(|ste| self.peek_cd(ste, index)) {
                Some((physical, cd)) => {
                    self.seen_cds.insert((stream, index), Seen::new(physical, cd.0));
                }
                None => {
                    self.seen_cds.remove(&(stream, index));
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
        self.seen_cds.clear();
        for stream in self.watched.clone() {
            self.settle_stream(stream);
        }
        self.sample_live_entries();
    }
}
