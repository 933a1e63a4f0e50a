//! Under construction.

pub mod fwspec;
