//! Walks, through the caches (Arm ARM, D8.2; IHI 0070, 3.3.3 and 7.3.22).

use super::super::Machine;
use super::super::bits::bits;
use super::super::caches::{Cached, What};
use super::super::events::{Class, EventKind, Fault};
use super::super::laws::Law;
use super::super::log::{Entry, Fetched};
use super::super::memory::View;
use super::super::structures::{Cd, Half, Ste, descriptor_reserved};
use super::{Decoded, Intent, Leaf, Limits, MemoryType, Permissions, Regime, Tag, decode};

/// Bits of a descriptor that hardware updates.
const AF: u64 = 1 << 10;
const AP2: u64 = 1 << 7;
const S2AP_WRITE: u64 = 1 << 7;

impl Machine {
    /// Translates an input address by stage 1 of a legal STE and CD, and by stage 2 if the STE has it.
    pub(in super::super) fn walk_stage1(
        &mut self,
        ste: &Ste,
        cd: &Cd,
        input: u64,
        intent: &Intent,
    ) -> Result<Leaf, Fault> {
        let translation = Fault::new(EventKind::Translation);
        let half = if bits(input, 55, 55) == 0 { Half::Lower } else { Half::Upper };
        let regime = self.stage1_regime(ste, cd, half).ok_or(Fault { why: "EPDx is set", ..translation })?;
        let regime = self.remembered(regime);
        // The bits above the input address equal bit 55, but for the top byte where TBI has it ignored.
        let input = if cd.tbi(half) { ((input << 8) as i64 >> 8) as u64 } else { input };
        let above = input >> regime.input_bits;
        let wanted = if half == Half::Lower { 0 } else { u64::MAX >> regime.input_bits };
        if above != wanted {
            return Err(Fault { why: "outside TxSZ", ..translation });
        }
        if regime.e0pd && !intent.privileged {
            return Err(Fault { why: "E0PDx", ..translation });
        }
        let nested = if ste.config().stage2() { self.stage2_regime(ste) } else { None };
        let leaf = self.walk(&regime, ste, nested.as_ref(), input, intent)?;
        if !leaf.stage1.permit(intent) {
            return Err(Fault { why: "stage 1 permissions", ..self.denied(&leaf.stage1, intent) });
        }
        if !leaf.stage2.permit(intent) {
            let ipa = leaf.intermediate | (input & ((1 << leaf.log2_bytes) - 1));
            return Err(Fault { stage2: true, ipa, why: "stage 2 permissions", ..self.denied(&leaf.stage2, intent) });
        }
        Ok(leaf)
    }

    /// Translates an intermediate address by stage 2 of a legal STE.
    pub(in super::super) fn walk_stage2(
        &mut self,
        ste: &Ste,
        input: u64,
        intent: &Intent,
        class: Class,
    ) -> Result<Leaf, Fault> {
        let of_stage2 = |fault: Fault| Fault { stage2: true, class, ipa: input, walk_reads: !intent.writes, ..fault };
        let translation = of_stage2(Fault::new(EventKind::Translation));
        let regime = self.stage2_regime(ste).ok_or(translation)?;
        let regime = self.remembered(regime);
        if input >> regime.input_bits != 0 {
            return Err(Fault { why: "outside S2T0SZ", ..translation });
        }
        let leaf = self.walk(&regime, ste, None, input, intent).map_err(of_stage2)?;
        let device_walk = class != Class::In && ste.s2ptw() && matches!(leaf.memory, MemoryType::Device(_));
        if !leaf.stage2.permit(intent) || device_walk {
            return Err(of_stage2(Fault { why: "stage 2 permissions", ..self.denied(&leaf.stage2, intent) }));
        }
        Ok(leaf)
    }

    /// F_PERMISSION. From SMMUv3.1 on it says of an atomic access whether the right to read is missing (IHI 0070, 7.3.15).
    fn denied(&self, permissions: &Permissions, intent: &Intent) -> Fault {
        let lacks_read = self.config.minor >= 1
            && intent.reads
            && intent.writes
            && !permissions.permit(&Intent { writes: false, ..*intent });
        Fault { lacks_read, ..Fault::new(EventKind::Permission) }
    }

    /// Where stage 2 puts something that the SMMU itself reads or updates.
    pub(in super::super) fn walk_stage2_for(
        &mut self,
        ste: &Ste,
        address: u64,
        class: Class,
        writes: bool,
    ) -> Result<u64, Fault> {
        self.walk_stage2(ste, address, &Intent::walk(writes), class).map(|leaf| leaf.translate(address))
    }

