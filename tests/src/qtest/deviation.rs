//! Where QEMU's SMMU is known to differ from the architecture, and the driver is right all the same.

use std::fmt;

/// A difference that shows in what these tests compare. Nothing else is waved through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Deviation {
    /// With stage 2 alone, an access that a cached translation forbids is stopped, but no F_PERMISSION is recorded. (QEMU
    /// takes a write for a fault of stage 1, whose CD.R is not set where there is no CD, and does not check a read itself.)
    CachedStage2Permission,
    /// With stage 2 alone, an access beyond the input addresses of STE.S2T0SZ is stopped, but no F_TRANSLATION is
    /// recorded.
    Stage2InputRange,
}

impl fmt::Display for Deviation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CachedStage2Permission => "no event for an access that a cached stage-2 translation forbids",
            Self::Stage2InputRange => "no event for an access beyond stage 2's input addresses",
        })
    }
}
