//! Translation that leaves no trace: nothing is cached, logged or updated. For the laws.

use super::super::Machine;
use super::super::structures::Ste;
use super::{Decoded, Limits, decode};

impl Machine {
    /// Where stage 2 of an STE puts an address, as its tables are in memory now. Who may do what there does not count.
    pub(in super::super) fn peek_stage2(&self, ste: &Ste, address: u64) -> Option<u64> {
        if ste.illegal(&self.config).is_some() {
            return None;
        }
        let regime = self.stage2_regime(ste).filter(|regime| address >> regime.input_bits == 0)?;
        let memory = self.platform.memory();
        let (mut level, mut table) = (regime.start_level, regime.root);
        loop {
            let raw = memory.read(regime.entry(level, table, address), regime.view).ok()?;
            match decode(raw, &regime, level, address, Limits::default()) {
                Decoded::Invalid => return None,
                Decoded::Table { table: next, .. } => (level, table) = (level + 1, next),
                Decoded::Leaf(leaf) => return Some(leaf.translate(address)),
            }
        }
    }
}
