//! Groups: devices that cannot be isolated from one another, and so go through one domain.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::mem;
use core::ops::{Deref, DerefMut};
use core::time::Duration;

use lock_api::Mutex;

use super::fwspec::Phandle;
use super::{Domain, DriverError, Iommu, IommuError, Refusal, Stream};
use crate::platform::Platform;

/// How long another CPU is waited for that has claimed the group. It waits for hardware itself, for a second each time.
const PATIENCE: Duration = Duration::from_secs(10);

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
    /// How many attached devices have it.
    users: usize,
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

    /// Whether these streams are attached, each by one user, and no others.
    pub(super) fn is_attached_exactly(&self, streams: &[&Arc<Stream>]) -> bool {
        let is_one = |attached: &Attached<P>| {
            attached.users == 1 && streams.iter().any(|stream| Arc::ptr_eq(stream, &attached.stream))
        };
        self.attached.len() == streams.len() && self.attached.iter().all(is_one)
    }

    /// Attaches streams to the group's domain, or none of them. Those that are attached already have one user more.
    pub(super) fn attach(&mut self, ports: Vec<Port<P>>) -> Result<Vec<Arc<Stream>>, IommuError> {
        let mut streams = Vec::with_capacity(ports.len());
        for port in ports {
            match self.attach_one(port) {
                Ok(stream) => streams.push(stream),
                Err(error) => {
                    let _ = self.detach(&streams);
                    return Err(error);
                }
            }
        }
        Ok(streams)
    }

    fn attach_one(&mut self, port: Port<P>) -> Result<Arc<Stream>, IommuError> {
        let Port { stream, instance } = port;
        let is_same =
            |attached: &&mut Attached<P>| (attached.stream.iommu, attached.stream.id) == (stream.iommu, stream.id);
        if let Some(attached) = self.attached.iter_mut().find(is_same) {
            attached.users = attached.users.saturating_add(1);
            return Ok(Arc::clone(&attached.stream));
        }
        let stream = Arc::new(stream);
        let moved = Arc::clone(&instance).set_domain(&stream, &Domain::Blocked, &self.domain);
        moved.map_err(|error| IommuError::Device { iommu: stream.iommu, error })?;
        self.attached.push(Attached { stream: Arc::clone(&stream), instance, users: 1 });
        Ok(stream)
    }

    /// Takes back one use of each stream; those that have none left abort. What was evicted in between is passed over. All
    /// are gone through whatever happens; the first error is the one that is returned.
    pub(super) fn detach(&mut self, streams: &[Arc<Stream>]) -> Result<(), IommuError> {
        let mut result = Ok(());
        for stream in streams.iter().rev() {
            let Some(index) = self.attached.iter().position(|attached| Arc::ptr_eq(&attached.stream, stream)) else {
                continue;
            };
            if let Some(attached) = self.attached.get_mut(index)
                && attached.users > 1
            {
                attached.users = attached.users.saturating_sub(1);
                continue;
            }
            result = result.and(self.block(index));
        }
        result
    }

    /// Makes the streams that `leaves` names abort, whoever uses them.
    pub(super) fn evict(&mut self, leaves: impl Fn(&Stream) -> bool) -> Result<(), IommuError> {
        let mut result = Ok(());
        while let Some(index) = self.attached.iter().rposition(|attached| leaves(&attached.stream)) {
            result = result.and(self.block(index));
        }
        result
    }

    fn block(&mut self, index: usize) -> Result<(), IommuError> {
        let Attached { stream, instance, .. } = self.attached.remove(index);
        let moved = instance.set_domain(&stream, &self.domain, &Domain::Blocked);
        moved.map_err(|error| IommuError::Device { iommu: stream.iommu, error })
    }

    /// Moves all attached streams to another domain, or none of them.
    pub(super) fn replace(&mut self, to: Domain<P>) -> Result<(), IommuError> {
        let instances = self.attached.iter().map(|attached| (attached.stream.iommu, &attached.instance));
        check_accepted(instances, &to)?;
        for index in 0..self.attached.len() {
            if let Err((iommu, error)) = self.move_one(index, &self.domain, &to) {
                // Back to what they had. One that does not go aborts, or its instance was closed.
                for moved in (0..index).rev() {
                    let _ = self.move_one(moved, &to, &self.domain);
                }
                return Err(IommuError::Device { iommu, error });
            }
        }
        self.domain = to;
        self.shared = None;
        Ok(())
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
