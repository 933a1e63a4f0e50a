//! The SMMU's interrupts: events with the name of the culprit, global errors in words.

use alloc::sync::Arc;
use alloc::vec::Vec;

use smmu::device::Smmu;
use smmu::iommu::fwspec::Phandle;

use super::{IOMMUS, counts};
use crate::platform::Kernel;
use crate::sync::IrqMutex;

/// Most looks at an SMMU in one interrupt.
const TURNS: usize = 64;

/// The SMMUs whose interrupts cannot be had, or cannot be relied on.
static POLLED: IrqMutex<Vec<(Phandle, Arc<Smmu<Kernel>>)>> = IrqMutex::new(Vec::new());

/// Has [`poll`] look after an SMMU that cannot call for itself.
pub(super) fn poll_for(phandle: Phandle, smmu: &Arc<Smmu<Kernel>>) {
    let mut polled = POLLED.lock();
    if !polled.iter().any(|(known, _)| *known == phandle) {
        polled.push((phandle, Arc::clone(smmu)));
    }
}

/// Takes what waits in SMMUs without interrupts. Whoever waits for a fault calls it while waiting.
pub fn poll() {
    let polled = POLLED.lock().clone();
    polled.iter().for_each(|(phandle, smmu)| handle(*phandle, smmu));
}

/// Takes whatever events and global errors wait in an SMMU. Called from its interrupts.
pub(super) fn handle(phandle: Phandle, smmu: &Arc<Smmu<Kernel>>) {
    for _ in 0..TURNS {
        let drained = smmu.drain_events(|event| {
            counts::add_event();
            let report = IOMMUS.attribute(phandle, event);
            if report.is_due {
                log::warn!(target: "iommu", "DMA stopped: {report}");
            }
        });
        if drained.overflowed {
            log::warn!(target: "iommu", "IOMMU {phandle}: the event queue was full, some events are lost");
        }
        if drained.inconsistent {
            log::error!(target: "iommu", "IOMMU {phandle}: EVENTQ_PROD makes no sense, the event queue was emptied");
        }
        let errors = smmu.handle_global_errors();
        if !errors.is_empty() {
            log::error!(target: "iommu", "IOMMU {phandle}: {errors}");
        }
        // What comes in after this look raises an interrupt of its own.
        if drained.events == 0 && errors.is_empty() {
            return;
        }
    }
    // A device faults faster than its faults can be counted, and as long as the queue is not empty no interrupt comes.
    poll_for(phandle, smmu);
}
