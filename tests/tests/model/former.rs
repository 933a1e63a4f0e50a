//! Former owners of an SMMU, and their successors.

use std::sync::atomic::Ordering::SeqCst;

use smmu::addr::{Iova, StreamId};
use smmu::device::{BootPolicy, DeviceError, Smmu};
use smmu::platform::Registers;
use tests::model::{Buffer, Config, Model, ModelPlatform};

use super::bench::{Bench, CD0, CR0, STREAM, put, put_cd, stage1_ste};
use super::watch::Working;

pub(crate) fn adopt(model: &Model, streams: &[u32]) -> Result<Smmu<ModelPlatform>, DeviceError> {
    let streams: Vec<_> = streams.iter().copied().map(StreamId::new).collect();
    Smmu::bring_up(model.platform(), model.registers(), true, BootPolicy::Adopt(&streams))
}

pub(crate) fn boot_streams(smmu: &Smmu<ModelPlatform>) -> Vec<u32> {
    smmu.boot_streams().map(StreamId::get).collect()
}

/// A former owner of literal numbers, with a page for [`STREAM`] at address 0 and one for the next stream.
pub(crate) struct Former {
    pub(crate) buffers: Vec<Buffer>,
    pub(crate) bench: Bench,
}

impl Former {
    pub(crate) fn new(config: Config) -> Self {
        let mut bench = Bench::new(config);
        let mut buffers = Vec::new();
        for stream in [STREAM, STREAM + 1] {
            let [contexts, table, last, data] = [(); 4].map(|()| bench.buffer(4096));
            put(&table, 0, last.physical().get() | 3);
            put(&last, 0, data.physical().get() | 0xf47);
            put(&data, 0, 0x77);
            put_cd(
                &contexts,
                0,
                &[(CD0 | 39 | 4 << 32) + (u64::from(stream) << 48), table.physical().get(), 0, 0xff44],
            );
            let [first, second, ..] = stage1_ste(&contexts);
            // Bits of word 1 that are software's: the former owner's, not ours.
            bench.set_ste(stream, &[first, second | 0xf << 20, 0, 0]);
            buffers.extend([contexts, table, last, data]);
        }
        // Entries that are invalid, and full of what somebody left there.
        bench.poke_ste(STREAM + 2, &[0, !0, !0, !0, !0, !0, !0, !0]);
        Self { buffers, bench }
    }

    pub(crate) fn working(&self) -> Working {
        Working { device: self.bench.model.device(StreamId::new(STREAM)), iova: Iova::new(0), word: 0x77 }
    }

    pub(crate) fn ste_word(&self, stream: u32, word: usize) -> u64 {
        self.bench.streams.words()[stream as usize * 8 + word].load(SeqCst)
    }
}

impl Drop for Former {
    fn drop(&mut self) {
        self.bench.registers.write32(CR0, 0);
    }
}
