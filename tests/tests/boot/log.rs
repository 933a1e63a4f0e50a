//! What QEMU logged of a run, read line by line: trace events of its SMMU, and of configuration space where asked for.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Arguments that add every write to configuration space to the log.
pub(crate) const CONFIGURATION_WRITES: [&str; 2] = ["-trace", "pci_cfg_write"];

/// The command register's offset in configuration space, and its bit that lets a function do DMA.
const COMMAND: u64 = 0x4;
const BUS_MASTER: u64 = 1 << 2;

/// The log as text.
#[derive(Default)]
pub(crate) struct Log(String);

/// A write to a register of the SMMU.
#[derive(Debug, PartialEq)]
pub(crate) struct RegisterWrite {
    /// Offset in bytes.
    pub(crate) offset: u64,
    pub(crate) value: u64,
}

/// What a line tells of the life of one stream, or of the function it comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    /// `CMD_CFGI_STE` for this StreamID.
    StreamTableEntryChanged(u64),
    /// A translation was given to this StreamID.
    Translated(u64),
    /// The function at this address (`00:01.0`) may do DMA from now on, or no longer.
    BusMaster(String, bool),
}

impl Log {
    /// The log in `file`; an empty one where there is no file.
    pub(crate) fn read(file: Option<&Path>) -> Self {
        file.map_or_else(Self::default, |file| Self(fs::read_to_string(file).unwrap()))
    }

    /// Its lines.
    pub(crate) fn lines(&self) -> impl Iterator<Item = &str> {
        self.0.lines()
    }

    /// The lines of one kind: the name of the event, or the text that they start with.
    pub(crate) fn lines_of(&self, start: &str) -> impl Iterator<Item = &str> {
        self.lines().filter_map(move |line| line.strip_prefix(start))
    }

    /// Writes to the SMMU's registers, in order.
    pub(crate) fn register_writes(&self) -> impl Iterator<Item = RegisterWrite> {
        self.lines_of("smmuv3_write_mmio ").map(|line| RegisterWrite {
            offset: hexadecimal_after(line, "addr: ").unwrap(),
            value: hexadecimal_after(line, "val:").unwrap(),
        })
    }

    /// Names of the events that were recorded, each with the StreamID, without repetitions.
    pub(crate) fn events(&self) -> BTreeSet<(&str, u64)> {
        let event = |line: &'_ str| Some((line.find("SMMU_EVT_")?, hexadecimal_after(line, "sid=")?));
        self.lines()
            .filter_map(|line| event(line).map(|(start, sid)| (line[start..].split(' ').next().unwrap(), sid)))
            .collect()
    }

    /// StreamIDs that were given a translation.
    pub(crate) fn translated_streams(&self) -> BTreeSet<u64> {
        let translated = |step| if let Step::Translated(sid) = step { Some(sid) } else { None };
        self.steps().filter_map(translated).collect()
    }

    /// The pages that were translated for a StreamID: number of the device's page and of the one it leads to, in order.
    pub(crate) fn translations(&self, stream: u64) -> impl Iterator<Item = (u64, u64)> {
        self.lines_of("smmuv3_translate_success ").filter_map(move |line| {
            let page = |label| hexadecimal_after(line, label).map(|address| address >> 12);
            (hexadecimal_after(line, "sid=")? == stream).then_some((page("iova=")?, page("translated=")?))
        })
    }

    /// The log up to the first event of a StreamID, exclusively.
    pub(crate) fn before_event_of(&self, stream: u64) -> Self {
        let is_event = |line: &&str| line.contains("SMMU_EVT_") && hexadecimal_after(line, "sid=") == Some(stream);
        Self(self.lines().take_while(|line| !is_event(line)).collect::<Vec<_>>().join("\n"))
    }

    /// Addresses of the functions that were allowed to do DMA. Needs [`CONFIGURATION_WRITES`].
    pub(crate) fn bus_masters(&self) -> BTreeSet<String> {
        assert!(self.lines_of("pci_cfg_write ").next().is_some(), "the log holds no writes to configuration space");
        let master = |step| if let Step::BusMaster(function, true) = step { Some(function) } else { None };
        self.steps().filter_map(master).collect()
    }

    /// What happened to streams and functions, in order.
    pub(crate) fn steps(&self) -> impl Iterator<Item = Step> {
        self.lines().filter_map(|line| match line.split_once(' ')? {
            ("smmuv3_cmdq_cfgi_ste", rest) => {
                Some(Step::StreamTableEntryChanged(hexadecimal_after(rest, "streamid= ")?))
            }
            ("smmuv3_translate_success", rest) => Some(Step::Translated(hexadecimal_after(rest, "sid=")?)),
            ("pci_cfg_write", rest) if hexadecimal_after(rest, "@")? == COMMAND => {
                let function = rest.split(' ').nth(1)?.to_owned();
                Some(Step::BusMaster(function, hexadecimal_after(rest, "<- ")? & BUS_MASTER != 0))
            }
            _ => None,
        })
    }
}

/// The number in hexadecimal, written with `0x`, that follows `label` in `line`.
fn hexadecimal_after(line: &str, label: &str) -> Option<u64> {
    let digits = line.split_once(label)?.1.strip_prefix("0x")?;
    let end = digits.find(|digit: char| !digit.is_ascii_hexdigit()).unwrap_or(digits.len());
    u64::from_str_radix(&digits[..end], 16).ok()
}