    /// The shape of the tables as the TLB remembers it. Every CD and STE of one tag must agree, so it may.
    fn remembered(&mut self, regime: Regime) -> Regime {
        if let Some(cached) = self.caches.root(&regime.tag, regime.upper).filter(|_| self.caches.is_greedy()) {
            return cached;
        }
        if regime.root != regime.written_root {
            self.violation(Law::Alignment, format!("table base {:#x} is not aligned to its size", regime.written_root));
        }
        let (tag, what) = (regime.tag, What::Root(regime));
        let first = if regime.upper { 1 << 63 } else { 0 };
        self.caches.keep_translation(Cached { tag, first, last: u64::MAX, level: -1, what });
        regime
    }

    /// The walk itself. Faults are those of this stage, or stage 2's on the way.
    fn walk(
        &mut self,
        regime: &Regime,
        ste: &Ste,
        nested: Option<&Regime>,
        input: u64,
        intent: &Intent,
    ) -> Result<Leaf, Fault> {
        let (mut level, mut table, mut limits) = (regime.start_level, regime.root, Limits::default());
        match self.caches.translation(&regime.tag, input, &mut self.random).map(|cached| (cached.level, cached.what)) {
            Some((_, What::Leaf(leaf))) if !(leaf.clean && intent.writes) => return Ok(leaf),
            Some((above, What::Table { table: next, limits: found })) => {
                (level, table, limits) = (above + 1, next, found);
            }
            _ => {}
        }
        loop {
            let entry = regime.entry(level, table, input);
            let physical = match nested {
                Some(_) => self.walk_stage2_for(ste, entry, Class::Tt, false)?,
                None => entry,
            };
            let raw = self.read_descriptor(regime, level, physical)?;
            match decode(raw, regime, level, input, limits) {
                Decoded::Invalid => return Err(Fault::new(EventKind::Translation)),
                Decoded::Table { table: next, limits: found } => {
                    self.check_descriptor(raw, regime, None, physical);
                    if next >> regime.output_bits != 0 {
                        return Err(Fault { why: "table beyond the output size", ..Fault::new(EventKind::AddrSize) });
                    }
                    (table, limits) = (next, found);
                    let span = (1u64 << regime.shift(level)) - 1;
                    self.caches.keep_translation(Cached {
                        tag: regime.tag,
                        first: input & !span,
                        last: input | span,
                        level,
                        what: What::Table { table, limits },
                    });
                    level += 1;
                }
                Decoded::Leaf(leaf) => {
                    self.check_descriptor(raw, regime, Some(regime.shift(level)), physical);
                    let accepted = self.accept(regime, ste, nested, leaf, (raw, entry, physical), intent)?;
                    // Whoever has changed the descriptor meanwhile was first.
                    let Some(leaf) = accepted else { continue };
                    let leaf = self.finish(regime, ste, nested, leaf, input, intent)?;
                    if nested.is_none() && self.caches.is_greedy() {
                        self.take_neighbours(regime, level, physical, input, limits);
                    }
                    return Ok(leaf);
                }
            }
        }
    }

    /// The checks on a leaf, and hardware's updates of its descriptor: access flag, then dirty state. `None` if the descriptor
    /// is another by then.
    fn accept(
        &mut self,
        regime: &Regime,
        ste: &Ste,
        nested: Option<&Regime>,
        mut leaf: Leaf,
        (raw, entry, physical): (u64, u64, u64),
        intent: &Intent,
    ) -> Result<Option<Leaf>, Fault> {
        if leaf.output >> regime.output_bits != 0 {
            return Err(Fault { why: "output beyond the output size", ..Fault::new(EventKind::AddrSize) });
        }
        let mut updated = raw;
        if !leaf.access_flag && regime.update_access_flag {
            updated |= AF;
        } else if !leaf.access_flag && !regime.access_flag_ignored {
            return Err(Fault { why: "AF is 0", ..Fault::new(EventKind::Access) });
        }
        let permissions = if regime.tag.stage2 { leaf.stage2 } else { leaf.stage1 };
        if leaf.clean && intent.writes && permissions.permit(intent) {
            updated = if regime.tag.stage2 { updated | S2AP_WRITE } else { updated & !AP2 };
            leaf.clean = false;
        }
        if updated != raw {
            let physical = match nested {
                Some(_) => self.walk_stage2_for(ste, entry, Class::Tt, true)?,
                None => physical,
            };
            if !self.update_descriptor(physical, raw, updated, regime)? {
                return Ok(None);
            }
            leaf.access_flag = true;
        }
        Ok(Some(leaf))
    }

