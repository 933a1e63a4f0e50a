//! A guest's stream table entry, checked and completed with what is its hypervisor's.

use super::RefusedEntry;
use crate::addr::StreamId;
use crate::arch::command::CommandError;
use crate::arch::stream_table::{Config, Eats, S1Fmt, Stage1Stream, Stage2Stream, StreamTableEntry, Strw};
use crate::device::{DeviceError, Features, Smmu};
use crate::platform::Platform;

/// What a guest's streams get from its hypervisor, and how much of the SMMU the guest may have.
///
/// ```
/// use smmu::addr::{StreamId, Vmid};
/// use smmu::arch::stream_table::StreamTableEntry;
/// use smmu::device::{DeviceError, Guest, NestedParent, RefusedCommand, Smmu};
/// use smmu::pgtable::PageTable;
/// use smmu::platform::Platform;
///
/// /// A device is handed to a guest, whose memory `stage2` maps. It aborts until the guest has something for it.
/// fn hand_over<P: Platform>(
///     smmu: &Smmu<P>,
///     stage2: &PageTable<P>,
///     stream: StreamId,
/// ) -> Result<(Vmid, NestedParent), DeviceError> {
///     let vmid = smmu.take_vmid()?;
///     let parent = NestedParent::new(smmu.stage2_stream(vmid, stage2)?);
///     smmu.attach(stream, &StreamTableEntry::abort())?;
///     Ok((vmid, parent))
/// }
///
/// /// What the guest's stream table says about the device takes effect: `Guest::reload`.
/// fn reload<P: Platform>(
///     smmu: &Smmu<P>,
///     parent: &NestedParent,
///     stream: StreamId,
///     guests_entry: [u64; 8],
/// ) -> Result<(), DeviceError> {
///     // One that is refused is illegal to the guest: its transactions record C_BAD_STE.
///     let entry = parent.entry(smmu.features(), guests_entry).unwrap_or(StreamTableEntry::INVALID);
///     smmu.replace_nested(stream, &entry)
/// }
///
/// /// The guest has written its CMDQ_PROD: `Err` tells where its queue stops, and why.
/// fn kick<P: Platform>(
///     smmu: &Smmu<P>,
///     guest: &mut impl Guest,
///     vmid: Vmid,
///     commands: &[[u64; 2]],
/// ) -> Result<(), RefusedCommand> {
///     smmu.forward(guest, vmid, commands)
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NestedParent {
    /// Stage 2 under the guest's VMID ([`Smmu::stage2_stream`]). SHCFG and MEV of all entries are these; EATS is not.
    pub stage2: Stage2Stream,
    /// Bits of a SubstreamID that the guest may use: IDR1.SSIDSIZE as the guest is told. The SMMU may have fewer.
    pub substream_id_bits: u8,
    /// What it means if the guest's entry asks for ATS: nothing, full ATS, by which the device is believed to access no
    /// other addresses than it was told, or split-stage ATS, where each of its accesses still passes stage 2.
    pub ats: Eats,
    /// Whether faults of stage 1 may stall, as far as the guest's contexts say so. Each takes one of the stalls that all
    /// streams of the SMMU share (IDR5.STALL_MAX) until the guest answers, if it ever does. Never for PCIe.
    pub stalls: bool,
}

impl NestedParent {
    /// A guest without substreams, ATS and stalls.
    #[must_use]
    pub const fn new(stage2: Stage2Stream) -> Self {
        Self { stage2, substream_id_bits: 0, ats: Eats::Off, stalls: false }
    }

    /// The entry that the SMMU gets for one that the guest wrote (eight words, lowest first, as they are in its memory).
    ///
    /// Of an entry with stage 1 this is the guest's: where its contexts are, by addresses that stage 2 translates
    /// (S1ContextPtr, S1Fmt, S1CDMax), how they are read (S1CIR, S1COR, S1CSH), S1DSS, S1STALLD and EATS. Its bypass becomes
    /// stage 2 alone, its abort remains one, and one that is not valid makes [`StreamTableEntry::INVALID`]. All that the entry
    /// says beyond that does not count, as on an SMMU that has only stage 1, no EL2 and no overrides of attributes; that is
    /// what the guest has to be told that it has.
    ///
    /// Where the contexts are and what they say is not looked at: the SMMU reads them through stage 2.
    ///
    /// # Errors
    ///
    /// [`RefusedEntry`] says which field. To the guest such an entry is illegal: give the stream
    /// [`StreamTableEntry::INVALID`], and the SMMU records C_BAD_STE for the guest's transactions.
    pub fn entry(&self, features: &Features, words: [u64; 8]) -> Result<StreamTableEntry, RefusedEntry> {
        let asked = StreamTableEntry::from_words(words);
        match asked.config() {
            _ if !asked.is_valid() => Ok(StreamTableEntry::INVALID),
            Config::Abort => Ok(StreamTableEntry::abort()),
            Config::Bypass => Ok(StreamTableEntry::stage2(&Stage2Stream { ats: Eats::Off, ..self.stage2 })),
            Config::Stage1 if features.stage1() => {
                Ok(StreamTableEntry::nested(&self.stage1(features, &asked)?, &self.stage2))
            }
            config => Err(RefusedEntry::Config { config }),
        }
    }

