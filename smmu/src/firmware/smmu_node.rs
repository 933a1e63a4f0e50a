//! The SMMUs of a device tree (binding `arm,smmu-v3`).

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use super::address::{self, Window};
use super::error::{FirmwareError, PropertyError, PropertyProblem};
use super::interrupts::{self, SmmuInterrupts};
use super::tree::{DeviceTree, Node};
use super::warning::{FirmwareWarning, Oddity};
use crate::addr::PhysAddr;
use crate::iommu::fwspec::Phandle;

/// Register pages 0 and 1, of 64 KiB each (IHI 0070, 6.1).
const WINDOW_BYTES: u64 = 0x2_0000;
/// Page 0 alone, where [`SmmuQuirks::page1_in_page0`] holds.
const SHORT_WINDOW_BYTES: u64 = 0x1_0000;
const PAGE_BYTES: u64 = 0x1_0000;

/// An SMMUv3 that the device tree describes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SmmuNode {
    /// Full path of the node.
    pub path: String,
    /// By what devices refer to it; without one, none does.
    pub phandle: Option<Phandle>,
    /// Start of its registers.
    pub base: PhysAddr,
    /// Size of its register window in bytes: at least 128 KiB, or 64 KiB with [`SmmuQuirks::page1_in_page0`].
    pub size_bytes: u64,
    /// Its wired interrupts.
    pub interrupts: SmmuInterrupts,
    /// Whether its own accesses (tables, queues) are coherent with the CPUs' caches: `dma-coherent` on the node or the
    /// nearest bus that says so, as in Linux. It says nothing about the devices behind it. `SMMU_IDR0.COHACC` should
    /// agree; if only one of the two claims coherency, do cache maintenance.
    pub dma_coherent: bool,
    /// In what it departs from the architecture.
    pub quirks: SmmuQuirks,
    /// Whether it may be used. One that is disabled must be left alone.
    pub enabled: bool,
    /// What is odd about the node.
    pub warnings: Vec<FirmwareWarning>,
}

/// Known departures from the architecture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SmmuQuirks {
    /// `hisilicon,broken-prefetch-cmd`: never send `CMD_PREFETCH_CONFIG` or `CMD_PREFETCH_ADDR`.
    pub broken_prefetch_cmd: bool,
    /// `cavium,cn9900-broken-page1-regspace`: the queue registers of page 1 are at the same offsets in page 0.
    pub page1_in_page0: bool,
}

impl DeviceTree<'_> {
    /// Every node that is compatible with `arm,smmu-v3`, whatever its name, in the order of the tree.
    ///
    /// A broken node is an error of its own and does not hide the others; its devices have to stay blocked.
    /// An enabled SMMU whose registers overlap those of an earlier one is broken.
    pub fn smmus(&self) -> impl Iterator<Item = Result<SmmuNode, FirmwareError>> {
        let mut taken = BTreeMap::new();
        self.nodes().filter(|node| is_smmu(*node)).map(move |node| {
            let smmu = read(node)?;
            if smmu.enabled {
                take_window(&mut taken, node, &smmu)?;
            }
            Ok(smmu)
        })
    }

    /// What devices refer to the node at `node_path` by; `None` if there is no such node or devices cannot refer to it. So
    /// that those behind a broken SMMU need not [wait](crate::iommu::Iommus::fail) for it.
    #[must_use]
    pub fn phandle(&self, node_path: &str) -> Option<Phandle> {
        own_phandle(self.find(node_path).ok()?).ok()?
    }
}

fn is_smmu(node: Node<'_>) -> bool {
    let compatible = node.property("compatible").map(|property| property.value).unwrap_or_default();
    compatible.split(|&byte| byte == 0).any(|name| name == b"arm,smmu-v3")
}

fn read(node: Node<'_>) -> Result<SmmuNode, PropertyError> {
    let mut warnings = Vec::new();
    node.required("#iommu-cells")?.cell_count(1, 1)?;
    let quirks = SmmuQuirks {
        broken_prefetch_cmd: node.has("hisilicon,broken-prefetch-cmd"),
        page1_in_page0: node.has("cavium,cn9900-broken-page1-regspace"),
    };
    let expected_bytes = if quirks.page1_in_page0 { SHORT_WINDOW_BYTES } else { WINDOW_BYTES };
    let reg = node.required("reg")?;
    let Window { address, size_bytes } = address::register_window(node)?;
    if size_bytes < expected_bytes {
        return Err(reg.error(0, PropertyProblem::WindowTooSmall { size_bytes, expected_bytes }));
    }
    let base = PhysAddr::new(address);
    if !base.is_aligned(PAGE_BYTES) {
        warnings.push(FirmwareWarning { place: reg.place(0), oddity: Oddity::UnalignedWindow { base } });
    }
    Ok(SmmuNode {
        path: node.path(),
        phandle: own_phandle(node)?,
        base,
        size_bytes,
        interrupts: interrupts::read(node, &mut warnings),
        dma_coherent: is_dma_coherent(node),
        quirks,
        enabled: node.is_enabled(),
        warnings,
    })
}

fn own_phandle(node: Node<'_>) -> Result<Option<Phandle>, PropertyError> {
    let Some(property) = node.property("phandle") else { return Ok(None) };
    let (phandle, _) = node.tree.resolve(property, 0, property.single()?)?;
    Ok(Some(phandle))
}

fn is_dma_coherent(node: Node<'_>) -> bool {
    let says_so = |node: &Node<'_>| node.has("dma-coherent") || node.has("dma-noncoherent");
    node.lineage().find(says_so).is_some_and(|node| node.has("dma-coherent"))
}

/// Windows of the SMMUs so far: end and node, by start.
type Windows<'t> = BTreeMap<u64, (u64, Node<'t>)>;

fn take_window<'t>(taken: &mut Windows<'t>, node: Node<'t>, smmu: &SmmuNode) -> Result<(), PropertyError> {
    let start = smmu.base.get();
    // Cannot saturate: the window was checked when it was read.
    let end = start.saturating_add(smmu.size_bytes);
    // Those in the map do not overlap, so that the last one to start before `end` reaches furthest.
    if let Some((_, &(other_end, other))) = taken.range(..end).next_back()
        && other_end > start
    {
        let problem = PropertyProblem::WindowTaken { base: smmu.base, other: other.path() };
        return Err(node.required("reg")?.error(0, problem));
    }
    taken.insert(start, (end, node));
    Ok(())
}
