//! Boots the kernel in QEMU, each time on a machine of its own, and looks at what came of it: the records that the kernel
//! makes for programs, the console that it shows to people, and what QEMU traced meanwhile.
//!
//! What lives here: all tests that need a QEMU, by subject, and in [`boot`] and [`log`] what they share. Without a QEMU that
//! can build all machines none of them runs, and the whole process fails.

mod adoption;
mod boot;
mod broken_firmware;
mod costs;
mod demo;
mod disks;
mod events;
mod faults;
mod hotplug;
mod image;
mod isolation;
mod launcher;
mod log;
mod machines;
mod missing_devices;
mod recovery;
mod scenarios;
mod topology;
mod translations;
mod two_smmus;
