//! Who strayed: an event with the name of the device behind it, and how often that is worth saying.

use alloc::sync::Arc;
use core::fmt;
use core::mem::{self, Discriminant};
use core::time::Duration;

use super::Device;
use super::fwspec::Phandle;
use crate::addr::Iova;
use crate::arch::event::{Access, AccessDirection, Event, EventKind};

/// Reports of one stream that are due within [`WINDOW`] at most.
const DUE_PER_WINDOW: u32 = 8;
/// What [`DUE_PER_WINDOW`] counts for.
const WINDOW: Duration = Duration::from_secs(1);

/// An event, attributed. Made and printed without allocating, so that an interrupt handler can.
#[derive(Clone, Debug)]
pub struct FaultReport {
    /// The instance that recorded the event.
    pub iommu: Phandle,
    /// The devices with that StreamID, if any was added: one, unless devices share it.
    pub(super) devices: Option<Arc<[Arc<Device>]>>,
    /// How often the device has faulted by now, this time included. Unknown devices are counted together.
    pub count: u64,
    /// The event.
    pub event: Event,
    /// Whether the report is worth a line. The first of a kind is, then the 16th, the 256th and so on, but no more than
    /// eight a second for one stream. The count goes on all the time: nothing is lost by keeping quiet.
    pub is_due: bool,
}

impl FaultReport {
    /// The device with the event's StreamID, or the first of those that share it, if one was added.
    #[must_use]
    pub fn device(&self) -> Option<&Arc<Device>> {
        self.suspects().first()
    }

    /// All devices with the event's StreamID. The IOMMU cannot tell which of them it was.
    #[must_use]
    pub fn suspects(&self) -> &[Arc<Device>] {
        self.devices.as_deref().unwrap_or_default()
    }
}

/// One line: which device, what it tried, why it could not.
impl fmt::Display for FaultReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.suspects() {
            [device] if device.is_attached() => write!(f, "{device}, ")?,
            [device] => write!(f, "{device}, not attached, ")?,
            [first, others @ ..] => {
                write!(f, "{first}")?;
                others.iter().try_for_each(|other| write!(f, " or {other}"))?;
                f.write_str(" (same StreamID), ")?;
            }
            [] => f.write_str("unknown device, ")?,
        }
        write!(f, "{}", self.event)?;
        if self.count > 1 {
            let of = if self.device().is_some() { "" } else { " of unknown devices" };
            write!(f, " [{} faults{of} so far]", self.count)?;
        }
        Ok(())
    }
}

/// What events have in common that say the same over again: the kind, the direction, the page.
type Signature = (Discriminant<EventKind>, Option<AccessDirection>, u64);

/// Decides which of a stream's faults are worth a line.
#[derive(Debug)]
pub(super) struct Throttle {
    last: Option<Signature>,
    /// Events in a row with the signature `last`.
    streak: u64,
    window_start: Duration,
    due_in_window: u32,
}

impl Throttle {
    pub(super) const fn new() -> Self {
        Self { last: None, streak: 0, window_start: Duration::ZERO, due_in_window: 0 }
    }

    /// Takes note of an event at the time `now` and says whether it is due.
    pub(super) fn admit(&mut self, event: &Event, now: Duration) -> bool {
        let signature = signature(event);
        self.streak = if self.last == Some(signature) { self.streak.saturating_add(1) } else { 1 };
        self.last = Some(signature);
        if now.saturating_sub(self.window_start) >= WINDOW {
            self.window_start = now;
            self.due_in_window = 0;
        }
        let is_due = is_power_of_sixteen(self.streak) && self.due_in_window < DUE_PER_WINDOW;
        if is_due {
            self.due_in_window = self.due_in_window.saturating_add(1);
        }
        is_due
    }
}

fn is_power_of_sixteen(count: u64) -> bool {
    count.is_power_of_two() && count.trailing_zeros().is_multiple_of(4)
}

fn signature(event: &Event) -> Signature {
    let of_access = |access: Access, input: Iova| (Some(access.direction), input.get());
    let (direction, input) = match event.kind {
        EventKind::Uut { access, input, .. }
        | EventKind::WalkEabt { access, input, .. }
        | EventKind::TlbConflict { access, input, .. } => of_access(access, input),
        EventKind::Translation(fault) => of_access(fault.access, fault.input),
        EventKind::TranslForbidden { direction, input } => (Some(direction), input.get()),
        _ => (None, 0),
    };
    (mem::discriminant(&event.kind), direction, input >> 12)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An F_TRANSLATION of a write by stream 8.
    fn write_to(address: u64) -> Event {
        Event::decode([0x8_0000_0010, 2 << 40, address, 0])
    }

    fn due(throttle: &mut Throttle, event: &Event, times: usize) -> usize {
        (0..times).filter(|_| throttle.admit(event, Duration::from_secs(5))).count()
    }

    #[test]
    fn a_storm_of_one_kind_is_reported_more_and_more_rarely() {
        assert_eq!(due(&mut Throttle::new(), &write_to(0x1000), 1024), 3);
    }

    #[test]
    fn another_page_is_news() {
        let mut throttle = Throttle::new();
        assert_eq!(due(&mut throttle, &write_to(0x1000), 3), 1);
        assert_eq!(due(&mut throttle, &write_to(0x2000), 1), 1);
    }

    #[test]
    fn a_device_that_varies_its_faults_does_not_escape_the_limit() {
        let mut throttle = Throttle::new();
        let lines: usize = (0..1000).map(|page| due(&mut throttle, &write_to(page << 12), 1)).sum();
        assert_eq!(lines, 8);
        assert!(throttle.admit(&write_to(0), Duration::from_secs(6)));
    }
}
