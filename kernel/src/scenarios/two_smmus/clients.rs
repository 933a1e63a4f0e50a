//! Drivers that are told again and again to bind, until they can.

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use smmu::iommu::BindError;

use super::super::engine::Engine;
use super::super::entropy::RandomBytes;
use super::super::system::{Endpoint, System};
use crate::drivers::DriverKind;

/// A driver and its device.
pub(super) trait Client {
    /// The device's name.
    fn name(&self) -> String;

    /// Binds the driver. If that has to be deferred, nothing has happened.
    fn bind(&mut self) -> Result<(), BindError<String>>;

    /// Has the device do DMA, and looks at what came of it. Only once the driver is bound.
    fn work(&mut self) -> Result<(), String>;
}

/// A device with a driver that makes a `T` when it is bound.
struct Simple<T> {
    endpoint: Endpoint,
    driver: Option<T>,
    bind: fn(&mut Endpoint) -> Result<T, BindError<String>>,
    work: fn(&mut T) -> Result<(), String>,
}

/// The first source of random bytes has slot 0, the second slot 1; a third finds its slot taken.
pub(super) fn of(system: &mut System) -> Vec<Box<dyn Client>> {
    let mut clients: Vec<Box<dyn Client>> = Vec::new();
    let mut sources = 0;
    for endpoint in system.endpoints.drain(..) {
        match endpoint.driver {
            DriverKind::Edu => clients.push(Simple::boxed(endpoint, Engine::new, Engine::copy)),
            DriverKind::VirtioEntropy if sources == 0 => {
                clients.push(Simple::boxed(endpoint, RandomBytes::<0>::new, RandomBytes::fetch));
                sources = 1;
            }
            DriverKind::VirtioEntropy => {
                clients.push(Simple::boxed(endpoint, RandomBytes::<1>::new, RandomBytes::fetch));
            }
            DriverKind::VirtioBlock | DriverKind::IommuTestdev | DriverKind::Ohci => {}
        }
    }
    clients
}

impl<T: 'static> Simple<T> {
    fn boxed(
        endpoint: Endpoint,
        bind: fn(&mut Endpoint) -> Result<T, BindError<String>>,
        work: fn(&mut T) -> Result<(), String>,
    ) -> Box<dyn Client> {
        Box::new(Self { endpoint, driver: None, bind, work })
    }
}

impl<T> Client for Simple<T> {
    fn name(&self) -> String {
        let Endpoint { function, driver, device } = &self.endpoint;
        device.as_ref().map_or_else(|_| alloc::format!("{} {driver}", function.address), ToString::to_string)
    }

    fn bind(&mut self) -> Result<(), BindError<String>> {
        self.driver = Some((self.bind)(&mut self.endpoint)?);
        Ok(())
    }

    fn work(&mut self) -> Result<(), String> {
        self.driver.as_mut().map_or(Ok(()), self.work)
    }
}
