//! The model as what sequences are run against.

use smmu::addr::{Iova, StreamId};
use smmu::iommu::PagingDomain;

use super::{Config, Device, Model, ModelPlatform, ModelRegisters, Violation};
use crate::sequence::{Backend, Deviation, signature};

/// A model with some devices. It lives for many sequences, and each finds it as the one before left it.
#[derive(Debug)]
pub struct ModelBackend {
    model: Model,
    devices: Vec<(StreamId, Device)>,
}

/// Laws that the driver broke in one sequence.
#[derive(Debug, thiserror::Error)]
#[error("laws were broken: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct BrokenLaws(pub Vec<Violation>);

impl ModelBackend {
    /// A model as after reset, with devices of these StreamIDs. What the driver frees it gets back at its next
    /// allocation, so that stale translations lead into what is in use.
    #[must_use]
    pub fn new(config: Config, streams: Vec<StreamId>) -> Self {
        let model = Model::new(config);
        model.platform().reuse_freed_memory(true);
        let devices = streams.into_iter().map(|stream| (stream, model.device(stream))).collect();
        Self { model, devices }
    }

    fn judge_entry(&self, device: usize, judge: bool) {
        if let Some(&(stream, _)) = self.devices.get(device) {
            self.model.judge_entries_of(stream, judge);
        }
    }
}

impl Backend for ModelBackend {
    type Platform = ModelPlatform;
    type Error = BrokenLaws;

    fn platform(&self) -> &'static ModelPlatform {
        self.model.platform()
    }

    fn restore(&mut self) -> Result<(), BrokenLaws> {
        self.model.clear_log();
        (0..self.devices.len()).for_each(|device| self.judge_entry(device, true));
        Ok(())
    }

    fn registers(&self) -> ModelRegisters {
        self.model.registers()
    }

    fn streams(&self) -> Vec<StreamId> {
        self.devices.iter().map(|&(stream, _)| stream).collect()
    }

    fn attached(&mut self, _device: usize, _domain: &dyn PagingDomain<ModelPlatform>) -> Result<(), BrokenLaws> {
        Ok(())
    }

    fn overwriting(&mut self, device: usize) {
        self.judge_entry(device, false);
    }

    fn detached(&mut self, device: usize) {
        self.judge_entry(device, true);
    }

    fn word(&self, device: usize, index: u16) -> u32 {
        self.devices.get(device).map_or(0, |&(stream, _)| signature(stream, index))
    }

    fn write(&mut self, device: usize, iova: Iova, index: u16) -> Result<(), BrokenLaws> {
        let word = self.word(device, index);
        // Whether it was refused is told by the event and by memory.
        let _ = self.devices.get(device).map(|(_, device)| device.write(iova, &word.to_le_bytes()));
        Ok(())
    }

    fn read(&mut self, device: usize, iova: Iova) -> Result<Option<u32>, BrokenLaws> {
        let mut word = [0; 4];
        let read = self.devices.get(device).map(|(_, device)| device.read(iova, &mut word));
        Ok(Some(if let Some(Ok(())) = read { u32::from_le_bytes(word) } else { 0 }))
    }

    fn finished(&mut self) -> Result<(), BrokenLaws> {
        let violations = self.model.take_violations();
        if violations.is_empty() { Ok(()) } else { Err(BrokenLaws(violations)) }
    }

    fn bytes_in_use(&self) -> Option<u64> {
        Some(self.model.platform().bytes_in_use())
    }

    /// It is the architecture, as far as the model has it.
    fn is_known_for(&self, _deviation: Deviation) -> bool {
        false
    }
}
