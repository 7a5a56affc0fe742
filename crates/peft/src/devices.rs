//! Devices by name, among the backends compiled in.

use burn::tensor::Device;

/// A device name that cannot be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceError {
    name: String,
}

impl std::fmt::Display for DeviceError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let known = device_names().join(", ");
        write!(
            f,
            "no device {:?}: compiled in are {known}; others are Cargo features of the same name",
            self.name
        )
    }
}

impl std::error::Error for DeviceError {}

/// The device with this name: a backend compiled in (`flex`), with an index where it has several
/// devices (`cuda:1`).
///
/// # Errors
/// If no such backend is compiled in, or the index is not a number.
pub fn device(name: &str) -> Result<Device, DeviceError> {
    let unknown = || DeviceError { name: name.into() };
    let (backend, index) = match name.split_once(':') {
        // The other backends have one device, or choose among theirs themselves.
        Some((backend @ ("cuda" | "rocm"), index)) => {
            (backend, index.parse::<usize>().map_err(|_| unknown())?)
        }
        Some(_) => return Err(unknown()),
        None => (name, 0),
    };
    let _ = index;
    match backend {
        #[cfg(feature = "flex")]
        "flex" => Ok(Device::flex()),
        #[cfg(feature = "ndarray")]
        "ndarray" => Ok(Device::ndarray()),
        #[cfg(feature = "cpu")]
        "cpu" => Ok(Device::cpu()),
        #[cfg(feature = "cuda")]
        "cuda" => Ok(Device::cuda(index)),
        #[cfg(feature = "rocm")]
        "rocm" => Ok(Device::rocm(index)),
        #[cfg(feature = "wgpu")]
        "wgpu" => Ok(Device::wgpu(Default::default())),
        #[cfg(feature = "vulkan")]
        "vulkan" => Ok(Device::vulkan(Default::default())),
        #[cfg(feature = "metal")]
        "metal" => Ok(Device::metal(Default::default())),
        _ => Err(unknown()),
    }
}

/// The names of the backends compiled in, the default first.
pub fn device_names() -> Vec<&'static str> {
    [
        (cfg!(feature = "flex"), "flex"),
        (cfg!(feature = "cuda"), "cuda"),
        (cfg!(feature = "rocm"), "rocm"),
        (cfg!(feature = "metal"), "metal"),
        (cfg!(feature = "vulkan"), "vulkan"),
        (cfg!(feature = "wgpu"), "wgpu"),
        (cfg!(feature = "cpu"), "cpu"),
        (cfg!(feature = "ndarray"), "ndarray"),
    ]
    .into_iter()
    .filter_map(|(compiled, name)| compiled.then_some(name))
    .collect()
}
