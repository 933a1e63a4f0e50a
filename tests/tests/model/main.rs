//! The software SMMUv3, by itself and under the real driver.

mod adopt;
mod adopt_refused;
mod ats;
mod bench;
mod boot;
mod commands;
mod devices;
mod documentation;
mod driver;
mod dump;
mod entries;
mod failures;
mod former;
mod interrupts;
mod laws;
mod lifecycle;
mod live_updates;
mod lookups;
mod many;
mod page_requests;
mod registers;
mod sequences;
mod system;
mod transitions;
mod walks;
mod watch;
