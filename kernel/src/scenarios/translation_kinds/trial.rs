//! The device that tries what a domain lets it reach, and the memory that it is meant to reach.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use core::sync::atomic::Ordering;
use core::time::Duration;

use smmu::addr::{Iova, PhysAddr};
use smmu::arch::attributes::Granule;
use smmu::device::Smmu;
use smmu::iommu::smmuv3::SmmuDomain;
use smmu::iommu::{Device, Domain, GroupOwnership, PagingDomain};
use smmu::memory::DmaMemory;
use smmu::pgtable::{Access, Stage};

use crate::drivers::edu::Edu;
use crate::platform::{Kernel, PLATFORM};
use crate::timer::wait_for;
use crate::{iommu, println, record};

/// A page of the largest granule.
const PAGE_BYTES: usize = 0x1_0000;
/// How much the device copies at a time.
const TRANSFER_BYTES: usize = 64;
/// How long the report of a stopped transfer may take.
const REPORT_LIMIT: Duration = Duration::from_secs(2);
/// Where the leaves are: one every four gibibytes from the first, and then one to change.
const STRIDE: u64 = 1 << 32;
const CHANGING: Iova = Iova::new(8 * STRIDE);

/// A page or block that the device may use.
#[derive(Clone, Copy)]
pub(super) struct Leaf {
    pub(super) iova: Iova,
    pub(super) physical: PhysAddr,
    pub(super) bytes: u64,
}

/// A device on trial.
pub(super) struct Trial {
    // Before the pages: the device reaches them until this is dropped.
    ownership: GroupOwnership<Kernel>,
    smmu: Arc<Smmu<Kernel>>,
    device: Arc<Device>,
    edu: Edu,
    page: DmaMemory<Kernel>,
    other: DmaMemory<Kernel>,
    /// What the device carried last.
    carried: u64,
}

impl Trial {
    pub(super) fn new(
        smmu: Arc<Smmu<Kernel>>,
        device: Arc<Device>,
        edu: Edu,
        ownership: GroupOwnership<Kernel>,
    ) -> Result<Self, String> {
        let allocate = || DmaMemory::allocate(&PLATFORM, PAGE_BYTES, PAGE_BYTES).map_err(|error| error.to_string());
        Ok(Self { ownership, smmu, device, edu, page: allocate()?, other: allocate()?, carried: 0 })
    }

    pub(super) fn smmu(&self) -> &Arc<Smmu<Kernel>> {
        &self.smmu
    }

    /// Where the page is.
    pub(super) fn page(&self) -> PhysAddr {
        self.page.physical()
    }

    /// A page and a block of each size, by each of which the device finds the same page.
    pub(super) fn leaves(&self, granule: Granule) -> impl Iterator<Item = Leaf> + use<> {
        const MIB: u64 = 1 << 20;
        let page = self.page();
        let blocks: &[u64] = match granule {
            Granule::K4 => &[2 * MIB, 1024 * MIB],
            Granule::K16 => &[32 * MIB],
            Granule::K64 => &[512 * MIB],
        };
        [granule.bytes()].into_iter().chain(blocks.iter().copied()).zip(1..).map(move |(bytes, place)| Leaf {
            iova: Iova::new(place * STRIDE),
            physical: page.align_down(bytes),
            bytes,
        })
    }

    /// Has the device read and write through every leaf.
    pub(super) fn reach_all(&mut self, kind: &str, granule: Granule) -> Result<(), String> {
        for leaf in self.leaves(granule) {
            let at = self.page_in(leaf)?;
            self.read(at)?;
            if !self.write_arrives(at)? {
                return Err(format!("{kind}: nothing arrived through {:#x} bytes at {at}", leaf.bytes));
            }
            println!("{kind}: read and written through {} KiB", leaf.bytes >> 10);
            record!("translation-kind", "kind" => kind, "granule" => granule.bytes(), "leaf_bytes" => leaf.bytes);
        }
        Ok(())
    }

    fn page_in(&self, leaf: Leaf) -> Result<Iova, String> {
        let offset = self.page().checked_sub(leaf.physical).ok_or("a leaf without the page")?;
        leaf.iova.checked_add(offset).ok_or_else(|| "addresses end".to_string())
    }

    /// Has the device pick something new up from the page.
    fn read(&mut self, at: Iova) -> Result<(), String> {
        self.carried = self.carried.wrapping_add(0x0101_0101_0101_0101);
        fill(&self.page, self.carried);
        self.edu.copy_from_memory(at, 0, TRANSFER_BYTES).map_err(|error| error.to_string())
    }

    /// Whether what the device carries arrives in the page, whole and nowhere else in it.
    fn write_arrives(&mut self, at: Iova) -> Result<bool, String> {
        fill(&self.page, u64::MAX);
        self.edu.copy_to_memory(at, 0, TRANSFER_BYTES).map_err(|error| error.to_string())?;
        let found = words_of(&self.page, self.carried);
        if found.others == 0 {
            Ok(found.carried != 0)
        } else {
            Err(format!("{} words of the page are strange", found.others))
        }
    }

