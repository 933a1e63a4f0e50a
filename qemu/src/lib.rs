//! Finds, feeds and watches QEMU.
