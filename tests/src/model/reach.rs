//! What hardware can reach, by walking its tables from the registers down; and what it remembers. Neither may be freed.

use std::collections::HashSet;
use std::ops::Range;

use super::Machine;
use super::dma::AtcEntry;
use super::laws::Law;
use super::memory::Memory;
use super::registers::enable;
use super::ring::Ring;
use super::structures::{Half, StreamConfig};
use super::walk::{Decoded, Limits, Regime, decode};

impl Machine {
    /// Memory is about to be freed: hardware must have no way to it, and no memory of it.
    pub(super) fn check_free(&self, range: Range<u64>) {
        if let Some(how) = self.reaches(&range) {
            let details = format!("{:#x}..{:#x} is freed, but {how}", range.start, range.end);
            self.violation(Law::FreedWhileReachable, details);
        }
    }

    fn reaches(&self, range: &Range<u64>) -> Option<String> {
        for (enabled, register, entry_bytes, limit) in self.queues() {
            let value = self.registers.get64(register);
            let ring = Ring::of_base(value, limit);
            let bytes = u64::from(ring.entries()) * entry_bytes;
            if self.registers.enabled(enabled) && overlaps(range, ring.base(value, entry_bytes), bytes) {
                return Some("it is an enabled queue".into());
            }
        }
        if !self.registers.enabled(enable::SMMUEN) {
            return None;
        }
        let table = self.stream_table();
        if overlaps(range, table.base, table.bytes) {
            return Some("it is the stream table in use".into());
        }
        let leads = |entry: &&AtcEntry| {
            !entry.intermediate && overlaps(range, entry.output, 4096) && self.believes(entry.stream)
        };
        if let Some(entry) = self.atcs.iter().find(leads) {
            return Some(format!("the ATC of stream {:#x} holds its address", entry.stream));
        }
        let mut seen = HashSet::new();
        let reached = self.watched.iter().find_map(|&stream| self.stream_reaches(stream, range, &mut seen));
        reached.or_else(|| self.caches.leads_into(range))
    }

    fn stream_reaches(&self, stream: u32, range: &Range<u64>, seen: &mut HashSet<u64>) -> Option<String> {
        let (physical, ste) = self.peek_ste(stream)?;
        if overlaps(range, physical, 64) {
            return Some(format!("it holds the STE of stream {stream:#x}"));
        }
        if !ste.valid() || ste.illegal(&self.config).is_some() {
            return None;
        }
        let mut regimes = Vec::new();
        if ste.config().stage2() {
            regimes.extend(self.stage2_regime(&ste));
        }
        // The contexts and stage 1 tables of a nested stream lie in what its stage 2 maps, all of which is reachable.
        if ste.config() == StreamConfig::Stage1 {
            for index in self.contexts_of(stream) {
                let Some((physical, cd)) = self.peek_cd(&ste, index) else { continue };
                if overlaps(range, physical, 64) {
                    return Some(format!("it holds CD {index} of stream {stream:#x}"));
                }
                if cd.illegal(&ste, &self.config, self.e2h()).is_none() {
                    let halves = [Half::Lower, Half::Upper];
                    regimes.extend(halves.into_iter().filter_map(|half| self.stage1_regime(&ste, &cd, half)));
                }
            }
        }
        let memory = self.platform.memory();
        regimes.iter().filter(|regime| seen.insert(regime.root)).find_map(|regime| {
            let entries = regime.root_bytes() / 8;
            let how = table_reaches(&memory, regime, (regime.start_level, regime.root, entries), range)?;
            Some(format!("stream {stream:#x} reaches it: {how}"))
        })
    }
}

/// Whether a table, or anything below it, is in the range or leads there.
fn table_reaches(
    memory: &Memory,
    regime: &Regime,
    (level, table, entries): (i8, u64, u64),
    range: &Range<u64>,
) -> Option<String> {
    if overlaps(range, table, entries * 8) {
        return Some(format!("it is a table of level {level}"));
    }
    memory.words(table, entries, regime.view).find_map(|raw| match decode(raw, regime, level, 0, Limits::default()) {
        Decoded::Invalid => None,
        Decoded::Table { table, .. } => {
            table_reaches(memory, regime, (level + 1, table, 1 << (regime.granule - 3)), range)
        }
        Decoded::Leaf(leaf) => overlaps(range, leaf.output, 1 << leaf.log2_bytes).then(|| "it is mapped".into()),
    })
}

fn overlaps(range: &Range<u64>, start: u64, bytes: u64) -> bool {
    start < range.end && range.start < start.saturating_add(bytes)
}
