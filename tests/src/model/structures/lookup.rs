//! From a StreamID and a SubstreamID to an STE and a CD, through the configuration cache (IHI 0070, 3.3 and 5).

use super::super::Machine;
use super::super::bits::{bit, bits, mask};
use super::super::caches::Structure;
use super::super::events::{Class, EventKind, Fault};
use super::super::laws::Law;
use super::super::log::{Entry, Fetched};
use super::super::memory::View;
use super::super::registers::offset;
use super::{Cd, Ste};

/// The stream table, as the registers describe it (IHI 0070, 6.3.23 and 6.3.24).
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct StreamTable {
    /// STRTAB_BASE.ADDR as it was written.
    pub(in super::super) written_base: u64,
    /// The same with the low bits that hardware takes for zero.
    pub(in super::super) base: u64,
    pub(in super::super) bytes: u64,
    pub(in super::super) log2_streams: u32,
    /// How many bits of a StreamID the second level resolves, if there is one.
    pub(in super::super) split: Option<u32>,
}

impl StreamTable {
    /// The STEs that a first-level descriptor leads to: where they start, and how many there are.
    pub(in super::super) fn second_level(&self, descriptor: u64) -> Option<(u64, u64)> {
        let span = bits(descriptor, 4, 0);
        let split = self.split?;
        let valid = (1..=u64::from(split) + 1).contains(&span);
        // Hardware takes the low bits of the pointer for zero.
        valid.then(|| (descriptor & mask(51, 6) & !((32u64 << span) - 1), 1 << (span - 1)))
    }

    /// Where a first-level descriptor says that the STE of `stream` is.
    pub(in super::super) fn entry_address(&self, descriptor: u64, stream: u32) -> Option<u64> {
        let (start, count) = self.second_level(descriptor)?;
        let low = u64::from(stream & ((1 << self.split?) - 1));
        (low < count).then_some(start + low * 64)
    }
}

impl Machine {
    /// The stream table as the registers describe it.
    pub(in super::super) fn stream_table(&self) -> StreamTable {
        let config = self.registers.get(offset::STRTAB_BASE_CFG);
        let split = match bits(config.into(), 10, 6) {
            8 => 8,
            10 => 10,
            _ => 6,
        };
        let two_level = bits(config.into(), 17, 16) == 1 && self.config.st_level == 1;
        let log2_size = config & 0x3f;
        let bytes = match two_level {
            true => 8u64 << log2_size.saturating_sub(split).min(32),
            false => 64u64 << log2_size.min(32),
        };
        let base = self.registers.get64(offset::STRTAB_BASE) & mask(51, 6);
        StreamTable {
            written_base: base,
            base: base & !(bytes.max(64) - 1),
            bytes,
            log2_streams: log2_size.min(self.config.sidsize),
            split: two_level.then_some(split),
        }
    }

    /// How the SMMU's own accesses to the stream table see memory (CR1.TABLE_*).
    pub(in super::super) fn table_view(&self) -> View {
        self.view(self.registers.get(offset::CR1) >> 6)
    }

    /// The STE of a stream.
    pub(in super::super) fn find_ste(&mut self, stream: u32) -> Result<Ste, Fault> {
        let table = self.stream_table();
        if u64::from(stream) >> table.log2_streams != 0 {
            return Err(Fault::new(EventKind::BadStreamid));
        }
        self.cached(Structure::Ste { stream }, |machine| {
            let physical = machine.locate_ste(&table, stream)?;
            machine.fetch(Fetched::Ste, physical, machine.table_view(), EventKind::SteFetch)
        })
        .map(Ste)
    }

    /// Where the STE of a stream is, through the first level if there is one.
    fn locate_ste(&mut self, table: &StreamTable, stream: u32) -> Result<u64, Fault> {
        let Some(split) = table.split else { return Ok(table.base + u64::from(stream) * 64) };
        let index = stream >> split;
        let [word] = self.cached(Structure::L1Std { index }, |machine| {
            let physical = table.base + u64::from(index) * 8;
            machine.fetch(Fetched::L1Std, physical, machine.table_view(), EventKind::SteFetch)
        })?;
        if let Some((start, _)) = table.second_level(word) {
            self.check_pointer("first-level stream table descriptor", word, start | bits(word, 4, 0));
        }
        table.entry_address(word, stream).ok_or(Fault::new(EventKind::BadStreamid))
    }

