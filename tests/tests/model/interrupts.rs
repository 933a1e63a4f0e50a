//! Interrupts by wire and by message, and what happens when a message gets lost.

use std::sync::atomic::Ordering::SeqCst;

use smmu::addr::{PhysAddr, StreamId};
use smmu::device::{DeviceError, Message, Messages};
use smmu::platform::Registers;
use tests::model::{Buffer, Config, GlobalError, Interrupt, Law, Model, PageRequest};

use super::bench::touch;
use super::system::bring_up;

const IRQ_CTRLACK: usize = 0x54;

/// Messages that write 1, 2 and 3 into the words of a buffer.
fn messages(buffer: &Buffer) -> Messages {
    let message = |index: u32| {
        let address = PhysAddr::new(buffer.physical().get() + u64::from(index) * 8);
        Some(Message { address, data: index + 1 })
    };
    Messages { global_errors: message(0), events: message(1), page_requests: message(2) }
}

fn received(buffer: &Buffer) -> [u64; 3] {
    std::array::from_fn(|index| buffer.words()[index].swap(0, SeqCst))
}

#[test]
fn each_source_sends_its_own_message() {
    let model = Model::new(Config::full());
    let doorbell = model.platform().buffer(4096);
    let smmu = bring_up(&model).unwrap();
    smmu.enable_page_requests().unwrap();
    smmu.enable_message_interrupts(messages(&doorbell)).unwrap();
    for _ in 0..2 {
        assert!(touch(&model.device(StreamId::new(5)), 0).is_err());
        assert_eq!(received(&doorbell), [0, 2, 0]);
        let request = PageRequest { address: 0, read: true, write: false, execute: false, last: true, group: 1 };
        assert!(model.device(StreamId::new(5)).request_page(&request));
        assert_eq!(received(&doorbell), [0, 0, 3]);
        model.raise(GlobalError::MsiCmdq);
        assert_eq!(received(&doorbell), [1, 0, 0]);
        assert_eq!((smmu.drain_events(|_| {}).events, smmu.drain_page_requests(|_| {}).requests), (1, 1));
        assert_eq!(smmu.handle_global_errors().bits(), 1 << 4);
        // Once more, after a sleep.
        smmu.suspend().unwrap();
        model.power_off();
        model.power_on();
        smmu.resume().unwrap();
        assert_eq!(model.registers().read32(IRQ_CTRLACK), 7);
    }
}

#[test]
fn a_message_that_cannot_be_sent_is_wired_from_then_on() {
    let model = Model::new(Config::full());
    let doorbell = model.platform().buffer(4096);
    let smmu = bring_up(&model).unwrap();
    smmu.enable_message_interrupts(messages(&doorbell)).unwrap();
    let address = doorbell.physical().get();
    model.platform().abort_at(address..address + 4096);
    assert!(touch(&model.device(StreamId::new(5)), 0).is_err());
    let report = smmu.handle_global_errors();
    // The message about the lost message is lost too.
    assert_eq!(report.bits(), 1 << 5 | 1 << 7);
    assert_eq!(model.registers().read64(0xb0), 0, "EVENTQ_IRQ_CFG0");
    assert_eq!(model.registers().read64(0x68), 0, "GERROR_IRQ_CFG0");
    assert_ne!(model.registers().read64(0xd0), 0, "PRIQ_IRQ_CFG0 is as it was");
    assert_eq!(model.registers().read32(IRQ_CTRLACK), 7, "all are on");
    smmu.drain_events(|_| {});
    let mark = model.mark();
    assert!(touch(&model.device(StreamId::new(5)), 0).is_err());
    assert_eq!(model.log_since(mark).interrupts(), [Interrupt::Eventq]);
    assert!(smmu.handle_global_errors().is_empty());
    // It stays so.
    smmu.suspend().unwrap();
    smmu.resume().unwrap();
    assert_eq!(model.registers().read64(0xb0), 0);
}

#[test]
fn without_message_interrupts_or_with_nowhere_to_send_them_nothing_changes() {
    let model = Model::new(Config::qemu());
    let doorbell = model.platform().buffer(4096);
    let smmu = bring_up(&model).unwrap();
    smmu.enable_interrupts().unwrap();
    let refused = smmu.enable_message_interrupts(messages(&doorbell)).unwrap_err();
    assert!(matches!(refused, DeviceError::Unsupported { register: "IDR0", .. }), "{refused}");
    assert_eq!(model.registers().read32(IRQ_CTRLACK), 5);
    drop(smmu);
    let model = Model::new(Config::full());
    let smmu = bring_up(&model).unwrap();
    for address in [0, 2, 1 << 48] {
        let address = PhysAddr::new(address);
        let events = Some(Message { address, data: 0 });
        let refused = smmu.enable_message_interrupts(Messages { events, ..Messages::default() });
        assert_eq!(refused, Err(DeviceError::BadMessageAddress { address }));
    }
    assert_eq!(model.registers().read32(IRQ_CTRLACK), 0);
}

#[test]
fn r18_wired_and_message_interrupts_take_turns() {
    let model = Model::new(Config::full());
    let doorbell = model.platform().buffer(4096);
    let smmu = bring_up(&model).unwrap();
    for _ in 0..2 {
        smmu.enable_interrupts().unwrap();
        assert!(touch(&model.device(StreamId::new(5)), 0).is_err());
        assert_eq!(received(&doorbell), [0; 3]);
        assert_eq!(smmu.drain_events(|_| {}).events, 1);
        smmu.enable_message_interrupts(messages(&doorbell)).unwrap();
        assert!(touch(&model.device(StreamId::new(5)), 0).is_err());
        assert_eq!(received(&doorbell), [0, 2, 0]);
        assert_eq!(smmu.drain_events(|_| {}).events, 1);
    }
    drop(smmu);
    let laws: Vec<Law> = model.take_violations().into_iter().map(|violation| violation.law).collect();
    assert!(laws.is_empty(), "{laws:?}");
}
