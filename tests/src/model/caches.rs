//! What an SMMU remembers: configuration and translations, until a command makes it forget (IHI 0070, 3.17 and 4).
//!
//! Entries are as many and as long-lived as the architecture permits: the cached translations of one address space
//! include the place and the shape of its tables, which CDs and STEs of the same tag must agree on.

use std::collections::HashMap;
use std::ops::Range;

use super::commands::{Command, Tlbi, TlbiScope, TlbiStage};
use super::config::Caching;
use super::structures::{Ste, World};
use super::walk::{Leaf, Limits, Regime, Tag};

/// More translations than this are not kept: the oldest goes.
const CAPACITY: usize = 2048;

/// The name of a cached structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Structure {
    /// A first-level stream table descriptor.
    L1Std {
        index: u32,
    },
    Ste {
        stream: u32,
    },
    /// A first-level context descriptor of a stream.
    L1Cd {
        stream: u32,
        index: u32,
    },
    Cd {
        stream: u32,
        index: u32,
    },
}

/// What a cached translation knows.
#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    /// Where the tables of a tag are, and what they are like: the fields of a CD or STE that a TLB may hold.
    Root(Regime),
    /// A table descriptor.
    Table {
        table: u64,
        limits: Limits,
    },
    Leaf(Leaf),
}

/// A cached translation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cached {
    /// Whose it is. A global entry has no ASID.
    pub(super) tag: Tag,
    pub(super) first: u64,
    pub(super) last: u64,
    /// The level of the descriptor it came from.
    pub(super) level: i8,
    pub(super) what: What,
}

/// The caches of one SMMU.
#[derive(Debug)]
pub(super) struct Caches {
    caching: Caching,
    structures: HashMap<Structure, (u64, Vec<u64>)>,
    translations: Vec<Cached>,
    /// Whether the contents of reset are gone (IHI 0070, 3.11): first those of the configuration, then of the TLBs.
    configuration_known: bool,
    el1_known: bool,
    el2_known: bool,
}

impl Caches {
    pub(super) fn new(caching: Caching) -> Self {
        Self {
            caching,
            structures: HashMap::new(),
            translations: Vec::new(),
            configuration_known: false,
            el1_known: false,
            el2_known: false,
        }
    }

    pub(super) fn caching(&self) -> Caching {
        self.caching
    }

    pub(super) fn set_caching(&mut self, caching: Caching) {
        self.caching = caching;
    }

    /// Whether bring-up has dropped what reset left: configuration first, or old entries could have refilled the TLB.
    pub(super) fn known(&self, has_el2: bool) -> bool {
        self.configuration_known && self.el1_known && (self.el2_known || !has_el2)
    }

    fn drops(&self, random: &mut fastrand::Rng) -> bool {
        match self.caching {
            Caching::Greedy => false,
            Caching::Dropping { percent } => random.u32(0..100) < percent,
            Caching::Nothing => true,
        }
    }

    /// The words of a structure, if they are cached.
    pub(super) fn structure(&mut self, name: Structure, random: &mut fastrand::Rng) -> Option<&[u64]> {
        if self.drops(random) {
            self.structures.remove(&name);
        }
        self.structures.get(&name).map(|(_, words)| words.as_slice())
    }

    /// The STE of a stream, if it is cached. It stays.
    pub(super) fn peek_ste(&self, stream: u32) -> Option<Ste> {
        let (_, words) = self.structures.get(&Structure::Ste { stream })?;
        words.as_slice().try_into().ok().map(Ste)
    }

    pub(super) fn keep_structure(&mut self, name: Structure, physical: u64, words: &[u64]) {
        if self.caching != Caching::Nothing {
            self.structures.insert(name, (physical, words.to_vec()));
        }
    }

    /// What is cached for `input` under `tag`: the leaf, or the table of the deepest level, or the root.
    pub(super) fn translation(&mut self, tag: &Tag, input: u64, random: &mut fastrand::Rng) -> Option<Cached> {
        let found = self.translations.iter().enumerate().filter(|(_, cached)| cached.serves(tag, input));
        let (index, cached) = found.max_by_key(|(_, cached)| cached.depth()).map(|(index, cached)| (index, *cached))?;
        if self.drops(random) {
            self.translations.swap_remove(index);
            return None;
        }
        Some(cached)
    }

    /// The shape of the tables of a tag, if it is cached.
    pub(super) fn root(&self, tag: &Tag, upper: bool) -> Option<Regime> {
        self.translations.iter().find_map(|cached| match cached.what {
            What::Root(regime) if cached.tag == *tag && regime.upper == upper => Some(regime),
            _ => None,
        })
    }

    pub(super) fn keep_translation(&mut self, new: Cached) {
        if self.caching == Caching::Nothing {
            return;
        }
        self.translations.retain(|old| !(old.tag == new.tag && old.first == new.first && old.depth() == new.depth()));
        if self.translations.len() >= CAPACITY {
            self.translations.remove(0);
        }
        self.translations.push(new);
    }

