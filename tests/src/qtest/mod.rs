//! The driver over QEMU's SMMUv3: it runs here, in the test's process; the SMMU, the memory and the devices that do DMA are
//! a QEMU's that has no CPU (`-accel qtest`).
//!
//! What lives here: machines ([`QtestMachine`]), a [`Platform`](smmu::platform::Platform) over their memory and registers
//! ([`QtestPlatform`]), their DMA engines ([`Edu`], [`IommuTestdev`]), and all of it as what sequences are run against
//! ([`QtestBackend`]). What does not: tests (`tests/tests/qtest`), and
//! booting a kernel (`tests/tests/boot`).

mod backend;
mod connection;
mod edu;
mod error;
mod machine;
mod pci;
mod platform;
mod staging;
mod testdev;

pub use backend::QtestBackend;
pub use edu::{BUFFER_BYTES, Direction, Edu, Transfer};
pub use error::QtestError;
pub use machine::{QtestMachine, SIGNATURE_OFFSET, SIGNATURE_WORDS};
pub use platform::{QtestPlatform, QtestRegisters};
pub use staging::Staging;
pub use testdev::{IommuTestdev, PATTERN, WriteOutcome};
