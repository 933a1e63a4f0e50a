//! The register block of one SMMU: typed accesses, the one bounded wait that everything uses, and the registers of enables,
//! whose changes the SMMU acknowledges (IHI 0070, 6.3.9 and 6.3.16).

use core::time::Duration;

use lock_api::Mutex;
use tock_registers::LocalRegisterCopy;
use tock_registers::RegisterLongName;

use super::DeviceError;
use crate::arch::registers::{CR0, CR0ACK, GBPA, IRQ_CTRL, IRQ_CTRLACK, Register32, Register64};
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

/// Looks for something that hardware or another CPU has to do, until it is there; or, in the error, for how long in vain.
pub(crate) fn wait_until<P: Platform, T>(platform: &P, mut look: impl FnMut() -> Option<T>) -> Result<T, Duration> {
    let deadline = Deadline::start(platform);
    loop {
        // The clock is read before the look: a CPU that was held up in between still looks once more.
        let missed = deadline.missed(platform);
        if let Some(found) = look() {
            return Ok(found);
        }
        if let Some(waited) = missed {
            return Err(waited);
        }
        platform.relax();
    }
}

/// The CR0 fields that this driver sets or must see cleared.
const CR0_KNOWN: u32 = CR0::SMMUEN::SET.value
    | CR0::PRIQEN::SET.value
    | CR0::EVENTQEN::SET.value
    | CR0::CMDQEN::SET.value
    | CR0::ATSCHK::SET.value;

/// Likewise for IRQ_CTRL.
const IRQ_CTRL_KNOWN: u32 =
    IRQ_CTRL::GERROR_IRQEN::SET.value | IRQ_CTRL::PRIQ_IRQEN::SET.value | IRQ_CTRL::EVENTQ_IRQEN::SET.value;

/// A register of enables: another register shows when a change has happened.
pub(super) struct Enables<P: Platform, F: RegisterLongName> {
    register: Register32<F>,
    acknowledgement: Register32<F>,
    known: u32,
    /// What was written last. Fields change independently, each by whoever the field belongs to.
    written: Mutex<P::Lock, Written>,
}

/// What was written to a register of enables.
#[derive(Clone, Copy, Default)]
struct Written {
    /// `None` before the first time: what the register holds is somebody else's.
    value: Option<u32>,
    /// Whether nothing may be switched on any more.
    is_sealed: bool,
}

impl<P: Platform, F: RegisterLongName> Enables<P, F> {
    const fn new(register: Register32<F>, acknowledgement: Register32<F>, known: u32) -> Self {
        Self { register, acknowledgement, known, written: Mutex::new(Written { value: None, is_sealed: false }) }
    }

    /// Sets all fields to those of `value` and waits until that has happened.
    pub(super) fn write(&self, control: &Control<P>, value: u32) -> Result<(), DeviceError> {
        self.change(control, u32::MAX, value)
    }

    /// Switches on what is set in `bits`, and waits.
    pub(super) fn set(&self, control: &Control<P>, bits: u32) -> Result<(), DeviceError> {
        self.change(control, bits, bits)
    }

    /// Switches off what is set in `bits`, and waits.
    pub(super) fn clear(&self, control: &Control<P>, bits: u32) -> Result<(), DeviceError> {
        self.change(control, bits, 0)
    }

    /// Switches everything off that is not, and looks once whether that has happened already.
    pub(super) fn clear_at_once(&self, control: &Control<P>) -> Result<(), DeviceError> {
        if control.check(self.acknowledgement, self.known, 0, Duration::ZERO).is_ok() && self.is_written(0) {
            return Ok(());
        }
        self.put(control, &mut self.written.lock(), u32::MAX, 0);
        control.check(self.acknowledgement, self.known, 0, Duration::ZERO)
    }

    /// Switches nothing on from here on: whoever tries to is told that the SMMU is closed.
    pub(super) fn seal(&self) {
        self.written.lock().is_sealed = true;
    }

