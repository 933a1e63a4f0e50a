//! ESR_EL1 in words (Arm ARM D24.2.40).

use core::fmt::{self, Display, Formatter};

/// The value of ESR_EL1 of an exception that was taken to EL1.
pub(super) struct Syndrome(pub(super) u64);

impl Syndrome {
    /// Bits `low` and up, `width` of them.
    fn field(&self, low: u32, width: u32) -> u64 {
        (self.0 >> low) & ((1 << width) - 1)
    }

    /// Whether bit `bit` is set.
    fn bit(&self, bit: u32) -> bool {
        self.field(bit, 1) == 1
    }

    /// ESR_EL1.EC: what kind of exception.
    fn class(&self) -> &'static str {
        match self.field(26, 6) {
            0x00 => "undefined instruction",
            0x01 => "trapped wfi or wfe",
            0x07 => "trapped SVE, SIMD or floating-point instruction",
            0x09 => "trapped pointer authentication instruction",
            0x0d => "branch target exception",
            0x0e => "illegal execution state",
            0x15 => "svc",
            0x18 => "trapped system register access",
            0x19 => "trapped SVE instruction",
            0x1c => "pointer authentication failure",
            0x20 => "instruction abort from EL0",
            0x21 => "instruction abort",
            0x22 => "misaligned program counter",
            0x24 => "data abort from EL0",
            0x25 => "data abort",
            0x26 => "misaligned stack pointer",
            0x2f => "SError",
            0x30 | 0x31 => "breakpoint",
            0x32 | 0x33 => "software step",
            0x34 | 0x35 => "watchpoint",
            0x3c => "brk",
            _ => "exception of an unknown class",
        }
    }

    /// ISS.DFSC or IFSC: what a memory access failed of.
    fn fault_status(&self) -> (&'static str, Option<u64>) {
        let level = Some(self.field(0, 2));
        match self.field(0, 6) {
            0x00..=0x03 => ("address size fault", level),
            0x04..=0x07 => ("translation fault", level),
            0x08..=0x0b => ("access flag fault", level),
            0x0c..=0x0f => ("permission fault", level),
            0x10 => ("external abort", None),
            0x14..=0x17 => ("external abort on a table walk", level),
            0x18 => ("parity or ECC error", None),
            0x1c..=0x1f => ("parity or ECC error on a table walk", level),
            0x21 => ("alignment fault", None),
            0x30 => ("TLB conflict", None),
            _ => ("unknown fault status", None),
        }
    }
}

impl Display for Syndrome {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.class())?;
        match self.field(26, 6) {
            class @ (0x20 | 0x21 | 0x24 | 0x25) => {
                if class & 0x04 != 0 {
                    // ISS.WnR; ISS.CM, a cache maintenance instruction, says "write" too.
                    f.write_str(if self.bit(6) { ", write" } else { ", read" })?;
                }
                let (fault, level) = self.fault_status();
                write!(f, ", {fault}")?;
                if let Some(level) = level {
                    write!(f, " at level {level}")?;
                }
                // ISS.FnV
                f.write_str(if self.bit(10) { ", far is not valid" } else { "" })
            }
            0x15 | 0x3c => write!(f, ", immediate {:#x}", self.field(0, 16)),
            _ => write!(f, ", ISS {:#x}", self.field(0, 25)),
        }
    }
}
