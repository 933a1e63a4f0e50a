//! Another IOMMU driver, as unlike the SMMUv3's as the core's traits let it be: no registers, no tables, but a strict account
//! of what it is told.
//!
//! It panics when the core breaks its word: a stream that is moved without having been probed, or from a domain that it is
//! not in; two calls at once for one stream; a domain that goes while a stream is in it. Any of its fallible calls can be made
//! to fail, by number, and something else can be made to happen in the middle of one.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::fmt;
use core::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::addr::{Iova, PhysAddr, StreamId};
use crate::arch::attributes::Granule;
use crate::arch::descriptor::LeafAttributes;
use crate::iommu::{Domain, DomainConfig, DriverError, Iommu, PagingDomain, Refusal, Stream, UnmapError};
use crate::pgtable::{Access, MapError, MemoryType, RangeError, Stage, Translation};
use crate::platform::Platform;

/// The name of the driver.
pub(crate) const OTHER: &str = "other";

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What all instances and domains of a test share: the order of their calls, and which of them fails.
#[derive(Default)]
pub(crate) struct Script {
    plot: Mutex<Plot>,
    /// How many domains were made.
    domains: AtomicUsize,
}

#[derive(Default)]
struct Plot {
    journal: Vec<String>,
    /// How many fallible calls succeed before one fails.
    left: Option<usize>,
    /// Whether all calls fail after that, and not just one.
    for_good: bool,
    /// What happens in the middle of the next call whose journal line is this.
    surprise: Option<(String, Box<dyn FnOnce() + Send>)>,
}

impl Script {
    /// Lets `left` fallible calls succeed, and has the next fail.
    pub(crate) fn fail_after(&self, left: usize) {
        lock(&self.plot).left = Some(left);
    }

    /// The same, and all that follow fail as well.
    pub(crate) fn fail_from(&self, left: usize) {
        let mut plot = lock(&self.plot);
        (plot.left, plot.for_good) = (Some(left), true);
    }

    /// Nothing fails any more. Returns whether something was still to fail: nothing did then.
    pub(crate) fn fail_no_more(&self) -> bool {
        let mut plot = lock(&self.plot);
        let failed_for_good = core::mem::take(&mut plot.for_good) && plot.left == Some(0);
        plot.left.take().is_some() && !failed_for_good
    }

    /// Has `surprise` called in the middle of the next call that the journal has as `line`.
    pub(crate) fn during(&self, line: &str, surprise: impl FnOnce() + Send + 'static) {
        lock(&self.plot).surprise = Some((line.into(), Box::new(surprise)));
    }

    /// Adds a line to the journal.
    pub(crate) fn note(&self, line: impl Into<String>) {
        let line = line.into();
        let surprise = {
            let mut plot = lock(&self.plot);
            let surprise = plot.surprise.take_if(|(at, _)| *at == line);
            plot.journal.push(line);
            surprise
        };
        if let Some((_, surprise)) = surprise {
            surprise();
        }
    }

    /// Takes the journal.
    pub(crate) fn journal(&self) -> Vec<String> {
        core::mem::take(&mut lock(&self.plot).journal)
    }

    fn step(&self, line: String) -> Result<(), DriverError> {
        let failed = DriverError::Other { driver: OTHER, what: "told to fail", found: 0 };
        let fails = {
            let mut plot = lock(&self.plot);
            let fails = plot.left == Some(0);
            plot.left = match plot.left {
                Some(0) if !plot.for_good => None,
                Some(left) => Some(left.saturating_sub(1)),
                None => None,
            };
            fails
        };
        self.note(if fails { line + " fails" } else { line });
        if fails { Err(failed) } else { Ok(()) }
    }
}

/// An instance.
pub(crate) struct Other<P: Platform> {
    driver: &'static str,
    name: &'static str,
    platform: &'static P,
    script: Arc<Script>,
    streams: Mutex<BTreeMap<StreamId, State>>,
}

/// A stream that was probed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    /// For how many devices.
    probes: usize,
    /// `blocked`, `identity`, or the number of a domain.
    place: String,
    /// Whether a call for it is under way.
    is_busy: bool,
}

