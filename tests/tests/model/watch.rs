//! Onlookers: devices that try their luck after every single register access of the driver.

use std::collections::BTreeSet;
use std::mem;
use std::sync::{Arc, Mutex};

use smmu::addr::{Iova, StreamId};
use tests::model::{Buffer, Device, Model, RegisterAccess};

/// What the canary is, for as long as nobody has reached it.
const CANARY: u64 = 0x5afe_5afe_5afe_5afe;

/// Onlookers over one model. [`Watch::end`] says what they saw.
pub(crate) struct Watch<'a> {
    model: &'a Model,
    canary: Buffer,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    accesses: usize,
    surprises: Vec<String>,
}

/// A device that is to work throughout, and where it finds a word.
pub(crate) struct Working {
    pub(crate) device: Device,
    pub(crate) iova: Iova,
    pub(crate) word: u64,
}

impl<'a> Watch<'a> {
    /// Strangers with `rogues` as StreamIDs, which must reach nothing, and devices that must go on working.
    pub(crate) fn new(model: &'a Model, rogues: &[u32], working: Vec<Working>) -> Self {
        let canary = model.platform().buffer(4096);
        canary.words()[0].store(CANARY, std::sync::atomic::Ordering::SeqCst);
        let seen = Arc::new(Mutex::new(Seen::default()));
        let rogues: Vec<_> = rogues.iter().map(|rogue| model.device(StreamId::new(*rogue))).collect();
        let (target, noted) = (canary.physical(), Arc::clone(&seen));
        model.observe(move |access| {
            let mut seen = noted.lock().unwrap();
            seen.accesses += 1;
            for rogue in &rogues {
                // Untranslated, and as if it had been translated before.
                if rogue.write(Iova::new(target.get()), &[1]).is_ok()
                    || rogue.forge_translated(target.get(), &[1]).is_ok()
                {
                    seen.note(&format!("{rogue:?} got through"), access);
                }
            }
            for Working { device, iova, word } in &working {
                let mut found = [0; 8];
                let result = device.read(*iova, &mut found);
                if result.is_err() || u64::from_le_bytes(found) != *word {
                    seen.note(&format!("{device:?} did not read its word: {result:?}"), access);
                }
            }
        });
        Self { model, canary, seen }
    }

    /// Looks no more, and fails if anything was not as it should have been. Returns how many accesses were watched.
    #[track_caller]
    pub(crate) fn end(self) -> usize {
        self.model.stop_observing();
        let seen = std::mem::take(&mut *self.seen.lock().unwrap());
        assert!(seen.surprises.is_empty(), "{:#?}", seen.surprises);
        assert_eq!(self.canary.words()[0].load(std::sync::atomic::Ordering::SeqCst), CANARY);
        assert_ne!(seen.accesses, 0);
        seen.accesses
    }
}

impl Seen {
    fn note(&mut self, what: &str, RegisterAccess { offset, written }: RegisterAccess) {
        let access = written.map_or(format!("the read of {offset:#x}"), |value| format!("{offset:#x} = {value:#x}"));
        self.surprises.push(format!("{what} after {access}, the {}th access", self.accesses));
    }
}

/// What a device reads: a byte, or nothing because it aborted.
pub(crate) type Outcome = Option<u8>;

/// One byte, read by a device.
pub(crate) fn read(device: &Device, target: Iova) -> Outcome {
    let mut byte = [0];
    device.read(target, &mut byte).ok().map(|()| byte[0])
}

/// What a device gets at `target` after every register access during `change`, and once more when it is over.
pub(crate) fn during(
    model: &Model,
    device: &Device,
    target: Iova,
    change: impl FnOnce(),
) -> (BTreeSet<Outcome>, Outcome) {
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let (noted, onlooker) = (Arc::clone(&seen), device.clone());
    model.observe(move |_| {
        noted.lock().unwrap().insert(read(&onlooker, target));
    });
    change();
    model.stop_observing();
    let seen = mem::take(&mut *seen.lock().unwrap());
    (seen, read(device, target))
}
