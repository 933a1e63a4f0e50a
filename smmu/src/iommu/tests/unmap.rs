//! What leaves the page table is forgotten by every SMMU that knew it, before anything of it is reused.

use super::*;
use crate::addr::{Iova, PhysAddr};
use crate::device::DeviceError;
use crate::device::tests::{
    CMD_SYNC, CMD_TLBI_NH_ASID, CMD_TLBI_NH_VA, CMD_TLBI_S2_IPA, CR0, IDR0, IDR3, Outcome, opcodes,
};
use crate::iommu::UnmapError;
use crate::pgtable::{Access, MemoryType};
use crate::platform::Platform;
use crate::testing::Step;

const IOVA: Iova = Iova::new(0x4000_0000);
const PAGE: u64 = 0x1000;
/// What a table serves that goes when all of it is unmapped: one of tables of pages, which stay if only they are emptied.
const TABLE: u64 = 0x4000_0000;

/// Maps `size_bytes` at [`IOVA`] as pages.
fn map_pages(attachment: &Attachment<TestPlatform>, size_bytes: u64) {
    let physical = PhysAddr::new(0x9000_1000);
    let domain = attachment.paging().unwrap();
    domain.map(IOVA, physical, size_bytes, Access::ReadWrite, MemoryType::WriteBack).unwrap();
}

#[test]
fn r31_an_unmapped_range_is_forgotten_in_every_instance() {
    let system = System::new().registered();
    // So that the ASIDs differ.
    system.b.smmu.take_asid().unwrap();
    let attachment = system.configured(&system.device());
    map_pages(&attachment, PAGE);
    system.platform.journal();
    attachment.paging().unwrap().unmap(IOVA, PAGE).unwrap();
    let is_command = |step: &Step| matches!(step, Step::Command(..));
    let commands: Vec<_> = system.platform.journal().into_iter().filter(is_command).collect();
    let tlbi = |asid: u64| [CMD_TLBI_NH_VA | asid << 48, 0x4000_0000 | 1 << 10 | 3 << 8 | 1];
    let expected = [("A", tlbi(1)), ("A", [CMD_SYNC, 0]), ("B", tlbi(2)), ("B", [CMD_SYNC, 0])];
    assert_eq!(commands, expected.map(|(name, words)| Step::Command(name, words)));
    assert_eq!(attachment.paging().unwrap().lookup(IOVA), None);
}

#[test]
fn r28_tables_are_freed_after_every_instance_has_forgotten_them() {
    let system = System::with(|_| (), |fake| fake.set(IDR3, 0x1014)).registered();
    let attachment = system.configured(&system.device());
    map_pages(&attachment, TABLE);
    system.platform.journal();
    attachment.paging().unwrap().unmap(IOVA, TABLE).unwrap();
    let journal = system.platform.journal();
    // Not leaf-only in A; by ASID in B, which has no range invalidation.
    assert_eq!(opcodes(&journal), [CMD_TLBI_NH_VA, CMD_SYNC, CMD_TLBI_NH_ASID, CMD_SYNC]);
    assert!(journal.iter().any(
        |step| matches!(step, Step::Command("A", [word, rest]) if word & 0xff == CMD_TLBI_NH_VA && rest & 1 == 0)
    ));
    let last_command = journal.iter().rposition(|step| matches!(step, Step::Command(..))).unwrap();
    let first_free = journal.iter().position(|step| matches!(step, Step::Free(_))).expect("a table is freed");
    assert!(last_command < first_free);
}

#[test]
fn stage_2_is_invalidated_by_vmid() {
    let system = System::with(|fake| fake.set(IDR0, 0x0d44_1019), |_| ());
    system.register(A);
    let attachment = system.configured(&system.add("one", &[(A, 0x11)]).unwrap());
    map_pages(&attachment, PAGE);
    system.platform.journal();
    attachment.paging().unwrap().unmap(IOVA, PAGE).unwrap();
    assert_eq!(opcodes(&system.platform.journal()), [CMD_TLBI_S2_IPA, CMD_SYNC]);
}

#[test]
fn r38_an_smmu_that_does_not_forget_is_closed_and_the_tables_stay() {
    for outcome in [Outcome::Refused(1), Outcome::Stuck] {
        let system = System::new().registered();
        let device = system.device();
        drop(system.configured(&device));
        let blocks = system.platform.blocks();
        let attachment = system.configured(&device);
        map_pages(&attachment, TABLE);
        let mapped = system.platform.blocks();
        system.a.fake.on_command(move |[word, _]| if word & 0xff == CMD_SYNC { Outcome::Done } else { outcome });
        system.platform.journal();
        let error = attachment.paging().unwrap().unmap(IOVA, TABLE).unwrap_err();
        assert!(matches!(error, UnmapError::Invalidation(_)), "{error}");
        assert_eq!((system.a.is_on(), system.b.is_on()), (false, true));
        let journal = system.platform.journal();
        assert!(journal.iter().any(|step| matches!(step, Step::Command("B", _))), "B is told all the same");
        assert!(!journal.iter().any(|step| matches!(step, Step::Free(_))));
        assert_eq!(system.platform.blocks(), mapped);
        drop(attachment);
        assert_eq!((system.b.word0(0x22), system.b.is_on()), (0, true));
        assert!(system.platform.blocks() > blocks, "the removed table is lost");
    }
}

#[test]
fn an_smmu_that_does_not_even_close_is_told_apart() {
    let system = System::new().registered();
    let attachment = system.configured(&system.device());
    map_pages(&attachment, PAGE + PAGE);
    system.a.fake.on_command(|_| Outcome::Stuck);
    system.a.fake.ignore(|register, value| (register, value) == (CR0, 0));
    let error = attachment.paging().unwrap().unmap(IOVA, PAGE).unwrap_err();
    assert!(
        matches!(error, UnmapError::Stuck(DriverError::Smmu(DeviceError::Timeout { register: "CR0ACK", .. }))),
        "{error}"
    );
    let before = system.platform.now();
    let error = attachment.paging().unwrap().unmap(Iova::new(IOVA.get() + PAGE), PAGE).unwrap_err();
    assert!(matches!(error, UnmapError::Stuck(_)), "{error}");
    assert_eq!(system.platform.now(), before, "it is not waited for again");
}

#[test]
fn a_range_that_is_not_mapped_is_nobodys_business() {
    let system = System::new().registered();
    let attachment = system.configured(&system.device());
    system.platform.journal();
    assert!(matches!(attachment.paging().unwrap().unmap(IOVA, PAGE), Err(UnmapError::Table(_))));
    assert_eq!(opcodes(&system.platform.journal()), []);
    assert_eq!(attachment.paging().unwrap().counts(), (0, 0));
}
