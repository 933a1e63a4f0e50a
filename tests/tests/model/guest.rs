//! Guests on the model.

use std::sync::Arc;

use smmu::addr::StreamId;
use smmu::device::Smmu;
use smmu::pgtable::TableConfig;
use tests::guest::{self, stage2_config};
use tests::model::{Config, Device, Model, ModelPlatform};

use super::system::bring_up;

pub(crate) type Vm = guest::Vm<ModelPlatform, Device>;

/// An SMMU that is up.
pub(crate) fn smmu(model: &Model) -> Arc<Smmu<ModelPlatform>> {
    Arc::new(bring_up(model).unwrap())
}

/// A guest with a device of its own.
pub(crate) fn vm(model: &Model, smmu: &Arc<Smmu<ModelPlatform>>, stream: u32, number: u8) -> Vm {
    vm_with(model, smmu, stream, number, &stage2_config())
}

pub(crate) fn vm_with(
    model: &Model,
    smmu: &Arc<Smmu<ModelPlatform>>,
    stream: u32,
    number: u8,
    config: &TableConfig,
) -> Vm {
    let stream = StreamId::new(stream);
    Vm::new(model.platform(), smmu, stream, model.device(stream), number, config)
}

/// An SMMU with everything, but for 44-bit addresses.
pub(crate) fn full() -> Config {
    Config { oas: 4, ..Config::full() }
}
