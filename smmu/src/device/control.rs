//! The register block of one SMMU: typed accesses, and the one bounded wait that everything uses.

use core::time::Duration;

use tock_registers::LocalRegisterCopy;
use tock_registers::RegisterLongName;

use super::DeviceError;
use crate::arch::registers::{Register32, Register64};
use crate::platform::{Platform, Registers};

/// How long hardware may take to acknowledge anything. Real parts need microseconds; firmware that emulates an SMMU
/// may need milliseconds.
const PATIENCE: Duration = Duration::from_secs(1);

/// A deadline for something that hardware has to do.
pub(super) struct Deadline {
    started: Duration,
}

impl Deadline {
    pub(super) fn start<P: Platform>(platform: &P) -> Self {
        Self { started: platform.now() }
    }

    /// How long it has been waited for, once that is too long.
    pub(super) fn missed<P: Platform>(&self, platform: &P) -> Option<Duration> {
        let waited = platform.now().saturating_sub(self.started);
        (waited > PATIENCE).then_some(waited)
    }
}

/// The registers of one SMMU and the platform that they live on.
#[derive(Debug)]
pub(super) struct Control<P: Platform> {
    platform: &'static P,
    registers: P::Registers,
}

impl<P: Platform> Control<P> {
    pub(super) fn new(platform: &'static P, registers: P::Registers) -> Self {
        Self { platform, registers }
    }

    pub(super) fn platform(&self) -> &'static P {
        self.platform
    }

    pub(super) fn read<F: RegisterLongName>(&self, register: Register32<F>) -> LocalRegisterCopy<u32, F> {
        LocalRegisterCopy::new(self.registers.read32(register.offset()))
    }

    pub(super) fn write<F: RegisterLongName>(&self, register: Register32<F>, value: u32) {
        self.registers.write32(register.offset(), value);
    }

    pub(super) fn write64<F: RegisterLongName>(&self, register: Register64<F>, value: u64) {
        self.registers.write64(register.offset(), value);
    }

    /// Waits until the bits of `register` under `mask` equal `expected`.
    pub(super) fn wait<F: RegisterLongName>(
        &self,
        register: Register32<F>,
        mask: u32,
        expected: u32,
    ) -> Result<(), DeviceError> {
        let deadline = Deadline::start(self.platform);
        loop {
            // The clock is read before the register: a thread that was held up in between still looks once more.
            let missed = deadline.missed(self.platform);
            let found = self.registers.read32(register.offset());
            if found & mask == expected {
                return Ok(());
            }
            if let Some(waited) = missed {
                return Err(DeviceError::Timeout { register: register.name(), expected, found, mask, waited });
            }
            self.platform.relax();
        }
    }
}
