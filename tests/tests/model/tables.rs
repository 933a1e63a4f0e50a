//! A stream of any configuration, with tables for both stages, by literal numbers.

use smmu::addr::Iova;
use smmu::platform::Registers;
use tests::model::{AtsRefused, AtsTranslation, Buffer, Config};

use super::bench::{Bench, CD0, CR0, STREAM, put, put_cd, stage1_ste};

/// STE.EATS in word 1.
const EATS: u64 = 1 << 28;
/// S2T0SZ 25 from level 1, 4 KiB, cacheable walks, 48 bits out, AArch64, R.
const VTCR: u64 = 25 | 1 << 6 | 1 << 8 | 1 << 10 | 3 << 12 | 5 << 16 | 1 << 19 | 1 << 26;

/// The tables of both stages: stage 1 maps page 0 to the data, page 1 to the same read-only, page 2 beyond stage 2; stage 2
/// maps all memory one to one.
pub(crate) struct Tables {
    pub(crate) contexts: Buffer,
    pub(crate) table: Buffer,
    pub(crate) last: Buffer,
    pub(crate) data: Buffer,
    pub(crate) stage2: Buffer,
    pub(crate) bench: Bench,
}

/// An intermediate address that stage 2 does not map.
pub(crate) const HOLE: u64 = 0x10_0000;

impl Tables {
    /// ATSCHK is set, and `recording` is CR2.REC_CFG_ATS.
    pub(crate) fn new(config: Config, recording: bool) -> Self {
        let mut bench = Bench::new(config);
        bench.registers_off();
        bench.registers.write32(0x2c, 0x2 | u32::from(recording) << 3);
        bench.registers_on();
        bench.registers.write32(CR0, bench.registers.read32(CR0) | 0x10);
        let [contexts, table, last, data, stage2] = [(); 5].map(|()| bench.buffer(4096));
        let page = |buffer: &Buffer| buffer.physical().get();
        put(&table, 0, page(&last) | 3);
        for (index, leaf) in [page(&data) | 0xf47, page(&data) | 0xfc7, HOLE | 0xf47].into_iter().enumerate() {
            put(&last, index as u64, leaf);
        }
        put_cd(&contexts, 0, &[CD0 | 39 | 5 << 32, page(&table), 0, 0xff44]);
        put(&stage2, 2, 0x8000_0000 | 0x7fd);
        Self { contexts, table, last, data, stage2, bench }
    }

    /// Puts the stream's entry in place: STE.Config and STE.EATS.
    pub(crate) fn set(&mut self, config: u64, eats: u64) {
        let [first, second, ..] = stage1_ste(&self.contexts);
        let (first, second) = (first & !0b1111 | config << 1 | 1, second | (eats * EATS));
        self.bench.set_ste(STREAM, &[first, second, 9 | VTCR << 32, self.stage2.physical().get()]);
    }

    /// Asks for a translation, to read and to write.
    pub(crate) fn request(&self, address: u64) -> Result<AtsTranslation, AtsRefused> {
        self.bench.device().request_translation(Iova::new(address), true)
    }
}

impl Drop for Tables {
    fn drop(&mut self) {
        self.bench.set_ste(STREAM, &[0]);
        self.bench.run(&[[0x30, 0], [0x40 | u64::from(STREAM) << 32, 52]]);
    }
}
