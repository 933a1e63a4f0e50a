//! Domains: what a device's DMA may go through.

use alloc::sync::Arc;
use core::fmt;

use super::{NestedDomain, PagingDomain};
use crate::platform::Platform;

/// What the streams of a group go through, all of them the same.
pub enum Domain<P: Platform> {
    /// Nothing: all of it aborts. Where every device starts and ends.
    Blocked,
    /// All of memory, untranslated. Nothing protects it from the device.
    Identity,
    /// An address space. Each is made by the driver of the devices that use it.
    Paging(Arc<dyn PagingDomain<P>>),
    /// What a guest makes of an address space that its hypervisor owns.
    Nested(Arc<dyn NestedDomain<P>>),
}

/// Which domain a device's group gets when the first of its drivers is bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DomainPolicy {
    /// An address space of its own.
    #[default]
    Translated,
    /// All of memory, for devices that are trusted with it and must not pay for translation.
    Identity,
    /// None: no driver can use it for DMA.
    Blocked,
}

impl<P: Platform> Domain<P> {
    /// The address space, if it is one.
    #[must_use]
    pub fn paging(&self) -> Option<&Arc<dyn PagingDomain<P>>> {
        match self {
            Self::Paging(domain) => Some(domain),
            Self::Blocked | Self::Identity | Self::Nested(_) => None,
        }
    }

    /// Where what its users have to reach is mapped: in the address space, or in the one below a guest's.
    pub(super) fn mappings(&self) -> Option<&dyn PagingDomain<P>> {
        match self {
            Self::Paging(domain) => Some(&**domain),
            Self::Nested(domain) => Some(domain.parent()),
            Self::Blocked | Self::Identity => None,
        }
    }

    /// Whether nothing is let through.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        matches!(self, Self::Blocked)
    }
}

impl<P: Platform> Clone for Domain<P> {
    fn clone(&self) -> Self {
        match self {
            Self::Blocked => Self::Blocked,
            Self::Identity => Self::Identity,
            Self::Paging(domain) => Self::Paging(Arc::clone(domain)),
            Self::Nested(domain) => Self::Nested(Arc::clone(domain)),
        }
    }
}

/// Two are the same if they are the same object, or are of a kind that has none.
impl<P: Platform> PartialEq for Domain<P> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Paging(one), Self::Paging(other)) => Arc::ptr_eq(one, other),
            (Self::Nested(one), Self::Nested(other)) => Arc::ptr_eq(one, other),
            (Self::Blocked, Self::Blocked) | (Self::Identity, Self::Identity) => true,
            _ => false,
        }
    }
}

impl<P: Platform> fmt::Debug for Domain<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<P: Platform> fmt::Display for Domain<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blocked => f.write_str("blocked"),
            Self::Identity => f.write_str("identity"),
            Self::Paging(domain) => write!(f, "translated by {}, {} bits", domain.stage(), domain.input_bits()),
            Self::Nested(domain) => write!(f, "a guest's, on {} bits of its memory", domain.parent().input_bits()),
        }
    }
}
