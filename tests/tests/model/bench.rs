//! A driver of literal numbers: registers by offset, entries and commands word by word. What it needs to know is written
//! here once more, so that the model is not judged by its own decoder.

use std::sync::atomic::Ordering::SeqCst;

use smmu::addr::{Iova, StreamId};
use smmu::platform::{Platform, Registers};
use tests::model::{Buffer, Config, Device, Law, Model, ModelRegisters, Record, Refused};

pub(crate) const CR0: usize = 0x20;
pub(crate) const CR0ACK: usize = 0x24;
pub(crate) const GERROR: usize = 0x60;
pub(crate) const GERRORN: usize = 0x64;
pub(crate) const CMDQ_PROD: usize = 0x98;
pub(crate) const CMDQ_CONS: usize = 0x9c;
pub(crate) const EVENTQ_PROD: usize = 0x100a8;
pub(crate) const EVENTQ_CONS: usize = 0x100ac;

/// CMD_SYNC without a signal.
pub(crate) const SYNC: [u64; 2] = [0x46, 0];
/// CMD_CFGI_ALL.
const CFGI_ALL: [u64; 2] = [0x04, 31];
/// log2 of the commands, events and page requests in a queue.
const LOG2: u64 = 5;
/// The stream that tests use.
pub(crate) const STREAM: u32 = 3;

/// An SMMU with a linear stream table of 64 entries, up and running, all entries invalid.
pub(crate) struct Bench {
    pub(crate) registers: ModelRegisters,
    pub(crate) commands: Buffer,
    pub(crate) events: Buffer,
    pub(crate) requests: Buffer,
    pub(crate) streams: Buffer,
    pub(crate) produced: u32,
    pub(crate) model: Model,
}

impl Bench {
    pub(crate) fn new(config: Config) -> Self {
        let (has_el2, has_pri) = (config.hyp, config.pri);
        let mut bench = Self::off(config);
        let r = bench.registers.clone();
        r.write32(0x28, 0xd75);
        r.write32(0x2c, 0x2);
        r.write64(0x80, bench.streams.physical().get());
        r.write32(0x88, 6);
        r.write64(0x90, bench.commands.physical().get() | LOG2);
        r.write32(CMDQ_PROD, 0);
        r.write32(CMDQ_CONS, 0);
        r.write32(CR0, 0x8);
        bench.run(&[CFGI_ALL]);
        bench.run(if has_el2 { &[[0x20, 0], [0x30, 0]] } else { &[[0x30, 0]] });
        r.write64(0xa0, bench.events.physical().get() | LOG2);
        r.write32(EVENTQ_PROD, 0);
        r.write32(EVENTQ_CONS, 0);
        r.write32(CR0, 0xc);
        if has_pri {
            r.write64(0xc0, bench.requests.physical().get() | LOG2);
            r.write32(0x100c8, 0);
            r.write32(0x100cc, 0);
            r.write32(CR0, 0xe);
        }
        r.write32(CR0, r.read32(CR0) | 1);
        bench
    }

    /// As after reset.
    pub(crate) fn off(config: Config) -> Self {
        let model = Model::new(config);
        let buffer = |bytes| model.platform().buffer(bytes);
        let (commands, events, requests, streams) = (buffer(4096), buffer(4096), buffer(4096), buffer(4096));
        Self { registers: model.registers(), commands, events, requests, streams, produced: 0, model }
    }

    /// Stops translation.
    pub(crate) fn registers_off(&self) {
        self.registers.write32(CR0, self.registers.read32(CR0) & !1);
    }

    /// Starts translation.
    pub(crate) fn registers_on(&mut self) {
        self.run(&[CFGI_ALL]);
        self.run(&[[0x30, 0]]);
        self.registers.write32(CR0, self.registers.read32(CR0) | 1);
    }

    /// Puts another stream table in place.
    pub(crate) fn program_streams(&self, table: &Buffer, config: u32) {
        self.registers.write64(0x80, table.physical().get());
        self.registers.write32(0x88, config);
    }

    /// Publishes commands.
    pub(crate) fn send(&mut self, commands: &[[u64; 2]]) {
        for command in commands {
            let slot = (self.produced as usize & 31) * 2;
            self.commands.words()[slot].store(command[0], SeqCst);
            self.commands.words()[slot + 1].store(command[1], SeqCst);
            self.produced = (self.produced + 1) & 63;
        }
        self.model.platform().write_barrier();
        self.registers.write32(CMDQ_PROD, self.produced);
    }

