//! Table walks: where descriptors are looked for, what they permit, how they fail.

use smmu::addr::Iova;
use tests::model::{Buffer, Caching, Config, Device, Fetched, Refused};

use super::bench::{Bench, CD0, STREAM, dirty, put, put_cd, stage1_ste, touch, word};

/// A stage 1 leaf of normal memory: AttrIndx 1, inner shareable, AF, nG, unprivileged, writable, a page.
const PAGE: u64 = 0xf47;
const TABLE: u64 = 0x3;

fn at(buffer: &Buffer) -> u64 {
    buffer.physical().get()
}

/// A stage 1 stream whose tables start at level 1 with a granule of 4 KiB (T0SZ 25), down to a page at 0x4000_0000.
struct Paged {
    tables: [Buffer; 3],
    data: Buffer,
    contexts: Buffer,
    device: Device,
    bench: Bench,
}

const INPUT: u64 = 0x4000_0000;

impl Paged {
    fn new(config: Config, context: u64) -> Self {
        let mut bench = Bench::new(config);
        let tables = [bench.buffer(4096), bench.buffer(4096), bench.buffer(4096)];
        let (data, contexts) = (bench.buffer(65536), bench.buffer(4096));
        put(&tables[0], 1, at(&tables[1]) | TABLE);
        put(&tables[1], 0, at(&tables[2]) | TABLE);
        put(&tables[2], 0, at(&data) | PAGE);
        put_cd(&contexts, 0, &[CD0 | 25 | 4 << 32 | context, at(&tables[0]), 0, 0xff44]);
        bench.set_ste(STREAM, &stage1_ste(&contexts));
        let device = bench.device();
        Self { tables, data, contexts, device, bench }
    }

    /// The same with other bits in the leaf.
    fn with_leaf(config: Config, context: u64, leaf: u64) -> Self {
        let paged = Self::new(config, context);
        put(&paged.tables[2], 0, at(&paged.data) | leaf);
        paged
    }
}

impl Drop for Paged {
    /// The stream goes before its tables.
    fn drop(&mut self) {
        self.bench.set_ste(STREAM, &[0]);
        self.bench.run(&[[0x30, 0]]);
    }
}

#[test]
fn stage1_splits_addresses_by_granule() {
    // Granule, TG0, T0SZ, and the indices from the first level on, of input 0x4567_89ab_c000.
    let examples: [(u64, u64, u64, &[u64]); 3] = [
        (12, 0, 16, &[0x08a, 0x19e, 0x04d, 0x0bc]),
        (14, 2, 16, &[0, 0x456, 0x3c4, 0x6af]),
        (16, 1, 16, &[0x11, 0xb3c, 0x9ab]),
    ];
    for (granule, tg0, t0sz, indices) in examples {
        let mut bench = Bench::new(Config::qemu());
        let tables: Vec<_> = indices.iter().map(|_| bench.buffer(1 << granule)).collect();
        let (data, contexts) = (bench.buffer(1 << granule), bench.buffer(4096));
        for (level, &index) in indices.iter().enumerate() {
            let next = tables.get(level + 1).map_or(at(&data) | PAGE, |next| at(next) | TABLE);
            put(&tables[level], index, next);
        }
        put_cd(&contexts, 0, &[CD0 | t0sz | tg0 << 6 | 4 << 32, at(&tables[0]), 0, 0xff44]);
        bench.set_ste(STREAM, &stage1_ste(&contexts));
        let offset = 0x4567_89ab_c000u64 & ((1 << granule) - 1);
        put(&data, offset / 8, 0x77);
        assert_eq!(touch(&bench.device(), 0x4567_89ab_c000), Ok(0x77), "granule 2^{granule}");
        let first = 4 - indices.len() as i8;
        for level in first..4 {
            assert_eq!(bench.model.log().fetches(Fetched::Stage1(level)), 1);
        }
        bench.set_ste(STREAM, &[0]);
        bench.run(&[[0x30, 0]]);
    }
}

#[test]
fn stage2_concatenates_tables() {
    // 4 KiB, T0SZ 24, start at level 1: IPA 0xab_cdef_1000 is entry 0x2af of two tables side by side.
    let mut bench = Bench::new(Config::qemu());
    let (root, middle, last, data) = (bench.buffer(8192), bench.buffer(4096), bench.buffer(4096), bench.buffer(4096));
    put(&root, 0x2af, at(&middle) | TABLE);
    put(&middle, 0x06f, at(&last) | TABLE);
    put(&last, 0x0f1, at(&data) | 0x7ff);
    let vtcr = 24 | 1 << 6 | 1 << 8 | 1 << 10 | 3 << 12 | 4 << 16 | 1 << 19 | 1 << 26;
    bench.set_ste(STREAM, &[0b1101, 0, 9 | vtcr << 32, at(&root)]);
    let device = bench.device();
    assert_eq!(dirty(&device, 0xab_cdef_1008), Ok(()));
    assert_eq!(word(&data, 1), 0x5a);
    assert_eq!(touch(&device, 0xab_cdef_2000), Err(Refused::Aborted));
    let record = bench.event();
    assert_eq!((record.number(), record.0[1] >> 39 & 1, record.0[3]), (0x10, 1, 0xab_cdef_2000));
    bench.set_ste(STREAM, &[0]);
    bench.run(&[[0x30, 0]]);
}