    /// The STE of a stream, if it is legal.
    pub(in super::super) fn legal_ste(&mut self, stream: u32) -> Result<Ste, Fault> {
        let ste = self.find_ste(stream)?;
        match ste.illegal(&self.config) {
            None => Ok(ste),
            Some(why) => Err(Fault { why, ..Fault::new(EventKind::BadSte) }),
        }
    }

    /// The CD of a stream's context `index`, if it is legal.
    pub(in super::super) fn legal_cd(&mut self, stream: u32, ste: &Ste, index: u32) -> Result<Cd, Fault> {
        let log2_contexts = ste.log2_contexts(&self.config);
        let pointer = match (log2_contexts, ste.log2_leaf_contexts()) {
            (1.., Some(leaf)) => {
                let l1_bytes = (8u64 << log2_contexts.saturating_sub(leaf)).max(64);
                let l1 = (ste.context_pointer() & !(l1_bytes - 1)) + u64::from(index >> leaf) * 8;
                let name = Structure::L1Cd { stream, index: index >> leaf };
                let [word] = self.cached(name, |machine| machine.fetch_context(Fetched::L1Cd, ste, l1))?;
                let table = word & mask(51, 12) & !((64u64 << leaf) - 1);
                if !bit(word, 0) || table >> self.config.oas_bits() != 0 {
                    return Err(Fault::new(EventKind::BadSubstreamid));
                }
                self.check_pointer("first-level context descriptor", word, table | 1);
                table + u64::from(index & ((1 << leaf) - 1)) * 64
            }
            _ => (ste.context_pointer() & !((64u64 << log2_contexts) - 1)) + u64::from(index) * 64,
        };
        let name = Structure::Cd { stream, index };
        let cd = Cd(self.cached(name, |machine| machine.fetch_context(Fetched::Cd, ste, pointer))?);
        match cd.illegal(ste, &self.config, self.e2h()) {
            None => Ok(cd),
            Some(why) => Err(Fault { why, ..Fault::new(EventKind::BadCd) }),
        }
    }

    /// Judges a valid descriptor of a first level, of which hardware sees `seen`: the rest is misaligned or reserved.
    fn check_pointer(&self, what: &str, word: u64, seen: u64) {
        let (reserved, misaligned) = ((word & !seen) & !mask(51, 6), (word & !seen) & mask(51, 6));
        if reserved != 0 {
            self.violation(Law::ReservedBit, format!("{what} {word:#x} has reserved bits {reserved:#x}"));
        }
        if misaligned != 0 {
            self.violation(Law::Alignment, format!("{what} {word:#x} is not aligned to what it leads to"));
        }
    }

    /// Reads a CD or a descriptor of CDs, through stage 2 where there is one.
    fn fetch_context<const N: usize>(
        &mut self,
        what: Fetched,
        ste: &Ste,
        address: u64,
    ) -> Result<([u64; N], u64), Fault> {
        let physical = match ste.config().stage2() {
            true => self.walk_stage2_for(ste, address, Class::Cd, false)?,
            false => address,
        };
        let view = self.view(ste.context_attributes());
        self.fetch(what, physical, view, EventKind::CdFetch)
    }

    /// Reads `N` words. The words of one structure may be read in any order: these are read last to first.
    fn fetch<const N: usize>(
        &mut self,
        what: Fetched,
        physical: u64,
        view: View,
        failure: EventKind,
    ) -> Result<([u64; N], u64), Fault> {
        self.log.push(Entry::Fetch { what, physical });
        let mut words = [0; N];
        for index in (0..N).rev() {
            let address = physical + index as u64 * 8;
            let read = self.read_memory(address, view);
            words[index] = read.map_err(|_| Fault { fetch_address: physical, ..Fault::new(failure) })?;
        }
        Ok((words, physical))
    }

    /// A structure out of the configuration cache, or from memory and then into it. A failed fetch is never cached.
    fn cached<const N: usize>(
        &mut self,
        name: Structure,
        fetch: impl FnOnce(&mut Self) -> Result<([u64; N], u64), Fault>,
    ) -> Result<[u64; N], Fault> {
        if let Some(words) = self.caches.structure(name, &mut self.random).and_then(|words| words.try_into().ok()) {
            return Ok(words);
        }
        let (words, physical) = fetch(self)?;
        self.caches.keep_structure(name, physical, &words);
        Ok(words)
    }
}