    /// What may only be read is not written, and, at stage 2, what may only be written is not read.
    pub(super) fn check_permissions(&mut self, domain: &Arc<SmmuDomain<Kernel>>) -> Result<(), String> {
        let (granule, stage) = (domain.granule(), domain.stage());
        let leaf = Leaf { iova: CHANGING, physical: self.page(), bytes: granule.bytes() };
        // What is refused comes first: QEMU records nothing where a translation is cached.
        super::map(domain, leaf, Access::Read)?;
        let stopped = self.is_reported(|trial| Ok(!trial.write_arrives(CHANGING)?))?;
        self.read(CHANGING)?;
        let read = self.write_arrives(trial_leaf(self, granule))?;
        unmap(domain, leaf.bytes)?;
        let mut refused = stopped && read;
        if stage == Stage::Stage2 {
            super::map(domain, leaf, Access::Write)?;
            // What could not be read is zero, and that arrives.
            let unread = self.is_reported(|trial| trial.read(CHANGING).map(|()| true))?;
            self.carried = 0;
            refused &= unread && self.write_arrives(CHANGING)?;
            unmap(domain, leaf.bytes)?;
        }
        println!("{stage}: {}", if refused { "what is not permitted is stopped" } else { "permissions do not hold" });
        record!("permissions", "stage" => stage.to_string().as_str(), "granule" => granule.bytes(), "enforced" => refused);
        if refused { Ok(()) } else { Err("permissions do not hold".to_string()) }
    }

    /// Whether an attempt turns out as it says, and is reported as a fault of the device.
    fn is_reported(&mut self, attempt: impl FnOnce(&mut Self) -> Result<bool, String>) -> Result<bool, String> {
        let before = self.device.faults();
        let outcome = attempt(self)?;
        let device = Arc::clone(&self.device);
        let reported = wait_for(REPORT_LIMIT, || {
            iommu::poll();
            device.faults() > before
        });
        Ok(outcome && reported)
    }

    /// While the device is at work its address comes to lead elsewhere: what it writes arrives in the old page or the new one.
    pub(super) fn remap(&mut self, domain: &Arc<SmmuDomain<Kernel>>) -> Result<(), String> {
        let bytes = domain.granule().bytes();
        let (old, new) = (self.page(), self.other.physical());
        super::map(domain, Leaf { iova: CHANGING, physical: old, bytes }, Access::ReadWrite)?;
        self.read(CHANGING)?;
        self.during_a_write(CHANGING, |_| {
            unmap(domain, bytes)?;
            super::map(domain, Leaf { iova: CHANGING, physical: new, bytes }, Access::ReadWrite)
        })?;
        self.edu.copy_to_memory(CHANGING, 0, TRANSFER_BYTES).map_err(|error| error.to_string())?;
        if words_of(&self.other, self.carried).carried == 0 {
            return Err("the new page is not reached".to_string());
        }
        unmap(domain, bytes)?;
        record!("remap", "stage" => domain.stage().to_string().as_str(), "granule" => bytes, "strays" => 0);
        Ok(())
    }

    /// Moves the device to another domain while it writes through the smallest leaf of the one it has, if it has one.
    pub(super) fn move_to(&mut self, domain: Domain<Kernel>, granule: Granule) -> Result<(), String> {
        let replace = |trial: &mut Self| trial.ownership.replace(domain).map_err(|error| error.to_string());
        if self.ownership.domain().is_blocked() {
            return replace(self);
        }
        self.during_a_write(trial_leaf(self, granule), replace)
    }

    pub(super) fn block(&mut self) -> Result<(), String> {
        self.ownership.replace(Domain::Blocked).map_err(|error| error.to_string())
    }

    /// Has the device write while something is done, and sees that nothing of it goes astray.
    fn during_a_write(&mut self, at: Iova, change: impl FnOnce(&mut Self) -> Result<(), String>) -> Result<(), String> {
        fill(&self.page, u64::MAX);
        fill(&self.other, u64::MAX);
        self.edu.start_to_memory(at, 0, TRANSFER_BYTES).map_err(|error| error.to_string())?;
        let changed = change(self);
        self.edu.finish().map_err(|error| error.to_string())?;
        changed?;
        let strays = words_of(&self.page, self.carried).others + words_of(&self.other, self.carried).others;
        if strays == 0 { Ok(()) } else { Err(format!("{strays} words went astray")) }
    }
}

/// The page by the smallest leaf.
fn trial_leaf(trial: &Trial, granule: Granule) -> Iova {
    trial.leaves(granule).next().map_or(CHANGING, |leaf| leaf.iova)
}

fn unmap(domain: &SmmuDomain<Kernel>, bytes: u64) -> Result<(), String> {
    domain.unmap(CHANGING, bytes).map_err(|error| error.to_string())
}

fn fill(page: &DmaMemory<Kernel>, value: u64) {
    page.words().iter().for_each(|word| word.store(value, Ordering::Relaxed));
}

/// What a page holds that was blank before.
struct Words {
    /// What was to arrive.
    carried: usize,
    /// What is neither that nor blank.
    others: usize,
}

fn words_of(page: &DmaMemory<Kernel>, carried: u64) -> Words {
    let mut words = Words { carried: 0, others: 0 };
    for word in page.words().iter().map(|word| word.load(Ordering::Relaxed)).filter(|word| *word != u64::MAX) {
        if word == carried { words.carried += 1 } else { words.others += 1 }
    }
    words
}
