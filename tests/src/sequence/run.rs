//! Makes the steps of one sequence, with the real driver, and compares what comes of each.

use std::collections::BTreeMap;
use std::sync::Arc;

use smmu::addr::{Iova, PhysAddr, StreamId};
use smmu::arch::event::EventKind;
use smmu::device::{BootPolicy, Smmu};
use smmu::iommu::fwspec::{Fwspec, Phandle};
use smmu::iommu::{Attachment, Configuration, Device, DeviceDescription, Iommus, PagingDomain, UnmapError};
use smmu::memory::DmaMemory;
use smmu::pgtable::{self, Access, MapError, MemoryType};

use super::access::Observation;
use super::backend::Backend;
use super::bench::{Tally, first_change, initial, set_word, word};
use super::expectation::{MapAnswer, Mapping, PAGE_BYTES, Space, UnmapAnswer};
use super::failure::Mismatch;
use super::flaw::Flaw;
use super::overwrite::Hardware;
use super::step::{POOL_PAGES, Spot, Step};

/// The SMMU's name in firmware.
const IOMMU: Phandle = Phandle::new(1);

/// Streams that share a second level of the stream table, as a power of two.
const LOG2_SECOND_LEVEL: u8 = 8;

/// One sequence under way.
pub(super) struct Run<'b, B: Backend> {
    pub(super) backend: &'b mut B,
    pub(super) pool: &'b DmaMemory<B::Platform>,
    pub(super) tally: &'b mut Tally,
    pub(super) smmu: Arc<Smmu<B::Platform>>,
    iommus: Iommus<B::Platform>,
    pub(super) devices: Vec<Client<B>>,
    /// The addresses that devices have accessed.
    pub(super) accessed: Vec<Iova>,
    pub(super) observations: Vec<Observation>,
    /// The words of the pool that were written, by their offset in bytes.
    pub(super) written: BTreeMap<usize, u32>,
}

/// A device and what is to be expected of it.
pub(super) struct Client<B: Backend> {
    pub(super) stream: StreamId,
    device: Arc<Device>,
    was_attached: bool,
    pub(super) attached: Option<(Attachment<B::Platform>, Space)>,
    /// What its stream table entry has that is not the driver's.
    pub(super) flaw: Option<Flaw>,
    /// The domain that it was moved from last.
    left: Option<Arc<dyn PagingDomain<B::Platform>>>,
}

impl<'b, B: Backend> Run<'b, B> {
    pub(super) fn new(
        backend: &'b mut B,
        pool: &'b DmaMemory<B::Platform>,
        tally: &'b mut Tally,
    ) -> Result<Self, Mismatch> {
        let platform = backend.platform();
        let smmu = Smmu::bring_up(platform, backend.registers(), true, BootPolicy::Abort);
        let smmu = Arc::new(smmu.map_err(Mismatch::BringUp)?);
        let iommus = Iommus::new(platform);
        iommus.register(IOMMU, Arc::clone(&smmu)).map_err(Mismatch::Attach)?;
        let client = |stream| {
            let mut fwspec = Fwspec::new();
            fwspec.push(IOMMU, stream);
            let device = iommus
                .add_device(DeviceDescription::new(format!("device {stream}"), fwspec))
                .map_err(Mismatch::Attach)?;
            Ok(Client { stream, device, was_attached: false, attached: None, flaw: None, left: None })
        };
        let devices = backend.streams().into_iter().map(client).collect::<Result<_, Mismatch>>()?;
        Ok(Self {
            backend,
            pool,
            tally,
            smmu,
            iommus,
            devices,
            accessed: Vec::new(),
            observations: Vec::new(),
            written: BTreeMap::new(),
        })
    }

    pub(super) fn step(&mut self, step: &Step) -> Result<(), Mismatch> {
        match *step {
            Step::Attach { device } => self.attach(self.index(device)),
            Step::Detach { device } => self.detach(self.index(device)),
            Step::ChangeAsid { device } => self.change_asid(self.index(device)),
            Step::BreakEntry { device, flaw } => self.break_entry(self.index(device), flaw),
            Step::Map { device, at, pages, target, access } => self.map(self.index(device), at, pages, target, access),
            Step::Unmap { device, mapping } => self.unmap_mapping(self.index(device), mapping).map(drop),
            Step::UnmapRange { device, at, pages } => {
                let device = self.index(device);
                match self.devices[device].attached.as_ref().map(|(_, space)| space.page(at)) {
                    Some(first) => self.unmap(device, first, pages),
                    None => self.skip(),
                }
            }
            Step::Remap { device, mapping, access } => self.remap(self.index(device), mapping, access),
            Step::Write { device, address, index } => self.write(self.index(device), address, index),
            Step::Read { device, address } => self.read(self.index(device), address),
        }
    }