/// What one leaf permits: unprivileged read and write, privileged read and write, unprivileged and privileged execute.
fn permissions(config: Config, context: u64, table: u64, leaf: u64) -> [bool; 6] {
    let paged = Paged::with_leaf(config, context, leaf);
    put(&paged.tables[1], 0, at(&paged.tables[2]) | TABLE | table);
    let (user, kernel) = (paged.device.clone(), paged.device.privileged());
    let execute = |device: &Device| device.execute(Iova::new(INPUT), &mut [0]).is_ok();
    [
        touch(&user, INPUT).is_ok(),
        dirty(&user, INPUT).is_ok(),
        touch(&kernel, INPUT).is_ok(),
        dirty(&kernel, INPUT).is_ok(),
        execute(&user),
        execute(&kernel),
    ]
}

#[test]
fn stage1_permissions() {
    let plain = |leaf| permissions(Config::qemu(), 0, 0, leaf);
    let (yes, no) = (true, false);
    assert_eq!(plain(0x707), [no, no, yes, yes, yes, yes], "AP 00: privileged only");
    assert_eq!(plain(0x747), [yes, yes, yes, yes, yes, no], "AP 01: what anybody writes, privilege does not execute");
    assert_eq!(plain(0x787), [no, no, yes, no, yes, yes], "AP 10");
    assert_eq!(plain(0x7c7), [yes, no, yes, no, yes, yes], "AP 11");
    assert_eq!(plain(0x7c7 | 1 << 54), [yes, no, yes, no, no, yes], "UXN");
    assert_eq!(plain(0x7c7 | 1 << 53), [yes, no, yes, no, yes, no], "PXN");
    let table = |bits| permissions(Config::qemu(), 0, bits, 0x747);
    assert_eq!(table(1 << 61), [no, no, yes, yes, yes, yes], "APTable[0]");
    assert_eq!(table(1 << 62), [yes, no, yes, no, yes, yes], "APTable[1]");
    assert_eq!(table(1 << 60), [yes, yes, yes, yes, no, no], "UXNTable");
    assert_eq!(permissions(Config::qemu(), 1 << 36, 0, 0x747)[4], no, "WXN");
    assert_eq!(permissions(Config::qemu(), 1 << 40, 0, 0x747)[..4], [yes, yes, no, no], "PAN");
}

#[test]
fn access_flag_and_dirty_state() {
    let paged = Paged::with_leaf(Config::qemu(), 0, PAGE & !0x400);
    assert_eq!(touch(&paged.device, INPUT), Err(Refused::Aborted));
    assert_eq!(paged.bench.event().number(), 0x12);
    assert!(touch(&Paged::with_leaf(Config::qemu(), 1 << 35, PAGE & !0x400).device, INPUT).is_ok(), "AFFD");

    let httu = Config { httu: 2, ..Config::qemu() };
    let paged = Paged::with_leaf(httu.clone(), 1 << 43, PAGE & !0x400);
    assert!(touch(&paged.device, INPUT).is_ok());
    assert_eq!(word(&paged.tables[2], 0), at(&paged.data) | PAGE, "HA sets AF");

    // Writable-clean: DBM and AP[2].
    let clean = 1 << 51 | PAGE | 0x80;
    let paged = Paged::with_leaf(httu, 3 << 42, clean);
    assert!(touch(&paged.device, INPUT).is_ok());
    assert_eq!(word(&paged.tables[2], 0), at(&paged.data) | clean, "a read leaves it clean");
    assert!(dirty(&paged.device, INPUT).is_ok());
    assert_eq!(word(&paged.tables[2], 0), at(&paged.data) | clean & !0x80, "HD clears AP[2]");
}

#[test]
fn faults_on_the_way() {
    // Input beyond T0SZ, an invalid descriptor, an output beyond IPS, a block where there is none.
    let cases = [(INPUT, 0, 0x10), (1 << 39, PAGE, 0x10), (INPUT, 1 << 40 | PAGE, 0x11), (INPUT, PAGE & !2, 0x10)];
    for (input, leaf, number) in cases {
        let paged = Paged::new(Config::qemu(), 0);
        put(&paged.contexts, 0, word(&paged.contexts, 0) & !(7 << 32) | 2 << 32);
        put(&paged.tables[2], 0, leaf);
        assert_eq!(touch(&paged.device, input), Err(Refused::Aborted));
        let record = paged.bench.event();
        assert_eq!((record.number(), record.stream(), record.input()), (number, STREAM, input));
        assert_eq!(record.0[1], 1 << 35 | 2 << 40, "a read, stage 1, CLASS IN");
    }
    // A table that is not in memory.
    let paged = Paged::new(Config::qemu(), 0);
    put(&paged.tables[1], 0, 0x10_0000 | TABLE);
    assert_eq!(touch(&paged.device, INPUT), Err(Refused::Aborted));
    let record = paged.bench.event();
    assert_eq!((record.number(), record.0[1] >> 40 & 3, record.0[3]), (0x0b, 1, 0x10_0000));
}