impl<P: Platform> Other<P> {
    pub(crate) fn new(name: &'static str, platform: &'static P, script: &Arc<Script>) -> Arc<Self> {
        Self::of(OTHER, name, platform, script)
    }

    /// An instance of a driver of another name, which has domains of its own.
    pub(crate) fn of(
        driver: &'static str,
        name: &'static str,
        platform: &'static P,
        script: &Arc<Script>,
    ) -> Arc<Self> {
        Arc::new(Self { driver, name, platform, script: Arc::clone(script), streams: Mutex::default() })
    }

    /// The streams that were probed, for how many devices each, and where they are.
    pub(crate) fn streams(&self) -> Vec<(u32, usize, String)> {
        let streams = lock(&self.streams);
        streams.iter().map(|(id, state)| (id.get(), state.probes, state.place.clone())).collect()
    }

    /// Where a stream is, or that nobody has it.
    pub(crate) fn place(&self, stream: u32) -> String {
        lock(&self.streams).get(&StreamId::new(stream)).map_or_else(|| "nobody's".into(), |state| state.place.clone())
    }

    /// Changes what there is of a stream.
    fn change<T>(&self, stream: StreamId, change: impl FnOnce(&mut State) -> T) -> T {
        let mut streams = lock(&self.streams);
        let new = || State { probes: 0, place: "blocked".into(), is_busy: false };
        let state = streams.entry(stream).or_insert_with(new);
        let result = change(state);
        if state.probes == 0 {
            streams.remove(&stream);
        }
        result
    }
}

impl<P: Platform> Iommu<P> for Other<P> {
    fn driver(&self) -> &'static str {
        self.driver
    }

    fn stream_id_bits(&self) -> u8 {
        8
    }

    fn probe(&self, stream: StreamId) -> Result<(), DriverError> {
        self.platform.relax();
        self.script.step(alloc::format!("{}: probe {stream}", self.name))?;
        self.change(stream, |state| state.probes += 1);
        Ok(())
    }

    fn release(&self, stream: StreamId) {
        self.platform.relax();
        self.script.note(alloc::format!("{}: release {stream}", self.name));
        self.change(stream, |state| {
            assert!(state.probes > 1 || state.place == "blocked", "{stream} is released while it is attached");
            state.probes = state.probes.checked_sub(1).expect("a stream that was probed");
        });
    }

    fn allocate_domain(self: Arc<Self>, _: &DomainConfig) -> Result<Arc<dyn PagingDomain<P>>, DriverError> {
        self.platform.relax();
        self.script.step(alloc::format!("{}: allocate", self.name))?;
        Ok(OtherDomain::make(self.driver, &self.script))
    }

    fn accepts(&self, domain: &Domain<P>) -> Result<(), Refusal> {
        self.script.note(alloc::format!("{}: accepts", self.name));
        match domain.paging() {
            Some(domain) if domain.driver() != self.driver => Err(Refusal::Foreign { driver: domain.driver() }),
            _ => Ok(()),
        }
    }

    fn set_domain(self: Arc<Self>, stream: &Stream, from: &Domain<P>, to: &Domain<P>) -> Result<(), DriverError> {
        let id = stream.id;
        self.change(id, |state| {
            if std::thread::panicking() {
                // One is enough.
                return;
            }
            assert!(state.probes > 0, "{id} is moved, and was not probed");
            assert!(!state.is_busy, "two calls at once for {id}");
            // What a failure has left aborting goes on from there.
            assert!(
                [place(from), "blocked".into()].contains(&state.place),
                "{id} is not in {from} but {}",
                state.place
            );
            state.is_busy = true;
        });
        self.platform.relax();
        let moved = self.script.step(alloc::format!("{}: {id} {} -> {}", self.name, place(from), place(to)));
        // An instance that cannot block a stream is closed: it blocks all the same.
        let to = if moved.is_ok() || to.is_blocked() { to } else { from };
        self.change(id, |state| {
            let is_there = state.place == place(to);
            let was = core::mem::replace(&mut state.place, place(to));
            if !is_there {
                own(from).filter(|_| was == place(from)).inspect(|domain| domain.leave());
                own(to).inspect(|domain| domain.enter());
            }
            state.is_busy = false;
        });
        moved
    }

    fn dump(&self, stream: StreamId, _: &Domain<P>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{stream}: {}", self.place(stream.get()))
    }
}