    /// Takes everything down, and looks whether all is as it should be. Returns what came of each access.
    pub(super) fn finish(mut self) -> Result<Vec<Observation>, Mismatch> {
        for index in 0..self.devices.len() {
            self.devices[index].left = None;
            if self.devices[index].attached.is_some() {
                self.detach(index)?;
            }
        }
        let found = self.drain_events()?;
        if !found.is_empty() {
            return Err(Mismatch::Events { expected: None, found });
        }
        let report = self.smmu.handle_global_errors();
        if !report.is_empty() {
            return Err(Mismatch::GlobalError(report));
        }
        let refused = self.smmu.statistics().refused;
        if refused != 0 {
            return Err(Mismatch::RefusedCommands(refused));
        }
        self.check_pool()?;
        Ok(self.observations)
    }

    fn index(&self, device: u8) -> usize {
        usize::from(device) % self.devices.len()
    }

    fn skip(&mut self) -> Result<(), Mismatch> {
        self.tally.skipped += 1;
        Ok(())
    }

    fn attach(&mut self, index: usize) -> Result<(), Mismatch> {
        let client = &mut self.devices[index];
        if client.flaw.is_some() {
            self.detach(index)?;
        } else if client.attached.is_some() {
            return self.skip();
        }
        let client = &mut self.devices[index];
        let Configuration::Configured(attachment) = self.iommus.configure(&client.device).map_err(Mismatch::Attach)?
        else {
            return Err(Mismatch::NotConfigured);
        };
        let domain = attachment.paging().unwrap();
        self.backend.attached(index, &**domain).map_err(backend)?;
        let space = Space::new(domain.stage(), domain.input_bits());
        client.attached = Some((attachment, space));
        client.was_attached = true;
        self.tally.attached += 1;
        Ok(())
    }

    fn detach(&mut self, index: usize) -> Result<(), Mismatch> {
        let client = &mut self.devices[index];
        if client.attached.take().is_none() {
            return self.skip();
        }
        client.flaw = None;
        self.backend.detached(index);
        Ok(())
    }

    fn change_asid(&mut self, index: usize) -> Result<(), Mismatch> {
        let Some((attachment, _)) = &self.devices[index].attached else { return self.skip() };
        // As long as the domain is there, so is its ASID, and what is cached under it.
        let left = Arc::clone(attachment.paging().unwrap());
        self.detach(index)?;
        self.attach(index)?;
        self.devices[index].left = Some(left);
        self.tally.moved += 1;
        Ok(())
    }

    fn break_entry(&mut self, index: usize, flaw: Flaw) -> Result<(), Mismatch> {
        let features = self.smmu.features();
        let has_both_stages = features.stage1() && features.stage2();
        let client = &mut self.devices[index];
        match &client.attached {
            Some((_, space)) if client.flaw.is_none() && flaw.matters(space.stage(), has_both_stages) => {}
            _ => return self.skip(),
        }
        client.flaw = Some(flaw);
        self.backend.overwriting(index);
        let hardware = Hardware { platform: self.backend.platform(), registers: self.backend.registers() };
        hardware.overwrite(client.stream, flaw.field())?;
        self.tally.overwritten += 1;
        Ok(())
    }

    fn map(&mut self, index: usize, at: Spot, pages: u16, target: u16, access: Access) -> Result<(), Mismatch> {
        match &self.devices[index].attached {
            Some((_, space)) => {
                let pages = pages.min(POOL_PAGES - target);
                self.map_at(index, Mapping { first: space.page(at), pages, target, access })
            }
            None => self.skip(),
        }
    }

    fn map_at(&mut self, index: usize, mapping: Mapping) -> Result<(), Mismatch> {
        let Some((attachment, space)) = &mut self.devices[index].attached else { return Ok(()) };
        let expected = space.answer_to_map(&mapping);
        let Mapping { first, pages, target, access } = mapping;
        let physical = self.pool.physical().get() + u64::from(target) * PAGE_BYTES;
        let size_bytes = u64::from(pages) * PAGE_BYTES;
        let iova = Iova::new(first * PAGE_BYTES);
        let found =
            attachment.paging().unwrap().map(iova, PhysAddr::new(physical), size_bytes, access, MemoryType::WriteBack);
        match (expected, &found) {
            (MapAnswer::Mapped, Ok(())) => {
                space.map(mapping);
                self.tally.mapped += 1;
            }
            (MapAnswer::OutOfRange, Err(MapError::InputOutOfRange { .. })) => self.tally.refused += 1,
            (MapAnswer::Overlap(expected), Err(MapError::Overlap { iova })) if expected == *iova => {
                self.tally.refused += 1;
            }
            _ => return Err(Mismatch::Map { expected, found }),
        }
        Ok(())
    }

