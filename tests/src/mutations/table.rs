//! The ways to break the driver, in the order of its flows: commands, streams, invalidation, caches, bring-up, reports.

use super::Mutation;

const ADOPT: &str = "smmu/src/device/adopt.rs";
const ATTACH: &str = "smmu/src/device/attach.rs";
const BRING_UP: &str = "smmu/src/device/bring_up.rs";
const COMMAND_QUEUE: &str = "smmu/src/device/command_queue/mod.rs";
const CONTEXT_TABLE: &str = "smmu/src/device/context_table.rs";
const DOMAIN: &str = "smmu/src/iommu/smmuv3/domain.rs";
const CHANGE: &str = "smmu/src/iommu/smmuv3/change.rs";
const ENTRY_UPDATE: &str = "smmu/src/arch/entry_update.rs";
const INVALIDATION: &str = "smmu/src/device/invalidation.rs";
const LIVE_ENTRY: &str = "smmu/src/device/live_entry.rs";
const RANGE: &str = "smmu/src/arch/range.rs";
const RECORD_QUEUE: &str = "smmu/src/device/record_queue.rs";
const RESERVATION: &str = "smmu/src/device/command_queue/reservation.rs";
const STREAM_TABLE: &str = "smmu/src/device/stream_table.rs";

pub(super) const DRIVER: &[Mutation] = &[
    Mutation {
        name: "sync-dropped",
        breaks: "Requests do not end with a CMD_SYNC",
        file: COMMAND_QUEUE,
        edits: &[("self.send(control, errors, &batch, true)", "self.send(control, errors, &batch, false)")],
    },
    Mutation {
        name: "wait-dropped",
        breaks: "Nobody waits until the commands are carried out",
        file: COMMAND_QUEUE,
        edits: &[("self.wait(control, errors, &range, ends_in_sync);", "Ok::<(), DeviceError>(());")],
    },
    Mutation {
        name: "barrier-dropped",
        breaks: "No barrier between the command slots and CMDQ_PROD",
        file: COMMAND_QUEUE,
        edits: &[(
            "control.platform().write_barrier();\n        control.write(CMDQ_PROD, index);",
            "control.write(CMDQ_PROD, index);",
        )],
    },
    Mutation {
        name: "barrier-before-repair-ack-dropped",
        breaks: "No barrier between a repaired command and the acknowledgement that has the queue go on",
        file: "smmu/src/device/command_queue/repair.rs",
        edits: &[("control.platform().write_barrier();\n        errors.acknowledge(", "errors.acknowledge(")],
    },
    Mutation {
        name: "prod-before-slot",
        breaks: "CMDQ_PROD is written before the slot that it hands over",
        file: COMMAND_QUEUE,
        edits: &[(
            "self.write_slot(position, *words);",
            "control.write(CMDQ_PROD, self.register_value(position.saturating_add(1)));
            self.write_slot(position, *words);",
        )],
    },
    Mutation {
        name: "wrap-bit-lost",
        breaks: "Queue indices have no wrap bit",
        file: "smmu/src/device/ring.rs",
        edits: &[("value & self.wrapped_mask\n", "value & self.wrapped_mask >> 1\n")],
    },
    Mutation {
        name: "space-not-checked",
        breaks: "One slot more is reserved than is free",
        file: RESERVATION,
        edits: &[("> self.entries {", "> self.entries + 1 {")],
    },
    Mutation {
        name: "out-of-turn-forgotten",
        breaks: "Commands that are filled while another CPU publishes are never published",
        file: RESERVATION,
        edits: &[("|| !self.is_filled(start) {", "|| self.is_filled(start) {")],
    },
    Mutation {
        name: "repair-dropped",
        breaks: "A command queue that stopped at a bad command is not repaired",
        file: "smmu/src/device/command_queue/waiting.rs",
        edits: &[("self.repair(control, errors);", "")],
    },
    Mutation {
        name: "error-told-to-all",
        breaks: "A refused command is reported to everybody who sent one meanwhile",
        file: "smmu/src/device/command_queue/refusal.rs",
        edits: &[("range.contains(&(record >> 8))", "range.end != 0 && *record != NOTHING")],
    },
    Mutation {
        name: "atc-sync-shared",
        breaks: "A CMD_ATC_INV is followed by somebody else's CMD_SYNC",
        file: COMMAND_QUEUE,
        edits: &[("is_last || batch.invalidates_atc;", "is_last;")],
    },
    Mutation {
        name: "sleep-before-senders",
        breaks: "A suspended queue is taken for idle while senders look at its registers",
        file: RESERVATION,
        edits: &[("self.retired.load(Ordering::Acquire) == self.reserved()", "true")],
    },
    Mutation {
        name: "sleep-before-devices",
        breaks: "The SMMU falls asleep, and ignores commands to devices, while they are on their way",
        file: "smmu/src/device/atc.rs",
        edits: &[("let _held = self.lifecycle.hold_running()?;", "self.lifecycle.check_running()?;")],
    },
    Mutation {
        name: "cfgi-before-switch-dropped",
        breaks: "No CMD_CFGI between what is prepared of an entry and the switch",
        file: LIVE_ENTRY,
        edits: &[("if stage.sync {", "if stage.sync && stage.meaning != Meaning::Old {")],
    },
    Mutation {
        name: "cfgi-before-switch-leaf-only",
        breaks: "The first CMD_CFGI_STE keeps the first-level descriptor that led nowhere",
        file: ATTACH,
        edits: &[("let mut leaf = former != Owner::Nobody;", "let mut leaf = true;")],
    },
    Mutation {
        name: "cfgi-after-switch-dropped",
        breaks: "No CMD_CFGI after the switch to another entry",
        file: LIVE_ENTRY,
        edits: &[("if stage.sync {", "if stage.sync && stage.meaning != Meaning::New {")],
    },
    Mutation {
        name: "cfgi-on-detach-dropped",
        breaks: "No CMD_CFGI_STE when a stream is detached",
        file: ATTACH,
        edits: &[(
            "let result = self.run_invalidations([Command::CfgiSte { stream, leaf: true }]);",
            "let result: Result<(), DeviceError> = Ok(());",
        )],
    },
    Mutation {
        name: "ste-valid-too-early",
        breaks: "The word that gives an entry its new meaning is stored before the others",
        file: ENTRY_UPDATE,
        edits: &[("Stage { words: first, sync", "Stage { words: switched, sync")],
    },
    Mutation {
        name: "never-through-invalid",
        breaks: "An entry goes from one meaning to another in one step although two words are critical",
        file: ENTRY_UPDATE,
        edits: &[(".count() <= 1 {", ".count() <= WORDS {")],
    },
    Mutation {
        name: "cfgi-in-between-dropped",
        breaks: "No CMD_CFGI while an entry is invalid in between",
        file: LIVE_ENTRY,
        edits: &[("if stage.sync {", "if stage.sync && stage.meaning != Meaning::Invalid {")],
    },
    Mutation {
        name: "cfgi-cd-to-one-stream",
        breaks: "Of the streams that share a context, only the first is told that it changed",
        file: CONTEXT_TABLE,
        edits: &[("streams.iter().map(", "streams.iter().take(1).map(")],
    },
    Mutation {
        name: "tlbi-on-unmap-dropped",
        breaks: "Unmapping invalidates nothing",
        file: DOMAIN,
        edits: &[(
            "if let Err(error) = self.invalidate(presence, range) {",
            "if let Err(error) = Ok::<(), DeviceError>(()) {",
        )],
    },
    Mutation {
        name: "free-before-invalidate",
        breaks: "Emptied tables are given back before they are invalidated",
        file: DOMAIN,
        edits: &[
            ("table.free(unmapped);", ""),
            (
                "let granule = table.config().granule;\n",
                "let (granule, gone) = (table.config().granule, unmapped.stale());\n        table.free(unmapped);\n",
            ),
            ("granule, stale: unmapped.stale() })?;", "granule, stale: gone })?;"),
        ],
    },
    Mutation {
        name: "retire-without-tlbi",
        breaks: "An ASID or VMID is given back with translations cached under it",
        file: "smmu/src/device/mod.rs",
        edits: &[("self.invalidate_all(tag)?;", "")],
    },
    Mutation {
        name: "wrong-asid",
        breaks: "Stage-1 invalidations name ASID 0",
        file: INVALIDATION,
        edits: &[(
            "Self::Stage1 { asid, vmid } => Command::TlbiNhVa { vmid, asid, scope }",
            "Self::Stage1 { vmid, .. } => Command::TlbiNhVa { vmid, asid: Asid::new(0), scope }",
        )],
    },
    Mutation {
        name: "wrong-vmid",
        breaks: "Stage-2 invalidations name VMID 0",
        file: INVALIDATION,
        edits: &[(
            "Self::Stage2 { vmid } => Command::TlbiS2Ipa { vmid, scope }",
            "Self::Stage2 { .. } => Command::TlbiS2Ipa { vmid: Vmid::new(0), scope }",
        )],
    },
    Mutation {
        name: "always-leaf-only",
        breaks: "Range invalidations keep cached tables even when tables went",
        file: RANGE,
        edits: &[("Stale::TablesAndLeaves => (false, 0),", "Stale::TablesAndLeaves => (true, 0),")],
    },
    Mutation {
        name: "wrong-ttl",
        breaks: "The level hint of a range invalidation is one level too high",
        file: RANGE,
        edits: &[("usable_ttl(first, granule, level))", "usable_ttl(first, granule, level).saturating_sub(1).max(1))")],
    },
    Mutation {
        name: "one-page-short",
        breaks: "Range invalidations miss the last page",
        file: RANGE,
        edits: &[(
            "(start.get().saturating_add(rest) >> page) - (first >> page) + 1",
            "((start.get().saturating_add(rest) >> page) - (first >> page)).max(1)",
        )],
    },
    Mutation {
        name: "atc-inv-dropped",
        breaks: "Devices are not told to forget what was unmapped",
        file: INVALIDATION,
        edits: &[(
            "let atcs = targets.clone().flat_map(invalidations);",
            "let atcs = targets.clone().flat_map(invalidations).take(0);",
        )],
    },
    Mutation {
        name: "atc-inv-without-order",
        breaks: "Devices are told to forget before the SMMU has, and may ask it again",
        file: INVALIDATION,
        edits: &[(
            "tlb.clone().chain([sync]).chain(atcs)",
            "tlb.clone().chain([sync].into_iter().take(0)).chain(atcs)",
        )],
    },
    Mutation {
        name: "quarantine-dropped",
        breaks: "A device that does not forget keeps its stream",
        file: "smmu/src/device/atc.rs",
        edits: &[("match self.abort(stream) {", "match Ok::<(), DeviceError>(()) {")],
    },
    Mutation {
        name: "guest-vmid-kept",
        breaks: "A guest invalidates under whatever VMID it names",
        file: "smmu/src/device/guest/command.rs",
        edits: &[("Self::Send(Command::TlbiNhAll { vmid })", "Self::Send(command)")],
    },
    Mutation {
        name: "guest-range-misaligned",
        breaks: "A guest's range goes on as it is, though nobody knows what it means",
        file: "smmu/src/device/guest/command.rs",
        edits: &[("if scope.address.is_aligned(leaf_bytes(granule, ttl)) {", "if leaf_bytes(granule, ttl) != 0 {")],
    },
    Mutation {
        name: "guest-ats-with-leftovers",
        breaks: "A guest switches ATS on while its device still has what it kept from before",
        file: "smmu/src/device/guest/entry.rs",
        edits: &[("self.forget_in_device(stream).or_else(", "Ok::<(), DeviceError>(()).or_else(")],
    },
    Mutation {
        name: "nested-atc-without-substreams",
        breaks: "When stage 2 changes, a guest's device keeps what it has cached of substreams",
        file: INVALIDATION,
        edits: &[("let substreams = self.features.substream_id_bits() != 0;", "let substreams = false;")],
    },
    Mutation {
        name: "atc-full-on-attach",
        breaks: "A device is attached with translations in its cache that others left there",
        file: CHANGE,
        edits: &[("self.smmu.flush_atc(id, entry)?;", "")],
    },
    Mutation {
        name: "asid-leaked",
        breaks: "An ASID stays taken if there is no memory for its CD",
        file: "smmu/src/iommu/smmuv3/live.rs",
        edits: &[("(&context)).inspect_err(|_| smmu.give_back(tag))?", "(&context))?")],
    },
    Mutation {
        name: "slots-not-cleaned",
        breaks: "Commands stay in the CPU's cache where the SMMU does not snoop",
        file: COMMAND_QUEUE,
        edits: &[("if !self.coherent {", "if false {")],
    },
    Mutation {
        name: "ste-not-cleaned",
        breaks: "STEs stay in the CPU's cache where the SMMU does not snoop",
        file: STREAM_TABLE,
        edits: &[("split, features.coherent())?", "split, true)?")],
    },
    Mutation {
        name: "cd-not-cleaned",
        breaks: "CDs stay in the CPU's cache where the SMMU does not snoop",
        file: CONTEXT_TABLE,
        edits: &[("log2_contexts, split, smmu.features.coherent())?", "log2_contexts, split, true)?")],
    },
    Mutation {
        name: "descriptors-not-cleaned",
        breaks: "Translation tables stay in the CPU's cache where the SMMU does not snoop",
        file: "smmu/src/pgtable/table.rs",
        edits: &[("if !self.config.coherent {", "if false {")],
    },
    Mutation {
        name: "no-abort-while-off",
        breaks: "GBPA.ABORT is not set before the SMMU is switched off",
        file: BRING_UP,
        edits: &[("    abort_while_disabled(control)?;\n    if was_enabled {", "    if was_enabled {")],
    },
    Mutation {
        name: "cfgi-at-bring-up-dropped",
        breaks: "Configuration that was cached before bring-up stays",
        file: BRING_UP,
        edits: &[("self.run([Command::CfgiAll])?;", "")],
    },
    Mutation {
        name: "tlbi-at-bring-up-dropped",
        breaks: "Translations that were cached before bring-up stay",
        file: BRING_UP,
        edits: &[(".chain([Command::TlbiNsnhAll])", ".chain(None::<Command>)")],
    },
    Mutation {
        name: "ack-not-awaited",
        breaks: "CR0 is written again before CR0ACK shows the last value",
        file: "smmu/src/device/control.rs",
        edits: &[("control.wait(self.acknowledgement, self.known & mask, value_now & mask)?;", "")],
    },
    Mutation {
        name: "resume-without-abort",
        breaks: "A resumed SMMU is programmed before GBPA.ABORT is in force",
        file: "smmu/src/device/lifecycle.rs",
        edits: &[("bring_up::stop(&self.control)?;\n        self.start()?;", "self.start()?;")],
    },
    Mutation {
        name: "adopted-with-strangers",
        breaks: "An adopted linear table keeps the entries of streams that were not chosen",
        file: ADOPT,
        edits: &[("_ => entry.invalidate(),", "_ => {}")],
    },
    Mutation {
        name: "adopted-asid-free",
        breaks: "ASIDs of adopted streams are given out again",
        file: ADOPT,
        edits: &[("self.asids.reserve(descriptor.asid().get());", "let _ = descriptor;")],
    },
    Mutation {
        name: "translated-unchecked",
        breaks: "What a device says was translated is believed: CR0.ATSCHK stays 0",
        file: "smmu/src/device/modes.rs",
        edits: &[("if features.ats() { CR0::ATSCHK::SET.value } else { 0 }", "0")],
    },
    Mutation {
        name: "unread-events-lost",
        breaks: "Events that nobody has read are lost when the SMMU sleeps",
        file: RECORD_QUEUE,
        edits: &[(
            "let sensible = self.ring.used(producer, consumer.value).map_or(consumer.value, |_| producer);",
            "let _ = producer;\n            let sensible = consumer.value;",
        )],
    },
    Mutation {
        name: "overflow-not-acknowledged",
        breaks: "An overflow of the event queue is never acknowledged",
        file: RECORD_QUEUE,
        edits: &[("{ before & OVERFLOW } else { overflow };", "{ before & OVERFLOW } else { before & OVERFLOW };")],
    },
    Mutation {
        name: "acquire-after-prod-dropped",
        breaks: "No barrier between the index that announces a record and the record",
        file: RECORD_QUEUE,
        edits: &[(
            "control.platform().read_barrier();\n        let overflow = producer & OVERFLOW;",
            "let overflow = producer & OVERFLOW;",
        )],
    },
    Mutation {
        name: "acquire-before-cons-dropped",
        breaks: "No barrier between a record and the index that gives its slot back",
        file: RECORD_QUEUE,
        edits: &[("control.platform().read_barrier();\n            if consumer.parked", "if consumer.parked")],
    },
    Mutation {
        name: "cons-not-written",
        breaks: "Slots of the event queue are never given back",
        file: RECORD_QUEUE,
        edits: &[("control.write(self.registers.consumer, value);", "")],
    },
    Mutation {
        name: "gerror-not-acknowledged",
        breaks: "A global error is never acknowledged in GERRORN",
        file: "smmu/src/device/global_error.rs",
        edits: &[("state.acknowledged ^= active;", "")],
    },
];
