//! The virtio devices that a configuration asks for, made from the table of sections
//! ([`resources::sections!`]). No device is named here.

use super::error::MachineError;
use super::lent::{Lend, Lent};
use devices::util::metrics::MetricSet;
use devices::virtio::device::VirtioDevice;
use devices::virtio::section::{BuildError, FromSection, Place};
use resources::VmConfig;
use std::any::TypeId;
use std::sync::Arc;

/// The identity of a device in its machine.
#[derive(Clone, Debug)]
pub struct DeviceIdentity {
    device_type: TypeId,
    /// The id in the API, for an entry of a list.
    pub id: Option<String>,
    /// The name in messages, threads and snapshots.
    pub name: String,
}

impl DeviceIdentity {
    /// Returns whether this is the device of type `D` with the id `id`, or the only device of that type for `None`.
    pub fn is<D: FromSection>(&self, id: Option<&str>) -> bool {
        self.device_type == TypeId::of::<D>() && self.id.as_deref() == id
    }
}

/// Builds a device with what the monitor lends it.
type Build = Box<dyn Fn(&mut Lent) -> Result<Box<dyn VirtioDevice>, BuildError>>;

/// A device that is still to be built.
pub struct DeviceRequest {
    /// The device's identity.
    pub identity: DeviceIdentity,
    place: Place,
    build: Build,
}

impl DeviceRequest {
    fn new<D>(section: &D::Section, key: String) -> Self
    where
        D: FromSection,
        Lent: Lend<D::Section, D::Lent>,
    {
        let owned = section.clone();
        Self {
            identity: DeviceIdentity {
                device_type: TypeId::of::<D>(),
                id: D::id(section).map(ToOwned::to_owned),
                name: D::name(section),
            },
            place: D::place(section),
            build: Box::new(move |lent| {
                let resource = lent.lend(&owned, &key)?;
                Ok(Box::new(D::build(&owned, &key, resource)?))
            }),
        }
    }

    /// Builds the device and opens the files that it needs.
    ///
    /// # Errors
    /// [`MachineError::Device`], naming the key.
    pub fn build(&self, lent: &mut Lent) -> Result<Box<dyn VirtioDevice>, MachineError> {
        Ok((self.build)(lent)?)
    }
}

/// A field of [`VmConfig`] that asks for devices.
trait Requests<S> {
    /// Returns each section of the field with its key.
    fn sections(&self, key: &str) -> Vec<(&S, String)>;
}

impl<S> Requests<S> for Option<S> {
    fn sections(&self, key: &str) -> Vec<(&S, String)> {
        self.iter().map(|section| (section, key.into())).collect()
    }
}

impl<S> Requests<S> for Vec<S> {
    fn sections(&self, key: &str) -> Vec<(&S, String)> {
        let entries = self.iter().enumerate();
        entries
            .map(|(i, entry)| (entry, format!("{key}[{i}]")))
            .collect()
    }
}

fn request<D>(field: &impl Requests<D::Section>, key: &str, requests: &mut Vec<DeviceRequest>)
where
    D: FromSection,
    Lent: Lend<D::Section, D::Lent>,
{
    let sections = field.sections(key).into_iter();
    requests.extend(sections.map(|(section, key)| DeviceRequest::new::<D>(section, key)));
}

macro_rules! devices {
    ($($field:ident $key:literal $device:path;)*) => {
        /// Returns all devices of `config` in the order of their register windows.
        pub fn requests(config: &VmConfig) -> Vec<DeviceRequest> {
            let mut requests = Vec::new();
            $(request::<$device>(&config.$field, $key, &mut requests);)*
            requests.sort_by_key(|request| request.place);
            requests
        }

        /// Returns the metrics of each device type, all zero, for devices that a guest does not have.
        pub fn empty_metrics() -> Vec<Arc<dyn MetricSet>> {
            vec![$(Arc::new(<$device as FromSection>::Metrics::default())),*]
        }
    };
}
resources::for_each_device!(devices);