    /// Unmaps the mapping that a step names, and returns it.
    fn unmap_mapping(&mut self, index: usize, choice: u8) -> Result<Option<Mapping>, Mismatch> {
        let mapping = self.devices[index].attached.as_ref().and_then(|(_, space)| space.mapping(choice));
        match mapping {
            Some(mapping) => self.unmap(index, mapping.first, mapping.pages)?,
            None => self.skip()?,
        }
        Ok(mapping)
    }

    fn unmap(&mut self, index: usize, first: u64, pages: u16) -> Result<(), Mismatch> {
        use pgtable::RangeError::{InputOutOfRange, NotMapped, SplitsBlock};
        let Some((attachment, space)) = &mut self.devices[index].attached else { return Ok(()) };
        let expected = space.answer_to_unmap(first, pages);
        let found = attachment.paging().unwrap().unmap(Iova::new(first * PAGE_BYTES), u64::from(pages) * PAGE_BYTES);
        match (expected, &found) {
            (UnmapAnswer::Unmapped | UnmapAnswer::MaySplitBlock { all_mapped: true }, Ok(())) => {
                space.unmap(first, pages);
                self.tally.unmapped += 1;
                return Ok(());
            }
            (UnmapAnswer::OutOfRange, Err(UnmapError::Table(InputOutOfRange { .. })))
            | (UnmapAnswer::MaySplitBlock { .. }, Err(UnmapError::Table(SplitsBlock { .. })))
            | (UnmapAnswer::MaySplitBlock { all_mapped: false }, Err(UnmapError::Table(NotMapped { .. }))) => {}
            (UnmapAnswer::NotMapped(expected), Err(UnmapError::Table(NotMapped { iova }))) if expected == *iova => {}
            _ => return Err(Mismatch::Unmap { expected, found }),
        }
        self.tally.refused += 1;
        Ok(())
    }

    fn remap(&mut self, index: usize, choice: u8, access: Access) -> Result<(), Mismatch> {
        match self.unmap_mapping(index, choice)? {
            Some(mapping) => self.map_at(index, Mapping { access, ..mapping }),
            None => Ok(()),
        }
    }

    pub(super) fn expected_word(&self, offset: usize) -> u32 {
        self.written.get(&offset).copied().unwrap_or(initial(offset))
    }

    fn check_word(&self, offset: usize) -> Result<(), Mismatch> {
        let (expected, found) = (self.expected_word(offset), word(self.pool, offset));
        if expected == found { Ok(()) } else { Err(Mismatch::Memory { offset, expected, found }) }
    }

    /// Looks at the whole pool, and puts back what was written, so that it can be used again.
    fn check_pool(&self) -> Result<(), Mismatch> {
        for &offset in self.written.keys() {
            self.check_word(offset)?;
            set_word(self.pool, offset, initial(offset));
        }
        match first_change(self.pool) {
            Some(offset) => Err(Mismatch::Memory { offset, expected: initial(offset), found: word(self.pool, offset) }),
            None => Ok(()),
        }
    }

    /// What the SMMU says of a stream that is not attached: that its entry is invalid, or, if no stream of the same second
    /// level of the stream table was ever attached, that it has none.
    pub(super) fn unattached_event(&self, index: usize) -> EventKind {
        let features = self.smmu.features();
        let is_linear = !features.two_level_stream_table() || features.stream_id_bits() <= LOG2_SECOND_LEVEL;
        let second_level = |client: &Client<B>| client.stream.get() >> LOG2_SECOND_LEVEL;
        let wanted = second_level(&self.devices[index]);
        let is_there = self.devices.iter().any(|client| client.was_attached && second_level(client) == wanted);
        if is_linear || is_there { EventKind::BadSte } else { EventKind::BadStreamId }
    }
}

pub(super) fn backend(error: impl std::error::Error + 'static) -> Mismatch {
    Mismatch::Backend(Box::new(error))
}
