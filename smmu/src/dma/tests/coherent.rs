//! Coherent buffers.

use core::sync::atomic::Ordering;

use super::*;
use crate::device::tests::{CMD_TLBI_NH_ASID, CMD_TLBI_NH_VA, opcodes};
use crate::pgtable::Access;
use crate::testing::Step;

#[test]
fn a_buffer_is_zero_and_the_device_sees_what_the_cpu_sees() {
    let (platform, _, dma) = attached();
    let buffer = dma.allocate_coherent(4097).unwrap();
    assert_eq!((buffer.size_bytes(), buffer.words().len()), (8192, 1024));
    assert!(buffer.words().iter().all(|word| word.load(Ordering::Relaxed) == 0));
    buffer.words()[1023].store(42, Ordering::Relaxed);
    assert_eq!(platform.snooped_word(physical(&dma, buffer.iova(), 8184).unwrap()), 42);
    assert_eq!(dma.domain().lookup(buffer.iova()).unwrap().access(), Some(Access::ReadWrite));
    assert_eq!(physical(&dma, buffer.iova(), 8192), None, "nothing behind it");
    assert_eq!(dma.domain().lookup(Iova::new(buffer.iova().get() - 1)), None, "nothing before it");
}

#[test]
fn r31_a_buffer_is_out_of_reach_before_it_is_freed() {
    let (platform, _, dma) = attached();
    let buffer = dma.allocate_coherent(4096).unwrap();
    let memory = physical(&dma, buffer.iova(), 0).unwrap();
    let iova = buffer.iova();
    platform.journal();
    drop(buffer);
    let journal = platform.journal();
    assert_eq!(opcodes(&journal), [CMD_TLBI_NH_VA, CMD_SYNC]);
    assert_eq!(journal.last(), Some(&Step::Free(memory)), "after TLBI and SYNC");
    assert_eq!(dma.domain().lookup(iova), None);
    assert_eq!(dma.allocate_coherent(4096).unwrap().iova(), iova, "its addresses are free again");
}

#[test]
fn r38_a_buffer_that_the_smmu_does_not_forget_is_kept() {
    let (platform, fake, dma) = attached();
    let [buffer, other] = [(); 2].map(|()| dma.allocate_coherent(4096).unwrap());
    let (iova, memory) = (buffer.iova(), physical(&dma, buffer.iova(), 0).unwrap());
    refuse_invalidations(&fake);
    platform.journal();
    drop(buffer);
    assert!(!platform.journal().contains(&Step::Free(memory)));
    platform.snooped_word(memory);
    assert_eq!(fake.get(CR0ACK), 0, "closed");
    drop(other);
    assert_ne!(dma.allocate_coherent(4096).unwrap().iova(), iova, "its addresses stay taken");
}

#[test]
fn a_lack_of_memory_anywhere_leaves_nothing_mapped() {
    for count in 0.. {
        let (platform, _, dma) = attached();
        let blocks = platform.blocks();
        platform.allow_allocations(count);
        if dma.allocate_coherent(4096).is_ok() {
            assert_eq!(count, 4, "the buffer and three levels of tables");
            break;
        }
        assert_eq!((platform.blocks(), dma.domain().lookup(Iova::new(0x1000))), (blocks, None));
        platform.allow_allocations(usize::MAX);
        assert_eq!(dma.allocate_coherent(4096).unwrap().iova(), Iova::new(0x1000), "no address is lost");
    }
}

#[test]
fn lack_of_addresses_and_of_a_size() {
    let (platform, _, dma) = attached_below(0x3000);
    let blocks = platform.blocks();
    assert_eq!(dma.allocate_coherent(0).unwrap_err(), DmaError::Empty);
    assert_eq!(dma.allocate_coherent(0x3000).unwrap_err(), DmaError::OutOfAddresses { pages: 3 });
    assert!(matches!(dma.allocate_coherent(usize::MAX), Err(DmaError::OutOfDmaMemory(_))));
    assert_eq!(platform.blocks(), blocks);
}

#[test]
fn detaching_forgets_all_that_is_left() {
    let (platform, _, dma) = attached();
    drop(dma.allocate_coherent(4096).unwrap());
    platform.journal();
    drop(dma);
    assert!(opcodes(&platform.journal()).contains(&CMD_TLBI_NH_ASID));
    assert_eq!(platform.blocks(), 0, "the SMMU has gone too");
}
