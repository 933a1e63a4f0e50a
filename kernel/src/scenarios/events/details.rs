//! An event taken apart, field by field, for programs.

use smmu::addr::{Iova, PhysAddr};
use smmu::arch::event::{Access, AccessDirection, Event, EventKind, FaultClass, Stage, TranslationFault};

use crate::console::record::Text;
use crate::record;

/// What events have beside their name and source; `None` for what an event lacks.
#[derive(Default)]
struct Details {
    access: Option<Access>,
    stage: Option<Stage>,
    class: Option<FaultClass>,
    input: Option<Iova>,
    ipa: Option<Iova>,
    address: Option<PhysAddr>,
    is_stalled: Option<bool>,
}

impl From<&EventKind> for Details {
    fn from(kind: &EventKind) -> Self {
        match *kind {
            EventKind::Fetch(fault) => Self { address: Some(fault.address), ..Self::default() },
            EventKind::WalkEabt { access, stage, class, input, address, .. } => Self {
                access: Some(access),
                stage: Some(stage),
                class: Some(class),
                input: Some(input),
                address: Some(address),
                ..Self::default()
            },
            EventKind::Translation(TranslationFault { stall, access, stage, class, input, ipa, .. }) => Self {
                access: Some(access),
                stage: Some(stage),
                class: Some(class),
                input: Some(input),
                ipa,
                is_stalled: Some(stall.is_some()),
                ..Self::default()
            },
            _ => Self::default(),
        }
    }
}

/// Makes a record of `event`, which came of `case`.
pub(super) fn record(case: &str, event: &Event) {
    let Details { access, stage, class, input, ipa, address, is_stalled } = Details::from(&event.kind);
    record!(
        "event",
        "case" => case,
        "name" => event.kind.name(),
        "stream" => event.source.stream.get(),
        "substream" => event.source.substream.map(|substream| substream.get()),
        "direction" => access.map(|access| match access.direction {
            AccessDirection::Read => "read",
            AccessDirection::Write => "write",
        }),
        "instruction" => access.map(|access| access.instruction),
        "privileged" => access.map(|access| access.privileged),
        "stage" => stage.map(|stage| match stage {
            Stage::Stage1 => 1_u8,
            Stage::Stage2 => 2,
        }),
        "class" => class.map(|class| match class {
            FaultClass::Cd => "CD",
            FaultClass::Tt => "TT",
            FaultClass::In => "IN",
            FaultClass::Reserved => "reserved",
        }),
        "input" => input.map(Text),
        "ipa" => ipa.map(Text),
        "address" => address.map(Text),
        "stalled" => is_stalled,
        "text" => Text(event),
    );
}
