//! An SMMU's interrupts, found by name (binding `arm,smmu-v3`): their order differs from tree to tree.

use alloc::string::ToString;
use alloc::vec::Vec;

use super::MAX_ENTRIES;
use super::error::{PropertyError, PropertyProblem};
use super::property::Property;
use super::tree::Node;
use super::warning::{FirmwareWarning, Oddity};
use crate::iommu::fwspec::Phandle;

/// An interrupt as the device tree gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interrupt {
    /// The controller it goes to.
    pub parent: Phandle,
    /// What identifies it there, in cells; the controller's binding says how. For a GIC: kind, number, flags.
    pub specifier: Vec<u32>,
}

/// The wired interrupts of an SMMU (IHI 0070, 3.18). One that is absent has to be polled for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SmmuInterrupts {
    /// The event queue is no longer empty, or overflowed.
    pub eventq: Option<Interrupt>,
    /// A global error in `SMMU_GERROR`.
    pub gerror: Option<Interrupt>,
    /// The page request queue is no longer empty, or overflowed.
    pub priq: Option<Interrupt>,
    /// A `CMD_SYNC` that asked for an interrupt is complete.
    pub cmdq_sync: Option<Interrupt>,
    /// One line for all of the above; its handler has to look at every source. If present, the others are absent.
    pub combined: Option<Interrupt>,
}

/// Reads an SMMU's interrupts. An SMMU works without them, so that all trouble is a warning.
pub(super) fn read(node: Node<'_>, warnings: &mut Vec<FirmwareWarning>) -> SmmuInterrupts {
    let interrupts = named(node, warnings).unwrap_or_else(|PropertyError { place, problem }| {
        warnings.push(FirmwareWarning { place, oddity: Oddity::UnusableInterrupts { problem } });
        SmmuInterrupts::default()
    });
    let names = Property { node, name: "interrupt-names", value: &[] };
    for (name, interrupt) in [("eventq", &interrupts.eventq), ("gerror", &interrupts.gerror)] {
        if interrupt.is_none() && interrupts.combined.is_none() {
            warnings.push(FirmwareWarning { place: names.place(0), oddity: Oddity::NoInterrupt { name } });
        }
    }
    interrupts
}

fn named(node: Node<'_>, warnings: &mut Vec<FirmwareWarning>) -> Result<SmmuInterrupts, PropertyError> {
    let interrupts = list(node)?;
    if interrupts.is_empty() && !node.has("interrupt-names") {
        return Ok(SmmuInterrupts::default());
    }
    let property = node.required("interrupt-names")?;
    let mut warn = |offset, oddity| warnings.push(FirmwareWarning { place: property.place(offset), oddity });
    let names = property.strings()?.take(MAX_ENTRIES).count();
    if names != interrupts.len() {
        warn(0, Oddity::InterruptCount { interrupts: interrupts.len(), names });
    }
    let mut found = SmmuInterrupts::default();
    for ((offset, name), interrupt) in property.strings()?.zip(interrupts) {
        let slot = match name {
            "eventq" => &mut found.eventq,
            "gerror" => &mut found.gerror,
            "priq" => &mut found.priq,
            "cmdq-sync" => &mut found.cmdq_sync,
            "combined" => &mut found.combined,
            _ => {
                warn(offset, Oddity::UnknownInterrupt { name: name.to_string() });
                continue;
            }
        };
        if slot.is_some() {
            warn(offset, Oddity::RepeatedInterrupt { name: name.to_string() });
        } else {
            *slot = Some(interrupt);
        }
    }
    if found.combined.is_some() {
        let only_combined = SmmuInterrupts { combined: found.combined.clone(), ..SmmuInterrupts::default() };
        if found != only_combined {
            warn(0, Oddity::CombinedAmongOthers);
        }
        found = only_combined;
    }
    Ok(found)
}

/// The node's interrupts in order, from `interrupts-extended` or else `interrupts`
/// (Devicetree Specification 0.4, 2.4.1).
fn list(node: Node<'_>) -> Result<Vec<Interrupt>, PropertyError> {
    let mut list = Vec::new();
    if let Some(property) = node.property("interrupts-extended") {
        let mut cells = property.cells();
        while !cells.is_empty() {
            let phandle_at = cells.offset_bytes();
            if list.len() == MAX_ENTRIES {
                return Err(property.too_many_entries(phandle_at));
            }
            let (parent, count) = controller(property, phandle_at, cells.next()?)?;
            list.push(Interrupt { parent, specifier: cells.take(count)? });
        }
    } else if let Some(property) = node.property("interrupts") {
        let inherited = node.lineage().find_map(|ancestor| ancestor.property("interrupt-parent"));
        let reference = inherited.map_or_else(|| node.required("interrupt-parent"), Ok)?;
        let (parent, count) = controller(reference, 0, reference.single()?)?;
        let mut cells = property.entries(count)?;
        while !cells.is_empty() {
            list.push(Interrupt { parent, specifier: cells.take(count)? });
        }
    }
    Ok(list)
}

/// The interrupt controller with phandle `value`, and the number of cells of its specifiers.
fn controller(property: Property<'_>, offset_bytes: usize, value: u32) -> Result<(Phandle, u32), PropertyError> {
    let (phandle, target) = property.node.tree.resolve(property, offset_bytes, value)?;
    let Some(cells) = target.property("#interrupt-cells") else {
        let problem = PropertyProblem::NotAnInterruptController { phandle, target: target.path() };
        return Err(property.error(offset_bytes, problem));
    };
    // A GIC has 3 or 4; the upper limit keeps a specifier small.
    Ok((phandle, cells.cell_count(1, 8)?))
}