#[test]
fn blocks_and_contiguous_pages() {
    let paged = Paged::new(Config { caching: Caching::Greedy, ..Config::qemu() }, 0);
    let base = at(&paged.data);
    for page in 0..16 {
        put(&paged.tables[2], page, (base + page * 4096) | PAGE | 1 << 52);
    }
    put(&paged.data, 15 * 512, 0x99);
    assert_eq!(touch(&paged.device, INPUT), Ok(0));
    assert_eq!(touch(&paged.device, INPUT + 0xf000), Ok(0x99));
    assert_eq!(paged.bench.model.log().fetches(Fetched::Stage1(3)), 1, "one entry serves all sixteen");

    // A block of 2 MiB at level 2, which the data is somewhere in.
    let paged = Paged::new(Config::qemu(), 0);
    let block = at(&paged.data) & !0x1f_ffff;
    put(&paged.tables[1], 1, block | 0xf45);
    put(&paged.data, 0, 0x42);
    assert_eq!(touch(&paged.device, INPUT + 0x20_0000 + at(&paged.data) - block), Ok(0x42));
}

/// Both stages: stage 2 maps the whole GiB of memory one to one with a block, and a hole below it.
struct Nested {
    stage2: Buffer,
    tables: [Buffer; 3],
    data: Buffer,
    _contexts: Buffer,
    bench: Bench,
}

impl Nested {
    fn new() -> Self {
        let mut bench = Bench::new(Config::qemu());
        let tables = [bench.buffer(4096), bench.buffer(4096), bench.buffer(4096)];
        let (stage2, data, contexts) = (bench.buffer(4096), bench.buffer(4096), bench.buffer(4096));
        put(&stage2, 2, 0x8000_0000 | 0x7fd);
        put(&tables[0], 1, at(&tables[1]) | TABLE);
        put(&tables[1], 0, at(&tables[2]) | TABLE);
        put(&tables[2], 0, at(&data) | PAGE);
        put_cd(&contexts, 0, &[CD0 | 25 | 4 << 32, at(&tables[0]), 0, 0xff44]);
        let [first, second, ..] = stage1_ste(&contexts);
        let vtcr = 25 | 1 << 6 | 1 << 8 | 1 << 10 | 3 << 12 | 4 << 16 | 1 << 19 | 1 << 26;
        bench.set_ste(STREAM, &[first | 0b1111, second, 9 | vtcr << 32, at(&stage2)]);
        Self { stage2, tables, data, _contexts: contexts, bench }
    }
}

impl Drop for Nested {
    fn drop(&mut self) {
        self.bench.set_ste(STREAM, &[0]);
        self.bench.run(&[[0x30, 0]]);
    }
}

#[test]
fn nested_translation_and_its_faults() {
    let nested = Nested::new();
    assert!(dirty(&nested.bench.device(), INPUT).is_ok());
    assert_eq!(word(&nested.data, 0), 0x5a);

    let class = |prepare: &dyn Fn(&Nested)| {
        let nested = Nested::new();
        prepare(&nested);
        assert_eq!(touch(&nested.bench.device(), INPUT), Err(Refused::Aborted));
        let record = nested.bench.event();
        (record.number(), record.0[1] >> 39 & 1, record.0[1] >> 40 & 3, record.0[3])
    };
    let hole = 0x10_0000;
    assert_eq!(class(&|n| put(&n.tables[2], 0, hole | PAGE)), (0x10, 1, 2, hole), "the output");
    assert_eq!(class(&|n| put(&n.tables[1], 0, hole | TABLE)), (0x10, 1, 1, hole), "a descriptor");
    assert_eq!(class(&|n| put(&n.stage2, 2, 0)).2, 0, "the CD");
    assert_eq!(class(&|n| put(&n.tables[2], 0, 0)), (0x10, 0, 2, 0), "stage 1 itself");
    assert_eq!(class(&|n| put(&n.stage2, 2, 0x8000_0000 | 0x77d & !0x40)).0, 0x13, "not readable");
}

#[test]
fn execute_never_of_stage2_depends_on_privilege() {
    // With XNX both bits together still let privilege execute.
    let execute = |bits: u64, privileged: bool| {
        let mut bench = Bench::new(Config::qemu());
        let root = bench.buffer(4096);
        put(&root, 2, 0x8000_0000 | 0x7fd | bits << 53);
        let vtcr = 25 | 1 << 6 | 1 << 8 | 1 << 10 | 3 << 12 | 4 << 16 | 1 << 19 | 1 << 26;
        bench.set_ste(STREAM, &[0b1101, 0, 9 | vtcr << 32, at(&root)]);
        let device = if privileged { bench.device().privileged() } else { bench.device() };
        let result = device.execute(Iova::new(at(&root)), &mut [0]).is_ok();
        bench.set_ste(STREAM, &[0]);
        bench.run(&[[0x30, 0]]);
        result
    };
    let both = |bits| (execute(bits, true), execute(bits, false));
    assert_eq!([both(0), both(1), both(2), both(3)], [(true, true), (false, true), (false, false), (true, false)]);
}
