//! Groups: devices that cannot be isolated from one another, and so go through one domain.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::mem;
use core::ops::{Deref, DerefMut};
use core::time::Duration;

use lock_api::Mutex;

use super::device::DeviceId;
use super::fwspec::Phandle;
use super::{Device, Domain, DriverError, Iommu, IommuError, Refusal, Stream};
use crate::platform::Platform;

/// How long another CPU is waited for that has claimed something. It waits for hardware itself, for a second each time.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Devices that cannot be isolated from one another.
///
/// Its state is claimed, not locked, by whoever changes it: that takes commands, which are waited for.
pub(super) struct Group<P: Platform> {
    platform: &'static P,
    /// `None` while it is claimed.
    state: Mutex<P::Lock, Option<GroupState<P>>>,
}

/// What a group goes through, and on whose behalf.
pub(super) struct GroupState<P: Platform> {
    pub(super) owner: Owner,
    pub(super) domain: Domain<P>,
    attached: Vec<Attached<P>>,
    /// What the users of the domain share that the core knows nothing about. See
    /// [`Attachment::shared`](super::Attachment::shared).
    shared: Option<Arc<dyn Any + Send + Sync>>,
}

/// Who decides what the group's devices reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// Drivers of the devices, by way of the group's default domain; or nobody, as long as nothing is attached.
    Drivers,
    /// One owner of all its devices.
    One,
}

/// A stream of the group that goes through its domain.
struct Attached<P: Platform> {
    stream: Arc<Stream>,
    instance: Arc<dyn Iommu<P>>,
    /// The attached devices that have it.
    users: Vec<DeviceId>,
}

/// A stream that is to be attached, and where.
pub(super) struct Port<P: Platform> {
    pub(super) stream: Stream,
    pub(super) instance: Arc<dyn Iommu<P>>,
}

/// The state of a group, claimed until this is dropped.
pub(super) struct Claim<'a, P: Platform> {
    group: &'a Group<P>,
    state: GroupState<P>,
}

impl<P: Platform> Group<P> {
    pub(super) fn new(platform: &'static P) -> Arc<Self> {
        Arc::new(Self { platform, state: Mutex::new(Some(GroupState::new())) })
    }

    /// Claims the state, or waits for it. `None` if whoever has it does not give it back.
    pub(super) fn claim(&self) -> Option<Claim<'_, P>> {
        let start = self.platform.now();
        loop {
            let now = self.platform.now();
            if let Some(state) = self.state.lock().take() {
                return Some(Claim { group: self, state });
            }
            if now.saturating_sub(start) >= PATIENCE {
                return None;
            }
            self.platform.relax();
        }
    }
}

impl<P: Platform> GroupState<P> {
    const fn new() -> Self {
        Self { owner: Owner::Drivers, domain: Domain::Blocked, attached: Vec::new(), shared: None }
    }

    /// Whether no stream is attached.
    pub(super) fn is_idle(&self) -> bool {
        self.attached.is_empty()
    }

    /// Whether a device is attached: it is not any more when one of its instances was taken away.
    pub(super) fn has(&self, user: &Device) -> bool {
        self.attached.iter().any(|attached| attached.users.contains(&user.id()))
    }

    /// Whether no other device is attached.
    pub(super) fn has_only(&self, user: &Device) -> bool {
        self.attached.iter().all(|attached| attached.users == [user.id()])
    }

    /// Refuses if an instance that a stream is attached in could not use a domain.
    pub(super) fn check_accepted(&self, domain: &Domain<P>) -> Result<(), IommuError> {
        check_accepted(self.attached.iter().map(|attached| (attached.stream.iommu, &attached.instance)), domain)
    }

    /// Attaches a device's streams to the group's domain, or none of them. Those that are attached already for another
    /// device have one user more.
    pub(super) fn attach(&mut self, user: &Device, ports: Vec<Port<P>>) -> Result<Vec<Arc<Stream>>, IommuError> {
        let attached: Result<_, _> = ports.into_iter().map(|port| self.attach_one(user, port)).collect();
        attached.inspect_err(|_| self.detach(user))
    }

