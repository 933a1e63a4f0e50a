//! How a CMD_SYNC tells that it is complete, beyond CMDQ_CONS moving past it (IHI 0070, 4.7.3).
//!
//! CMDQ_CONS has the last word: a signal only saves reading it. One that does not come costs time and nothing else.

use core::sync::atomic::Ordering;

use crate::arch::attributes::{MemAttr, Shareability};
use crate::arch::command::{Command, Completion};
use crate::device::{DeviceError, Features};
use crate::memory::DmaMemory;
use crate::platform::Platform;

/// Bytes of the word that a CMD_SYNC writes to; it writes the low half.
const WORD_BYTES: u64 = 8;
/// Looks for a message before CMDQ_CONS is read.
const MESSAGE_TURNS: u32 = 64;

/// How the CMD_SYNCs of one command queue report.
#[derive(Debug)]
pub(super) struct Signal<P: Platform> {
    /// The CMD_SYNC that sends no message.
    plain: [u64; 2],
    /// Whether that one sends the event that ends a CPU's WFE (IDR0.SEV).
    sends_event: bool,
    /// Where messages go (IDR0.MSI): one word for each slot, so that no two commands in flight share one.
    messages: Option<DmaMemory<P>>,
}

impl<P: Platform> Signal<P> {
    /// The best that the SMMU has, for a queue of `entries` slots. A message is for memory that the SMMU and the CPU see
    /// alike.
    pub(super) fn new(platform: &'static P, features: &Features, entries: u32) -> Result<Self, DeviceError> {
        let sends_event = features.send_event();
        let completion = if sends_event { Completion::Event } else { Completion::None };
        let messages = if features.message_interrupts() && features.coherent() {
            let size_bytes = entries as usize * WORD_BYTES as usize;
            Some(DmaMemory::allocate(platform, size_bytes, size_bytes)?)
        } else {
            None
        };
        Ok(Self { plain: Command::Sync { completion }.encode(), sends_event, messages })
    }

    /// The CMD_SYNC for a slot, whose position is just before `end`. The slot is the caller's.
    #[inline]
    pub(super) fn sync(&self, slot: usize, end: u64) -> [u64; 2] {
        match &self.messages {
            None => self.plain,
            Some(words) => Self::sync_with_message(words, slot, end),
        }
    }

    fn sync_with_message(words: &DmaMemory<P>, slot: usize, end: u64) -> [u64; 2] {
        // What a former lap has left there is no answer, however long ago that was.
        if let Some(word) = words.words().get(slot) {
            word.store(0, Ordering::Relaxed);
        }
        let completion = match words.physical().checked_add(slot as u64 * WORD_BYTES) {
            Some(address) => Completion::Msi {
                address,
                data: message(end),
                memory: MemAttr::NORMAL_WRITE_BACK,
                shareability: Shareability::InnerShareable,
            },
            None => Completion::None,
        };
        Command::Sync { completion }.encode()
    }

    /// Whether CMD_SYNCs send messages.
    pub(super) fn is_message(&self) -> bool {
        self.messages.is_some()
    }

    /// Whether the message of the CMD_SYNC just before `end` comes: looks for a while, unless there are no messages.
    pub(super) fn has_come(&self, platform: &P, slot: usize, end: u64) -> bool {
        let Some(word) = self.messages.as_ref().and_then(|words| words.words().get(slot)) else { return false };
        for _ in 0..MESSAGE_TURNS {
            if u64::from_le(word.load(Ordering::Relaxed)) == u64::from(message(end)) {
                // What was stored before the SMMU went on is seen from here on.
                platform.read_barrier();
                return true;
            }
            platform.relax();
        }
        false
    }

    /// One turn of a waiting loop.
    pub(super) fn relax(&self, platform: &P) {
        if self.sends_event { platform.wait_for_event() } else { platform.relax() }
    }

    /// Bytes of DMA memory that messages take.
    pub(super) fn size_bytes(&self) -> usize {
        self.messages.as_ref().map_or(0, DmaMemory::size_bytes)
    }

    /// Never gives the words back: the SMMU may still write to them.
    pub(super) fn keep(&self) {
        if let Some(words) = &self.messages {
            words.keep();
        }
    }
}

/// What a CMD_SYNC just before `end` writes: never 0, and the same again only 2^31 commands later.
#[allow(clippy::cast_possible_truncation, reason = "only the low bits count")]
fn message(end: u64) -> u32 {
    (end << 1) as u32 | 1
}
