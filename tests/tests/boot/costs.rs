//! What the driver costs, counted: QEMU's clock goes on by a nanosecond an instruction.

use qemu::machine::Machine;
use qemu::outcome::Outcome;

use crate::boot::{Boot, demo_machine};

/// Most instructions of bring-up, and most bytes of DMA memory that one SMMU takes before anything is attached.
const BRING_UP_INSTRUCTIONS: u64 = 250_000;
const BRING_UP_BYTES: u64 = 512 << 10;

#[test]
fn bringing_an_smmu_up() {
    let extra_arguments = ["-icount", "shift=0,sleep=off"].map(Into::into).into();
    let booted = Boot::new("demo", Machine { extra_arguments, ..demo_machine() }).run();
    booted.assert_outcome(Outcome::Success);
    let smmu = booted.record("smmu");
    let of = |name: &str| smmu[name].as_u64().unwrap_or_else(|| booted.fail(name));
    let (instructions, bytes) = (of("bring_up_nanoseconds"), of("dma_bytes"));
    assert!((1_000..=BRING_UP_INSTRUCTIONS).contains(&instructions), "{instructions} instructions");
    assert!((4096..=BRING_UP_BYTES).contains(&bytes), "{bytes} bytes");
}