    /// Updates a descriptor, if it is still what it was.
    fn update_descriptor(&mut self, physical: u64, old: u64, new: u64, regime: &Regime) -> Result<bool, Fault> {
        let aborted = |_| walk_aborted(physical);
        if let Some((_, word)) = self.faults.meanwhile.take_if(|(address, _)| *address == physical) {
            self.write_memory(physical, word, u64::MAX, View::Snooping).map_err(aborted)?;
        }
        self.exchange_memory(physical, old, new, regime.view).map_err(aborted)
    }

    /// Adds stage 2 where there is one, and remembers the result.
    fn finish(
        &mut self,
        regime: &Regime,
        ste: &Ste,
        nested: Option<&Regime>,
        leaf: Leaf,
        input: u64,
        intent: &Intent,
    ) -> Result<Leaf, Fault> {
        let mut whole = leaf;
        if nested.is_some() {
            if !leaf.stage1.permit(intent) {
                return Ok(leaf);
            }
            let ipa = leaf.translate(input);
            let output = self.walk_stage2(ste, ipa, intent, Class::In)?;
            let log2_bytes = leaf.log2_bytes.min(output.log2_bytes);
            let base = |address: u64| address & !((1 << log2_bytes) - 1);
            whole = Leaf {
                input: base(input),
                log2_bytes,
                output: base(output.translate(ipa)),
                intermediate: base(ipa),
                stage2: output.stage2,
                clean: leaf.clean || output.clean,
                memory: leaf.memory.through_stage2(output.memory_attributes, self.config.fwb && ste.s2fwb()),
                ..leaf
            };
        }
        self.remember(regime, whole);
        Ok(whole)
    }

    fn remember(&mut self, regime: &Regime, leaf: Leaf) {
        // An entry whose access flag is clear is never cached.
        if !leaf.access_flag && !regime.access_flag_ignored {
            return;
        }
        let tag = Tag { asid: regime.tag.asid.filter(|_| leaf.not_global), ..regime.tag };
        let (first, last, level) = (leaf.input, leaf.last(), leaf.level);
        self.caches.keep_translation(Cached { tag, first, last, level, what: What::Leaf(leaf) });
    }

    /// Takes the leaves in the same 64 bytes of the table too, as speculation may.
    fn take_neighbours(&mut self, regime: &Regime, level: i8, physical: u64, input: u64, limits: Limits) {
        let shift = regime.shift(level);
        let line_input = input & !((8u64 << shift) - 1);
        for index in 0..8u64 {
            let neighbour = line_input | index << shift;
            let address = (physical & !63) + index * 8;
            if address == physical || regime.root_bytes() < 64 {
                continue;
            }
            let Ok(raw) = self.read_memory(address, regime.view) else { continue };
            if let Decoded::Leaf(leaf) = decode(raw, regime, level, neighbour, limits) {
                let in_range = leaf.output >> regime.output_bits == 0;
                if leaf.access_flag && in_range {
                    self.remember(regime, leaf);
                }
            }
        }
    }

    fn read_descriptor(&mut self, regime: &Regime, level: i8, physical: u64) -> Result<u64, Fault> {
        let what = if regime.tag.stage2 { Fetched::Stage2(level) } else { Fetched::Stage1(level) };
        self.log.push(Entry::Fetch { what, physical });
        self.read_memory(physical, regime.view).map_err(|_| walk_aborted(physical))
    }

    fn check_descriptor(&mut self, raw: u64, regime: &Regime, leaf: Option<u32>, physical: u64) {
        let reserved = descriptor_reserved(raw, regime.tag.stage2, leaf, regime.granule, regime.has_large_addresses());
        if reserved != 0 {
            let details = format!("descriptor {raw:#x} at {physical:#x} has reserved bits {reserved:#x}");
            self.violation(Law::ReservedBit, details);
        }
    }
}

/// F_WALK_EABT: a descriptor could not be read or updated.
fn walk_aborted(physical: u64) -> Fault {
    Fault { fetch_address: physical, class: Class::Tt, ..Fault::new(EventKind::WalkEabt) }
}