/// What the journal calls a domain.
fn place<P: Platform>(domain: &Domain<P>) -> String {
    match (domain, own(domain)) {
        (_, Some(own)) => own.number.to_string(),
        (domain, None) => domain.to_string(),
    }
}

/// The domain as this driver knows it, if it is its own.
pub(crate) fn own<P: Platform>(domain: &Domain<P>) -> Option<&OtherDomain> {
    let domain: &dyn Any = &**domain.paging()?;
    domain.downcast_ref()
}

/// An address space, one page after the other.
pub(crate) struct OtherDomain {
    driver: &'static str,
    number: usize,
    script: Arc<Script>,
    pages: Mutex<BTreeMap<u64, PhysAddr>>,
    streams: AtomicUsize,
}

const PAGE_BYTES: u64 = 4096;

impl OtherDomain {
    pub(crate) fn make<P: Platform>(driver: &'static str, script: &Arc<Script>) -> Arc<dyn PagingDomain<P>> {
        let number = script.domains.fetch_add(1, Ordering::Relaxed);
        let script = Arc::clone(script);
        Arc::new(Self { driver, number, script, pages: Mutex::default(), streams: AtomicUsize::new(0) })
    }

    /// How many pages are mapped.
    pub(crate) fn pages(&self) -> usize {
        lock(&self.pages).len()
    }

    fn enter(&self) {
        self.streams.fetch_add(1, Ordering::Relaxed);
    }

    fn leave(&self) {
        self.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for OtherDomain {
    fn drop(&mut self) {
        assert!(*self.streams.get_mut() == 0 || std::thread::panicking(), "a domain goes while streams are in it");
    }
}

fn pages(start: u64, size_bytes: u64) -> impl Iterator<Item = u64> {
    (0..size_bytes / PAGE_BYTES).map(move |page| start + page * PAGE_BYTES)
}

impl<P: Platform> PagingDomain<P> for OtherDomain {
    fn driver(&self) -> &'static str {
        self.driver
    }

    fn input_bits(&self) -> u8 {
        32
    }

    fn stage(&self) -> Stage {
        Stage::Stage1
    }

    fn granule(&self) -> Granule {
        Granule::K4
    }

    fn map(&self, iova: Iova, physical: PhysAddr, size_bytes: u64, _: Access, _: MemoryType) -> Result<(), MapError> {
        let failed = |_| MapError::Empty { iova };
        self.script.step(alloc::format!("map {iova}")).map_err(failed)?;
        let mut mapped = lock(&self.pages);
        if let Some(taken) = pages(iova.get(), size_bytes).find(|page| mapped.contains_key(page)) {
            return Err(MapError::Overlap { iova: Iova::new(taken) });
        }
        let frames = pages(physical.get(), size_bytes).map(PhysAddr::new);
        mapped.extend(pages(iova.get(), size_bytes).zip(frames));
        Ok(())
    }

    fn unmap(&self, iova: Iova, size_bytes: u64) -> Result<(), UnmapError> {
        self.script.note(alloc::format!("unmap {iova}"));
        let mut mapped = lock(&self.pages);
        for page in pages(iova.get(), size_bytes) {
            mapped.remove(&page).ok_or(UnmapError::Table(RangeError::NotMapped { iova: Iova::new(page) }))?;
        }
        Ok(())
    }

    fn lookup(&self, iova: Iova) -> Option<Translation> {
        let offset = iova.get() % PAGE_BYTES;
        let frame = *lock(&self.pages).get(&(iova.get() - offset))?;
        let attributes = LeafAttributes::new(Stage::Stage1, Access::ReadWrite.into(), MemoryType::WriteBack);
        let physical = PhysAddr::new(frame.get() + offset);
        Some(Translation { physical, level: 3, leaf_log2_bytes: 12, attributes })
    }

    fn counts(&self) -> (u64, u64) {
        (0, 0)
    }

    fn write_walk(&self, iova: Iova, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{iova}: domain {}", self.number)
    }
}