    /// Carries commands out and waits for them.
    pub(crate) fn run(&mut self, commands: &[[u64; 2]]) {
        self.send(commands);
        self.send(&[SYNC]);
        for _ in 0..1000 {
            if self.registers.read32(CMDQ_CONS) & 0xf_ffff == self.produced {
                return;
            }
        }
        panic!("CMDQ_CONS stays at {:#x}", self.registers.read32(CMDQ_CONS));
    }

    /// Gives slots back, as after their records have been read.
    pub(crate) fn consume(&self, register: usize, value: u32) {
        (0..2).for_each(|_| self.model.platform().read_barrier());
        self.registers.write32(register, value);
    }

    /// Words of a stream's entry, written without a thought.
    pub(crate) fn poke_ste(&self, stream: u32, words: &[u64]) {
        for (index, word) in words.iter().enumerate() {
            self.streams.words()[stream as usize * 8 + index].store(*word, SeqCst);
        }
    }

    /// Makes an entry valid as it should be done: the others first, word 0 last, a CFGI each.
    pub(crate) fn set_ste(&mut self, stream: u32, words: &[u64]) {
        let cfgi = [0x03 | u64::from(stream) << 32, 1];
        self.poke_ste(stream, &[0]);
        self.run(&[cfgi]);
        for (index, word) in words.iter().enumerate().skip(1) {
            self.streams.words()[stream as usize * 8 + index].store(*word, SeqCst);
        }
        self.run(&[cfgi]);
        self.poke_ste(stream, &words[..1]);
        self.run(&[cfgi]);
    }

    pub(crate) fn buffer(&self, bytes: usize) -> Buffer {
        self.model.platform().buffer(bytes)
    }

    pub(crate) fn device(&self) -> Device {
        self.model.device(StreamId::new(STREAM))
    }

    /// The only event so far.
    pub(crate) fn event(&self) -> Record {
        let events = self.model.log().events();
        assert_eq!(events.len(), 1, "{events:?}");
        events[0]
    }

    /// The numbers of the events so far.
    pub(crate) fn event_numbers(&self) -> Vec<u8> {
        self.model.log().events().iter().map(Record::number).collect()
    }

    /// The laws that were broken; they count as noticed.
    pub(crate) fn broken_laws(&self) -> Vec<Law> {
        let mut laws: Vec<_> = self.model.take_violations().into_iter().map(|violation| violation.law).collect();
        laws.dedup();
        laws
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.registers.write32(CR0, 0);
        while self.registers.read32(CR0ACK) != 0 {}
    }
}

/// Stores a word.
pub(crate) fn put(table: &Buffer, index: u64, value: u64) {
    table.words()[index as usize].store(value, SeqCst);
}

pub(crate) fn word(table: &Buffer, index: usize) -> u64 {
    table.words()[index].load(SeqCst)
}

/// STE of a stage 1 stream without substreams: V, Config 101, S1DSS 2, cacheable, shareable.
pub(crate) fn stage1_ste(contexts: &Buffer) -> [u64; 4] {
    [contexts.physical().get() | 0b1011, 0b10 | 1 << 2 | 1 << 4 | 3 << 6, 0, 0]
}

/// Word 0 of a CD: cacheable walks, EPD1, V, AA64, R, A, ASET and an ASID of 7. T0SZ, TG0 and IPS are still to be added.
pub(crate) const CD0: u64 =
    1 << 8 | 1 << 10 | 3 << 12 | 1 << 30 | 1 << 31 | 1 << 41 | 1 << 45 | 1 << 46 | 1 << 47 | 7 << 48;

/// Fills a CD in.
pub(crate) fn put_cd(contexts: &Buffer, index: u64, words: &[u64]) {
    for (offset, word) in words.iter().enumerate() {
        put(contexts, index * 8 + offset as u64, *word);
    }
}

/// Reads one byte, for the sake of whether it works.
pub(crate) fn touch(device: &Device, address: u64) -> Result<u8, Refused> {
    let mut byte = [0];
    device.read(Iova::new(address), &mut byte).map(|()| byte[0])
}

/// Writes one byte.
pub(crate) fn dirty(device: &Device, address: u64) -> Result<(), Refused> {
    device.write(Iova::new(address), &[0x5a])
}
