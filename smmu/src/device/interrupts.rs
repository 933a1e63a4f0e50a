//! How the SMMU calls for attention: by wire or by message, or not at all (IHI 0070, 3.18). Nothing depends on it: who
//! polls `drain_events`, `drain_page_requests` and `handle_global_errors` misses nothing.

use super::{DeviceError, Smmu};
use crate::addr::PhysAddr;
use crate::arch::attributes::MemAttr;
use crate::arch::registers::{
    EVENTQ_IRQ_CFG0, EVENTQ_IRQ_CFG1, EVENTQ_IRQ_CFG2, GERROR, GERROR_IRQ_CFG0, GERROR_IRQ_CFG1, GERROR_IRQ_CFG2,
    IRQ_CFG0, IRQ_CFG1, IRQ_CFG2, IRQ_CTRL, PRIQ_IRQ_CFG0, PRIQ_IRQ_CFG1, PRIQ_IRQ_CFG2, Register32, Register64,
};
use crate::platform::Platform;

/// A message-signalled interrupt: the write that raises it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Where to: the interrupt controller's doorbell, as the SMMU sees it. A multiple of 4, not 0, within the output size.
    pub address: PhysAddr,
    /// The word that is written.
    pub data: u32,
}

/// Which interrupts are messages. The others are wired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Messages {
    /// A global error became active.
    pub global_errors: Option<Message>,
    /// The event queue became non-empty.
    pub events: Option<Message>,
    /// The page request queue became non-empty. Without IDR0.PRI it does not count.
    pub page_requests: Option<Message>,
}

/// What is switched on, so that it can be switched on again.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Interrupts {
    /// IRQ_CTRL.
    enabled: u32,
    messages: Messages,
}

/// One source: its enable, what tells that its message failed, where its message is described.
struct Source {
    enable: u32,
    failure: u32,
    address: Register64<IRQ_CFG0::Register>,
    data: Register32<IRQ_CFG1::Register>,
    attributes: Register32<IRQ_CFG2::Register>,
    message: fn(&mut Messages) -> &mut Option<Message>,
}

const SOURCES: [Source; 3] = [
    Source {
        enable: IRQ_CTRL::GERROR_IRQEN::SET.value,
        failure: GERROR::MSI_GERROR_ABT_ERR::SET.value,
        address: GERROR_IRQ_CFG0,
        data: GERROR_IRQ_CFG1,
        attributes: GERROR_IRQ_CFG2,
        message: |messages| &mut messages.global_errors,
    },
    Source {
        enable: IRQ_CTRL::EVENTQ_IRQEN::SET.value,
        failure: GERROR::MSI_EVENTQ_ABT_ERR::SET.value,
        address: EVENTQ_IRQ_CFG0,
        data: EVENTQ_IRQ_CFG1,
        attributes: EVENTQ_IRQ_CFG2,
        message: |messages| &mut messages.events,
    },
    Source {
        enable: IRQ_CTRL::PRIQ_IRQEN::SET.value,
        failure: GERROR::MSI_PRIQ_ABT_ERR::SET.value,
        address: PRIQ_IRQ_CFG0,
        data: PRIQ_IRQ_CFG1,
        attributes: PRIQ_IRQ_CFG2,
        message: |messages| &mut messages.page_requests,
    },
];

impl<P: Platform> Smmu<P> {
    /// Lets the SMMU raise its wired interrupts: events, global errors, and page requests where there are any.
    ///
    /// Call it once the handlers are in place. What happened before raises no interrupt, so look at everything afterwards:
    /// [`drain_events`](Self::drain_events), [`drain_page_requests`](Self::drain_page_requests) and
    /// [`handle_global_errors`](Self::handle_global_errors).
    ///
    /// # Errors
    ///
    /// [`DeviceError::Timeout`] if IRQ_CTRLACK does not follow; [`DeviceError::Suspended`] and the like if it does not run.
    pub fn enable_interrupts(&self) -> Result<(), DeviceError> {
        let _held = self.lifecycle.hold_running()?;
        self.remember_interrupts(Messages::default());
        self.restore_interrupts()
    }

    /// The same with messages, for interrupt controllers that take them. Interrupts without one are wired.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Unsupported`] without IDR0.MSI, [`DeviceError::BadMessageAddress`] for an address that a message
    /// cannot be sent to; nothing has changed then. Else as [`enable_interrupts`](Self::enable_interrupts).
    pub fn enable_message_interrupts(&self, messages: Messages) -> Result<(), DeviceError> {
        let _held = self.lifecycle.hold_running()?;
        if !self.features.message_interrupts() {
            return Err(self.features.lacks("message interrupts (MSI); use the wired ones, or poll"));
        }
        let output_bits = self.features.output_size().bits();
        for message in [messages.global_errors, messages.events, messages.page_requests].into_iter().flatten() {
            let address = message.address;
            if address.get() == 0 || !address.is_aligned(4) || address.get() >> output_bits != 0 {
                return Err(DeviceError::BadMessageAddress { address });
            }
        }
        self.remember_interrupts(messages);
        self.restore_interrupts()
    }

    fn remember_interrupts(&self, messages: Messages) {
        let page_requests = if self.features.page_requests() { IRQ_CTRL::PRIQ_IRQEN::SET.value } else { 0 };
        let enabled = (IRQ_CTRL::GERROR_IRQEN::SET + IRQ_CTRL::EVENTQ_IRQEN::SET).value | page_requests;
        *self.interrupts.lock() = Interrupts { enabled, messages };
    }

    /// Switches on what was switched on before.
    pub(super) fn restore_interrupts(&self) -> Result<(), DeviceError> {
        let Interrupts { enabled, mut messages } = *self.interrupts.lock();
        self.control.interrupts.write(&self.control, 0)?;
        for source in SOURCES.iter().filter(|source| source.enable & enabled != 0) {
            self.describe_message(source, *(source.message)(&mut messages));
        }
        self.control.interrupts.write(&self.control, enabled)
    }

    /// Tells the SMMU where a source's message goes, while the source is switched off.
    fn describe_message(&self, source: &Source, message: Option<Message>) {
        if !self.features.message_interrupts() {
            return;
        }
        // An address of 0 keeps the wired line in use.
        self.control.write64(source.address, message.map_or(0, |message| message.address.get()));
        if let Some(Message { data, .. }) = message {
            self.control.write(source.data, data);
            self.control.write(source.attributes, IRQ_CFG2::MemAttr.val(MemAttr::DEVICE_NGNRE.code().into()).value);
        }
    }

    /// Goes back to the wire for every source whose message could not be sent, by the bits of GERROR.
    pub(super) fn wire_failed_messages(&self, errors: u32) -> Result<(), DeviceError> {
        for source in SOURCES.iter().filter(|source| source.failure & errors != 0) {
            let mut interrupts = self.interrupts.lock();
            *(source.message)(&mut interrupts.messages) = None;
            let is_enabled = interrupts.enabled & source.enable != 0;
            drop(interrupts);
            if is_enabled {
                self.control.interrupts.clear(&self.control, source.enable)?;
                self.describe_message(source, None);
                self.control.interrupts.set(&self.control, source.enable)?;
            }
        }
        Ok(())
    }
}