    /// What the guest asks for at stage 1, if it may have that.
    fn stage1(&self, features: &Features, asked: &StreamTableEntry) -> Result<Stage1Stream, RefusedEntry> {
        let world = asked.world_code();
        if world != Strw::El1 as u8 {
            return Err(RefusedEntry::World { code: world });
        }
        let (log2_contexts, format) = self.contexts(features, asked)?;
        let context_table = asked.context_table();
        let input_bits = 64_u8.saturating_sub(self.stage2.t0sz);
        if context_table.get().checked_shr(input_bits.into()).unwrap_or(0) != 0 {
            return Err(RefusedEntry::ContextPointer { address: context_table, input_bits });
        }
        if asked.stall_disabled() && !features.stall_optional() {
            return Err(RefusedEntry::StallDisabled);
        }
        let ats = match (asked.ats(), self.possible_ats(features)) {
            (Some(Eats::Off), _) => Eats::Off,
            (Some(Eats::Full), possible @ (Eats::Full | Eats::SplitStage)) => possible,
            (eats, _) => return Err(RefusedEntry::Ats { eats }),
        };
        Ok(Stage1Stream {
            format,
            log2_contexts,
            default_substream: asked.default_substream(),
            stall_disabled: features.stall_optional() && (asked.stall_disabled() || !self.stalls),
            ats,
            shareability: self.stage2.shareability,
            merge_events: self.stage2.merge_events,
            ..Stage1Stream::with_one_context(context_table, asked.context_walk())
        })
    }

    /// S1CDMax and S1Fmt, which do not count without substreams.
    fn contexts(&self, features: &Features, asked: &StreamTableEntry) -> Result<(u8, S1Fmt), RefusedEntry> {
        let most = self.substream_id_bits.min(features.substream_id_bits());
        let (log2_contexts, format) = (asked.log2_contexts(), asked.format());
        if most == 0 || log2_contexts == 0 {
            return Ok((0, S1Fmt::Linear));
        }
        if log2_contexts > most {
            return Err(RefusedEntry::Contexts { log2_contexts, most });
        }
        if format != S1Fmt::Linear && !features.two_level_context_table() {
            return Err(RefusedEntry::Format { format });
        }
        Ok((log2_contexts, format))
    }

    /// What of the permitted ATS the SMMU has (IHI 0070, 5.2.2).
    fn possible_ats(&self, features: &Features) -> Eats {
        match self.ats {
            Eats::SplitStage if !features.split_stage_ats() => Eats::Off,
            _ if !features.ats() || self.stage2.stall => Eats::Off,
            ats => ats,
        }
    }
}

impl<P: Platform> Smmu<P> {
    /// Gives an attached stream the entry that its guest now asks for ([`NestedParent::entry`]), as
    /// [`replace`](Self::replace) does. Before the device may use ATS it forgets what it has kept from when it last could.
    ///
    /// Translations under the VMID stay cached: they are of the guest's own memory, and it invalidates them.
    ///
    /// # Errors
    ///
    /// As [`replace`](Self::replace) and [`flush_atc`](Self::flush_atc). With [`DeviceError::Command`] and `AtcInvSync` the
    /// device did not forget, and the stream aborts; after any other error of `flush_atc` nothing has changed.
    pub fn replace_nested(&self, stream: StreamId, entry: &StreamTableEntry) -> Result<(), DeviceError> {
        if entry.ats_enabled() && !self.stream_table_entry(stream)?.ats_enabled() {
            self.forget_in_device(stream).or_else(|error| match error {
                DeviceError::Command(CommandError::AtcInvSync) => self.abort(stream).and(Err(error)),
                _ => Err(error),
            })?;
        }
        self.replace(stream, entry)
    }
}
