//! Which entry a transaction uses, and which entries are illegal.

use smmu::addr::StreamId;
use tests::model::{Buffer, Config, Refused};

use super::bench::{Bench, CD0, STREAM, dirty, put, put_cd, stage1_ste, touch};

const C_BAD_STREAMID: u8 = 0x02;
const C_BAD_STE: u8 = 0x04;
const F_STREAM_DISABLED: u8 = 0x06;
const C_BAD_SUBSTREAMID: u8 = 0x08;
const C_BAD_CD: u8 = 0x0a;

/// What one access with an entry leads to: the event numbers.
fn events_of(config: Config, ste: &[u64]) -> Vec<u8> {
    let mut bench = Bench::new(config);
    bench.set_ste(STREAM, ste);
    assert_eq!(touch(&bench.device(), 0x1000), Err(Refused::Aborted));
    let _ = bench.broken_laws();
    let numbers = bench.event_numbers();
    bench.set_ste(STREAM, &[0]);
    let _ = bench.broken_laws();
    numbers
}

#[test]
fn streams_without_an_entry() {
    assert_eq!(events_of(Config::qemu(), &[0]), [C_BAD_STE]);
    assert!(events_of(Config::qemu(), &[1]).is_empty(), "Config 000 is silent");
    let bench = Bench::new(Config::qemu());
    assert!(touch(&bench.model.device(StreamId::new(64)), 0).is_err());
    assert_eq!(bench.event_numbers(), [C_BAD_STREAMID]);
}

#[test]
fn illegal_stream_table_entries() {
    let full = Config::full;
    let qemu = Config::qemu;
    // Stage 2 as it should be: 39 bits from level 1, 4 KiB, 44 bits out, AArch64, R.
    let stage2 = 25u64 | 1 << 6 | 1 << 8 | 1 << 10 | 3 << 12 | 4 << 16 | 1 << 19 | 1 << 26;
    let with_stage2 = |vtcr: u64, second: u64| vec![0b1101, second, 9 | vtcr << 32, 0x8000_0000];
    let stage1 = |first: u64, second: u64| vec![0b1011 | 0x8000_0000 | first, 0b10 | second, 0, 0];
    let cases = [
        (Config { s1p: false, ..qemu() }, stage1(0, 0), "stage 1 is not there"),
        (Config { s2p: false, ..qemu() }, with_stage2(stage2, 0), "stage 2 is not there"),
        (full(), stage1(0, 1 << 30), "STRW x1"),
        (qemu(), stage1(0, 1 << 27), "S1STALLD with STALL_MODEL 1"),
        (Config { ssidsize: 4, ..full() }, stage1(5 << 59, 0), "S1CDMax above SSIDSIZE"),
        (Config { cd2l: false, ..full() }, stage1(2 << 59 | 1 << 4, 0), "S1Fmt without CD2L"),
        (qemu(), stage1(1 << 44, 0), "S1ContextPtr above OAS"),
        (qemu(), with_stage2(stage2 | 1 << 25, 0), "S2S with STALL_MODEL 1"),
        (qemu(), with_stage2(stage2 & !(1 << 19), 0), "S2AA64 0 without AArch32 tables"),
        (qemu(), with_stage2(stage2 | 1 << 24, 0), "S2HA without HTTU"),
        (Config { httu: 1, ..qemu() }, with_stage2(stage2 | 3 << 23, 0), "S2HD with HTTU 1"),
        (qemu(), with_stage2(stage2 | 3 << 14, 0), "S2TG 3"),
        (qemu(), with_stage2(stage2 & !0x3f | 40, 0), "S2T0SZ 40"),
        (qemu(), with_stage2(stage2 & !0x3f | 19, 0), "S2T0SZ below what 44 bits allow"),
        (qemu(), with_stage2(stage2 & !0xc0, 0), "39 bits from level 2: 256 tables"),
        (qemu(), with_stage2(stage2 | 1 << 20, 0), "S2ENDI on a little-endian SMMU"),
        (Config { vmid16: false, ..qemu() }, vec![0b1101, 0, 0x109 | stage2 << 32, 0x8000_0000], "VMID 0x109"),
        (full(), with_stage2(stage2, 2 << 28), "EATS 2 without both stages"),
        (full(), with_stage2(stage2 | 1 << 25, 1 << 28), "EATS 1 with S2S"),
        (Config { fwb: false, ..qemu() }, with_stage2(stage2, 1 << 25), "S2FWB"),
    ];
    for (config, ste, why) in cases {
        assert_eq!(events_of(config, &ste), [C_BAD_STE], "{why}");
    }
}

