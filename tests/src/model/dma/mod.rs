//! Devices: who puts transactions on the bus, and what becomes of them.
//!
//! What lives here: agents with a StreamID, the way of a transaction through the SMMU, stalls, ATS, page requests. What
//! does not: translation itself ([`walk`](super::walk)).

mod ats;
mod device;
mod page_request;
mod stall;
mod transaction;

pub(super) use ats::AtcEntry;
pub use ats::{AtsRefused, AtsTranslation};
pub use device::{Device, Refused, Stall};
use page_request::Requester;
pub use page_request::{PageRequest, PageResponse};
pub(super) use stall::Stalled;
pub(super) use transaction::{Passage, Transaction};
