//! Tests that cross packages. Those that boot the kernel in QEMU are in `tests/boot`.

pub mod fuzz;
pub mod guest;
pub mod model;
pub mod mutations;
pub mod qtest;
pub mod sequence;
pub mod shapes;
