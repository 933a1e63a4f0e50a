//! A stream table entry, overwritten behind the driver's back.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use smmu::addr::{PhysAddr, StreamId};
use smmu::arch::command::{Command, Completion};
use smmu::arch::registers::{CMDQ_BASE, CMDQ_CONS, CMDQ_PROD, CR0, CR0ACK, STRTAB_BASE, STRTAB_BASE_CFG};
use smmu::arch::stream_table::{L1StreamTableDescriptor, StreamTableEntry};
use smmu::memory::DmaMemory;
use smmu::platform::{Platform, Registers};

use super::failure::Mismatch;
use super::flaw::Field;

/// Words of an entry.
const ENTRY_WORDS: usize = StreamTableEntry::BYTES / 8;
/// Bits 55:6, of STRTAB_BASE and of a pointer to a second level.
const ADDRESS: u64 = (1 << 56) - (1 << 6);
/// How long the SMMU may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// An SMMU that a driver has brought up.
pub(super) struct Hardware<P: Platform> {
    pub(super) platform: &'static P,
    pub(super) registers: P::Registers,
}

impl<P: Platform> Hardware<P> {
    /// Overwrites a field in the entry of a stream, and makes the SMMU forget what it has of the entry. The driver's part
    /// of the entry must be there. A field lies in one word, so this is one store, as for a live entry it must be
    /// (IHI 0070, 3.21.3).
    pub(super) fn overwrite(&self, stream: StreamId, field: Field) -> Result<(), Mismatch> {
        let word = &self.entry(stream)?[field.word()];
        word.store(field.set(u64::from_le(word.load(Ordering::Relaxed))).to_le(), Ordering::Relaxed);
        self.platform.clean_cache(NonNull::from(word).cast(), size_of_val(word));
        self.run(&[Command::CfgiSte { stream, leaf: true }, Command::Sync { completion: Completion::None }])
    }

    /// The entry of a stream, found as the SMMU finds it (IHI 0070, 3.3).
    fn entry(&self, stream: StreamId) -> Result<&[AtomicU64; ENTRY_WORDS], Mismatch> {
        let base = self.registers.read64(STRTAB_BASE.offset()) & ADDRESS;
        let config = STRTAB_BASE_CFG.value(self.registers.read32(STRTAB_BASE_CFG.offset()));
        let index = u64::from(stream.get());
        let (table, index) = if config.matches_all(STRTAB_BASE_CFG::FMT::TwoLevel) {
            let split = config.read(STRTAB_BASE_CFG::SPLIT);
            let [descriptor] = self.words(base + (index >> split) * 8);
            let descriptor = L1StreamTableDescriptor::from_word(u64::from_le(descriptor.load(Ordering::Relaxed)));
            let (table, _) = descriptor.decode().ok_or(Mismatch::NoEntry(stream))?;
            (table.get(), index & ((1 << split) - 1))
        } else {
            (base, index)
        };
        Ok(self.words(table + index * StreamTableEntry::BYTES as u64))
    }

    /// Words of the driver's stream table.
    fn words<const N: usize>(&self, physical: u64) -> &[AtomicU64; N] {
        // SAFETY: the stream table is memory of the platform, which lives while the SMMU is up.
        let pointer = unsafe { self.platform.pointer(PhysAddr::new(physical)) }.cast();
        // SAFETY: as above; whole words, and reached only through atomics.
        unsafe { pointer.as_ref() }
    }

    /// Runs two commands in a queue of their own, which takes the place of the driver's meanwhile: that has nothing
    /// outstanding and keeps its own count.
    fn run(&self, commands: &[Command; 2]) -> Result<(), Mismatch> {
        let queue = DmaMemory::allocate(self.platform, 32, 32)?;
        for (word, value) in queue.words().iter().zip(commands.iter().flat_map(Command::encode)) {
            word.store(value.to_le(), Ordering::Relaxed);
        }
        queue.clean(0, queue.words().len());
        let before = (
            self.registers.read64(CMDQ_BASE.offset()),
            self.registers.read32(CMDQ_PROD.offset()),
            self.registers.read32(CMDQ_CONS.offset()),
        );
        self.use_queue((queue.physical().get() | 1, 0, 0))?;
        self.platform.write_barrier();
        self.registers.write32(CMDQ_PROD.offset(), 2);
        self.wait_for(CMDQ_CONS.offset(), CMDQ_CONS.name(), 2)?;
        self.use_queue(before)
    }

    /// Replaces CMDQ_BASE, CMDQ_PROD and CMDQ_CONS, which is permitted while the queue is off (IHI 0070, 6.3.26).
    fn use_queue(&self, (base, producer, consumer): (u64, u32, u32)) -> Result<(), Mismatch> {
        let enables = self.registers.read32(CR0.offset());
        self.enable(enables & !CR0::CMDQEN::SET.value)?;
        self.registers.write64(CMDQ_BASE.offset(), base);
        self.registers.write32(CMDQ_PROD.offset(), producer);
        self.registers.write32(CMDQ_CONS.offset(), consumer);
        self.enable(enables)
    }

    fn enable(&self, enables: u32) -> Result<(), Mismatch> {
        self.registers.write32(CR0.offset(), enables);
        self.wait_for(CR0ACK.offset(), CR0ACK.name(), enables)
    }

    fn wait_for(&self, offset: usize, register: &'static str, expected: u32) -> Result<(), Mismatch> {
        let started = self.platform.now();
        loop {
            let found = self.registers.read32(offset);
            if found == expected {
                return Ok(());
            }
            if self.platform.now().saturating_sub(started) > PATIENCE {
                return Err(Mismatch::NoAnswer { register, expected, found });
            }
            self.platform.relax();
        }
    }
}
