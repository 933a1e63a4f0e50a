//! Atomic accesses: they read and write in one step, and fault, stall and hold like either.

use smmu::addr::Iova;
use tests::model::{Buffer, Config, Refused, Stall};

use super::bench::{Bench, CD0, STREAM, put, put_cd, stage1_ste, word};

const SID: u64 = (STREAM as u64) << 32;
const F_PERMISSION: u8 = 0x13;

/// A stream with one page at 0 under stage 1, and with `cd` bits flipped in word 0 of its context.
struct Stream {
    last: Buffer,
    data: Buffer,
    _others: [Buffer; 2],
    bench: Bench,
}

impl Stream {
    fn new(config: Config, cd: u64) -> Self {
        let mut bench = Bench::new(config);
        let [contexts, table, last, data] = [(); 4].map(|()| bench.buffer(4096));
        put(&table, 0, last.physical().get() | 3);
        put(&last, 0, data.physical().get() | 0xf47);
        put_cd(&contexts, 0, &[(CD0 | 39 | 4 << 32) ^ cd, table.physical().get(), 0, 0xff44]);
        bench.set_ste(STREAM, &stage1_ste(&contexts));
        Self { last, data, _others: [contexts, table], bench }
    }

    fn add(&self, address: u64) -> Result<u64, Refused> {
        self.bench.device().fetch_add(Iova::new(address), 5)
    }

    fn stall(&self, address: u64) -> Stall {
        match self.add(address) {
            Err(Refused::Stalled(stall)) => stall,
            other => panic!("{other:?}"),
        }
    }

    /// CMD_RESUME: 1 retries, 2 aborts, 0 reads as zero.
    fn resume(&mut self, tag: u16, action: u64) {
        self.bench.run(&[[0x44 | SID | action << 12, tag.into()]]);
    }

    /// The latest stall tag in an event record.
    fn latest_tag(&self) -> u16 {
        self.bench.model.log().events().last().unwrap().stall().unwrap()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.bench.set_ste(STREAM, &[0]);
        self.bench.run(&[[0x30, 0]]);
    }
}

#[test]
fn they_stall_under_tags_of_their_own_and_are_carried_out_once_resumed() {
    let mut stream = Stream::new(Config::full(), 1 << 44);
    assert_eq!(stream.add(0), Ok(0));
    let [first, second, third] = [0x1000, 0x2000, 0x3000].map(|address| stream.stall(address));
    assert!(first.tag != second.tag && second.tag != third.tag && third.tag != first.tag);
    let device = stream.bench.device();
    put(&stream.last, 1, stream.data.physical().get() | 0xf47);
    stream.resume(first.tag, 1);
    assert_eq!(device.outcome(first), Some(Ok(5u64.to_le_bytes().to_vec())), "what it was");
    assert_eq!(word(&stream.data, 0), 10);
    stream.resume(second.tag, 2);
    assert_eq!(device.outcome(second), Some(Err(Refused::Aborted)));
    stream.resume(third.tag, 0);
    assert_eq!(device.outcome(third), Some(Ok(vec![0; 8])));
}

#[test]
fn a_transaction_that_faults_again_has_another_tag_and_is_still_the_same() {
    let mut stream = Stream::new(Config::full(), 1 << 44);
    let (first, second) = (stream.stall(0x1000), stream.stall(0x2000));
    let device = stream.bench.device();
    stream.resume(first.tag, 2);
    assert_eq!(device.outcome(first), Some(Err(Refused::Aborted)));
    stream.resume(second.tag, 1);
    let again = stream.latest_tag();
    assert_ne!(again, second.tag, "the first one's is free by now");
    assert_eq!(device.outcome(second), None);
    stream.resume(again, 2);
    assert_eq!(device.outcome(second), Some(Err(Refused::Aborted)));
}

#[test]
fn without_an_abort_they_read_as_zero() {
    // CD.A is 0.
    let stream = Stream::new(Config::full(), 1 << 46);
    assert_eq!(stream.add(0x1000), Ok(0));
    put(&stream.data, 0, 7);
    assert_eq!(stream.add(0), Ok(7));
    // Nor does a stalled read bring what it had before, if it is retried in vain.
    let mut stream = Stream::new(Config::full(), 1 << 44);
    let stall = stream.stall(0x1000);
    let record = stream.bench.event();
    assert_eq!(record.0[1] >> 35 & 1, 0, "RnW");
    stream.resume(stall.tag, 0);
    assert_eq!(stream.bench.device().outcome(stall), Some(Ok(vec![0; 8])));
}

#[test]
fn a_missing_right_to_read_is_told_apart() {
    // S2AP: 1 read, 2 write.
    let rnw = |minor: u32, s2ap: u64| {
        let mut bench = Bench::new(Config { minor, ..Config::qemu() });
        let root = bench.buffer(4096);
        put(&root, 2, 0x8000_0000 | 0x73d | s2ap << 6);
        let vtcr = 25 | 1 << 6 | 1 << 8 | 1 << 10 | 3 << 12 | 4 << 16 | 1 << 19 | 1 << 26;
        bench.set_ste(STREAM, &[0b1101, 0, 9 | vtcr << 32, root.physical().get()]);
        assert_eq!(bench.device().fetch_add(Iova::new(root.physical().get()), 1), Err(Refused::Aborted));
        let record = bench.event();
        assert_eq!(record.number(), F_PERMISSION);
        bench.set_ste(STREAM, &[0]);
        bench.run(&[[0x30, 0]]);
        record.0[1] >> 35 & 1
    };
    assert_eq!([rnw(1, 1), rnw(1, 2), rnw(1, 0), rnw(0, 2)], [0, 1, 1, 0]);
}