    /// Whether neighbours of what was asked for are taken too.
    pub(super) fn is_greedy(&self) -> bool {
        self.caching == Caching::Greedy
    }

    /// `split` is how many bits of a StreamID the second level resolves, if there is one.
    pub(super) fn invalidate_configuration(&mut self, command: &Command, split: Option<u32>) {
        match *command {
            Command::CfgiSte { first, last, leaf } => {
                let streams = first..=last;
                self.configuration_known |= first == 0 && last == u32::MAX;
                self.structures.retain(|name, _| match name {
                    Structure::L1Std { index } => {
                        let split = split.unwrap_or(0);
                        leaf || !(first >> split..=last >> split).contains(index)
                    }
                    Structure::Ste { stream } | Structure::L1Cd { stream, .. } | Structure::Cd { stream, .. } => {
                        !streams.contains(stream)
                    }
                });
            }
            Command::CfgiCd { stream, substream, leaf } => self.structures.retain(|name, _| match *name {
                Structure::Cd { stream: of, index } => (of, index) != (stream, substream),
                Structure::L1Cd { stream: of, .. } => of != stream || leaf,
                _ => true,
            }),
            Command::CfgiCdAll { stream } => self.structures.retain(|name, _| match *name {
                Structure::Cd { stream: of, .. } | Structure::L1Cd { stream: of, .. } => of != stream,
                _ => true,
            }),
            _ => {}
        }
    }

    pub(super) fn invalidate_translations(&mut self, tlbi: &Tlbi) {
        let everything = tlbi.vmid.is_none() && tlbi.asid.is_none() && tlbi.scope.is_none();
        match tlbi.stage {
            TlbiStage::Both => self.el1_known |= everything && self.configuration_known,
            TlbiStage::Stage1(World::El2) => self.el2_known |= everything && self.configuration_known,
            _ => {}
        }
        self.translations.retain(|cached| !cached.is_dropped_by(tlbi));
    }

    /// What is cached that leads into a range of physical memory, if anything.
    pub(super) fn leads_into(&self, range: &Range<u64>) -> Option<String> {
        let overlaps = |start: u64, bytes: u64| start < range.end && range.start < start.saturating_add(bytes);
        let structure = self.structures.iter().find_map(|(name, (physical, words))| {
            overlaps(*physical, words.len() as u64 * 8).then(|| format!("{name:?} is cached from there"))
        });
        structure.or_else(|| {
            self.translations.iter().find_map(|cached| {
                let leads = match cached.what {
                    What::Root(regime) => !regime.is_intermediate && overlaps(regime.root, regime.root_bytes()),
                    What::Table { table, .. } => !cached.tag.is_intermediate() && overlaps(table, 8),
                    What::Leaf(leaf) => overlaps(leaf.output, 1 << leaf.log2_bytes),
                };
                leads.then(|| format!("a translation of {:#x} is cached under {:?}", cached.first, cached.tag))
            })
        })
    }
}

impl Cached {
    /// Deeper levels first, leaves before tables, the root last.
    fn depth(&self) -> i8 {
        match self.what {
            What::Root(_) => -2,
            What::Table { .. } => self.level,
            What::Leaf(_) => 4,
        }
    }

    fn serves(&self, tag: &Tag, input: u64) -> bool {
        (self.first..=self.last).contains(&input) && self.tag.serves(tag) && !matches!(self.what, What::Root(_))
    }

    fn is_dropped_by(&self, tlbi: &Tlbi) -> bool {
        let same_vmid = match (tlbi.vmid, self.tag.vmid) {
            (Some(wanted), Some(vmid)) => wanted >> tlbi.vmid_wildcard == vmid >> tlbi.vmid_wildcard,
            _ => true,
        };
        let stage = match tlbi.stage {
            TlbiStage::Both => self.tag.world == World::El1,
            TlbiStage::Stage1(world) => !self.tag.stage2 && self.tag.world == world,
            TlbiStage::Stage2 => self.tag.stage2,
        };
        let asid = match (tlbi.asid, self.tag.asid) {
            (Some(wanted), Some(asid)) => wanted == asid,
            // Global entries go by address, not by address space.
            (Some(_), None) => tlbi.scope.is_some() || self.tag.stage2,
            (None, _) => true,
        };
        stage && same_vmid && asid && tlbi.scope.is_none_or(|scope| self.is_in(&scope))
    }

    fn is_in(&self, scope: &TlbiScope) -> bool {
        let overlaps = self.first <= scope.last && scope.first <= self.last;
        overlaps
            && match self.what {
                // What a CD or an STE says goes with the whole tag, not by address.
                What::Root(_) => false,
                What::Table { .. } => !scope.leaf && scope.level.is_none_or(|level| self.level < level),
                What::Leaf(_) => scope.level.is_none_or(|level| self.level == level),
            }
    }
}