    fn change(&self, control: &Control<P>, mask: u32, value: u32) -> Result<(), DeviceError> {
        // What is written to a field before its last change is acknowledged is lost, or worse.
        let settled = wait_until(control.platform(), || {
            let mut written = self.written.lock();
            let is_settled = written.value.is_none_or(|value| {
                control.check(self.acknowledgement, self.known, value & self.known, Duration::ZERO).is_ok()
            });
            is_settled.then(|| self.put(control, &mut written, mask, value))
        });
        // An SMMU that has not done as it was told before is told all the same.
        let value_now = settled.unwrap_or_else(|_| self.put(control, &mut self.written.lock(), mask, value));
        control.wait(self.acknowledgement, self.known & mask, value_now & mask)?;
        if value_now & mask == value { Ok(()) } else { Err(DeviceError::Closed) }
    }

    /// Writes the fields in `mask`, and returns what the register is to have become.
    fn put(&self, control: &Control<P>, written: &mut Written, mask: u32, value: u32) -> u32 {
        let before = written.value.unwrap_or(0);
        let may_be = if written.is_sealed { before } else { u32::MAX };
        let now = (before & !mask | value & mask) & may_be;
        written.value = Some(now);
        control.write(self.register, now);
        now
    }

    fn is_written(&self, value: u32) -> bool {
        self.written.lock().value == Some(value)
    }
}

/// The registers of one SMMU and the platform that they live on.
pub(super) struct Control<P: Platform> {
    platform: &'static P,
    registers: P::Registers,
    /// CR0: translation and queues.
    pub(super) enables: Enables<P, CR0::Register>,
    /// IRQ_CTRL.
    pub(super) interrupts: Enables<P, IRQ_CTRL::Register>,
    /// Held from the look at GBPA.Update to the write that sets it: another CPU may be about to do the same.
    gbpa: Mutex<P::Lock, ()>,
}

impl<P: Platform> Control<P> {
    pub(super) fn new(platform: &'static P, registers: P::Registers) -> Self {
        Self {
            platform,
            registers,
            enables: Enables::new(CR0, CR0ACK, CR0_KNOWN),
            interrupts: Enables::new(IRQ_CTRL, IRQ_CTRLACK, IRQ_CTRL_KNOWN),
            gbpa: Mutex::new(()),
        }
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

    pub(super) fn read64<F: RegisterLongName>(&self, register: Register64<F>) -> LocalRegisterCopy<u64, F> {
        LocalRegisterCopy::new(self.registers.read64(register.offset()))
    }

    /// Writes what `change` makes of GBPA, once no update of it is under way.
    pub(super) fn update_gbpa(&self, change: impl Fn(u32) -> u32) -> Result<(), DeviceError> {
        let update = GBPA::UPDATE::SET.value;
        let written = wait_until(self.platform, || {
            let _alone = self.gbpa.lock();
            let value = self.read(GBPA).get();
            (value & update == 0).then(|| self.write(GBPA, change(value)))
        });
        written.or_else(|waited| self.check(GBPA, update, 0, waited))
    }

    /// Waits until the bits of `register` under `mask` equal `expected`.
    pub(super) fn wait<F: RegisterLongName>(
        &self,
        register: Register32<F>,
        mask: u32,
        expected: u32,
    ) -> Result<(), DeviceError> {
        let waited = wait_until(self.platform, || self.check(register, mask, expected, Duration::ZERO).ok());
        waited.or_else(|waited| self.check(register, mask, expected, waited))
    }

    /// Looks once whether the bits of `register` under `mask` equal `expected`, after having `waited` for it.
    pub(super) fn check<F: RegisterLongName>(
        &self,
        register: Register32<F>,
        mask: u32,
        expected: u32,
        waited: Duration,
    ) -> Result<(), DeviceError> {
        let found = self.registers.read32(register.offset());
        if found & mask == expected {
            return Ok(());
        }
        Err(DeviceError::Timeout { register: register.name(), expected, found, mask, waited })
    }
}