    fn attach_one(&mut self, user: &Device, port: Port<P>) -> Result<Arc<Stream>, IommuError> {
        let Port { stream, instance } = port;
        let is_same =
            |attached: &&mut Attached<P>| (attached.stream.iommu, attached.stream.id) == (stream.iommu, stream.id);
        if let Some(attached) = self.attached.iter_mut().find(is_same) {
            attached.users.push(user.id());
            return Ok(Arc::clone(&attached.stream));
        }
        let stream = Arc::new(stream);
        let moved = Arc::clone(&instance).set_domain(&stream, &Domain::Blocked, &self.domain);
        moved.map_err(|error| IommuError::Device { iommu: stream.iommu, error })?;
        let users = [user.id()].into();
        self.attached.push(Attached { stream: Arc::clone(&stream), instance, users });
        Ok(stream)
    }

    /// Detaches a device. Those of its streams that no other device has abort; a driver that fails at that has closed its
    /// instance.
    pub(super) fn detach(&mut self, user: &Device) {
        for index in (0..self.attached.len()).rev() {
            let Some(attached) = self.attached.get_mut(index) else { continue };
            let had = attached.users.len();
            attached.users.retain(|&id| id != user.id());
            if attached.users.is_empty() && had != 0 {
                let Attached { stream, instance, .. } = self.attached.remove(index);
                let _ = instance.set_domain(&stream, &self.domain, &Domain::Blocked);
            }
        }
    }

    /// Moves all attached streams to another domain that their instances [accept](Self::check_accepted), or none of them.
    pub(super) fn replace(&mut self, to: Domain<P>) -> Result<(), IommuError> {
        if to == self.domain {
            return Ok(());
        }
        for index in 0..self.attached.len() {
            if let Err((iommu, error)) = self.move_one(index, &self.domain, &to) {
                (0..index).rev().for_each(|moved| self.move_back(moved, &to));
                return Err(IommuError::Device { iommu, error });
            }
        }
        self.domain = to;
        self.shared = None;
        Ok(())
    }

    /// Has a stream go through what it had before, or through nothing: not through a domain that nobody keeps for it.
    fn move_back(&self, index: usize, from: &Domain<P>) {
        if self.move_one(index, from, &self.domain).is_err() {
            let _ = self.move_one(index, from, &Domain::Blocked);
        }
    }

    fn move_one(&self, index: usize, from: &Domain<P>, to: &Domain<P>) -> Result<(), (Phandle, DriverError)> {
        let Some(Attached { stream, instance, .. }) = self.attached.get(index) else { return Ok(()) };
        Arc::clone(instance).set_domain(stream, from, to).map_err(|error| (stream.iommu, error))
    }

    /// What the users of the domain share; `make` makes it for the first.
    pub(super) fn shared<T: Any + Send + Sync>(&mut self, make: impl FnOnce() -> T) -> Arc<T> {
        let known = self.shared.clone().and_then(|shared| shared.downcast().ok());
        known.unwrap_or_else(|| {
            let new = Arc::new(make());
            self.shared = Some(Arc::<T>::clone(&new));
            new
        })
    }
}

/// Asks all instances whether they could use a domain.
pub(super) fn check_accepted<'a, P: Platform>(
    instances: impl IntoIterator<Item = (Phandle, &'a Arc<dyn Iommu<P>>)>,
    domain: &Domain<P>,
) -> Result<(), IommuError> {
    instances.into_iter().try_for_each(|(iommu, instance)| {
        instance.accepts(domain).map_err(|refusal| match refusal {
            Refusal::Foreign { driver: made_by } => {
                IommuError::ForeignDomain { iommu, driver: instance.driver(), made_by }
            }
            Refusal::Lacks(lacks) => IommuError::Incompatible { iommu, lacks },
        })
    })
}

impl<P: Platform> Deref for Claim<'_, P> {
    type Target = GroupState<P>;

    fn deref(&self) -> &GroupState<P> {
        &self.state
    }
}

impl<P: Platform> DerefMut for Claim<'_, P> {
    fn deref_mut(&mut self) -> &mut GroupState<P> {
        &mut self.state
    }
}

impl<P: Platform> Drop for Claim<'_, P> {
    /// Gives the state back. An idle group has no domain and no owner.
    fn drop(&mut self) {
        let mut state = mem::replace(&mut self.state, GroupState::new());
        if state.is_idle() {
            state = GroupState::new();
        }
        *self.group.state.lock() = Some(state);
    }
}