#[test]
fn illegal_context_descriptors() {
    let cd = CD0 | 25 | 4 << 32;
    let full = || Config { asid16: false, ..Config::full() };
    let cases = [
        (Config::qemu(), cd & !(1 << 31), 0x8000_0000, "V is 0"),
        (Config::qemu(), cd & !(1 << 46), 0x8000_0000, "A is 0 with TERM_MODEL"),
        (Config::qemu(), cd | 1 << 44, 0x8000_0000, "S with STALL_MODEL 1"),
        (Config::qemu(), cd | 1 << 15, 0x8000_0000, "ENDI"),
        (Config::qemu(), cd & !(1 << 41), 0x8000_0000, "AA64 is 0"),
        (Config::qemu(), cd | 1 << 43, 0x8000_0000, "HA without HTTU"),
        (full(), cd | 1 << 56, 0x8000_0000, "a 9-bit ASID"),
        (Config::qemu(), cd & !0x3f | 40, 0x8000_0000, "T0SZ 40"),
        (Config::qemu(), cd & !0x3f | 15, 0x8000_0000, "T0SZ 15"),
        (Config::qemu(), cd | 3 << 6, 0x8000_0000, "TG0 3"),
        (Config::qemu(), cd, 1 << 44, "TTB0 above IPS"),
        (Config::qemu(), cd & !(1 << 30), 0x8000_0000, "EPD1 0 with TG1 0"),
    ];
    for (config, first, table, why) in cases {
        let mut bench = Bench::new(config);
        let contexts = bench.buffer(4096);
        put_cd(&contexts, 0, &[first, table, 0, 0xff44]);
        bench.set_ste(STREAM, &stage1_ste(&contexts));
        assert_eq!(touch(&bench.device(), 0x1000), Err(Refused::Aborted), "{why}");
        assert_eq!(bench.event_numbers(), [C_BAD_CD], "{why}");
        bench.set_ste(STREAM, &[0]);
        let _ = bench.broken_laws();
    }
}

#[test]
fn two_level_stream_table() {
    let mut bench = Bench::new(Config::qemu());
    bench.registers_off();
    let (first, second, data) = (bench.buffer(4096), bench.buffer(16384), bench.buffer(4096));
    // 2^16 StreamIDs, 2^8 in a second level, of which the descriptor of 0x1200 has the first four.
    bench.program_streams(&first, 16 | 8 << 6 | 1 << 16);
    put(&first, 0x12, second.physical().get() | 3);
    put(&second, 3 * 8, 0b1001);
    put(&second, 3 * 8 + 1, 1 << 44);
    bench.registers_on();
    let address = data.physical().get();
    assert_eq!(dirty(&bench.model.device(StreamId::new(0x1203)), address), Ok(()));
    for stream in [0x1202, 0x1204, 0x1303, 0x1_0000] {
        assert!(dirty(&bench.model.device(StreamId::new(stream)), address).is_err());
    }
    assert_eq!(bench.event_numbers(), [C_BAD_STE, C_BAD_STREAMID, C_BAD_STREAMID, C_BAD_STREAMID]);
    bench.registers_off();
}

/// A stream with four contexts, the last of which is valid and maps a page at address 0.
struct Substreams {
    _buffers: Vec<Buffer>,
    bench: Bench,
}

impl Substreams {
    /// `s1dss` and `s1fmt` as in the STE; the page is in context `valid`.
    fn new(s1dss: u64, s1fmt: u64, valid: u64) -> Self {
        let mut bench = Bench::new(Config::full());
        let buffers: Vec<_> = [4096, 4096, 4096, 4096, 65536].map(|bytes| bench.buffer(bytes)).into();
        let [contexts, table, last, data, leaf] = &buffers[..] else { panic!("five") };
        put(table, 0, last.physical().get() | 3);
        put(last, 0, data.physical().get() | 0xf47);
        let cd = [CD0 | 39 | 5 << 32, table.physical().get(), 0, 0xff44];
        match s1fmt {
            0 => put_cd(contexts, valid, &cd),
            _ => {
                put(contexts, 0, leaf.physical().get() | 1);
                put_cd(leaf, valid, &cd);
            }
        }
        let [first, second, ..] = stage1_ste(contexts);
        bench.set_ste(STREAM, &[first | 2 << 59 | s1fmt << 4, second & !3 | s1dss, 0, 0]);
        Self { _buffers: buffers, bench }
    }
}

impl Drop for Substreams {
    fn drop(&mut self) {
        self.bench.set_ste(STREAM, &[0]);
        self.bench.run(&[[0x30, 0]]);
    }
}

#[test]
fn substreams_choose_contexts() {
    for s1fmt in [0, 1, 2] {
        let streams = Substreams::new(0, s1fmt, 3);
        let device = streams.bench.device();
        assert_eq!(touch(&device.substream(3), 0), Ok(0), "S1Fmt {s1fmt}");
        assert!(touch(&device.substream(2), 0).is_err());
        assert!(touch(&device.substream(4), 0).is_err());
        assert!(touch(&device, 0).is_err());
        assert_eq!(streams.bench.event_numbers(), [C_BAD_CD, C_BAD_SUBSTREAMID, F_STREAM_DISABLED]);
    }
}

#[test]
fn transactions_without_a_substream() {
    let streams = Substreams::new(1, 0, 3);
    let data = streams.bench.buffer(4096);
    assert_eq!(dirty(&streams.bench.device(), data.physical().get()), Ok(()), "S1DSS 1 bypasses stage 1");
    let streams = Substreams::new(2, 0, 0);
    assert_eq!(touch(&streams.bench.device(), 0), Ok(0), "S1DSS 2 uses context 0");
    assert!(touch(&streams.bench.device().substream(0), 0).is_err());
    assert_eq!(streams.bench.event_numbers(), [F_STREAM_DISABLED], "which nobody else may");
}
