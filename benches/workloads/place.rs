//! Where a workload runs, and in which float type.

use std::sync::OnceLock;

use burn::tensor::{DType, Device};

/// A device and a float type.
#[derive(Debug, Clone)]
pub struct Place {
    /// Where.
    pub device: Device,
    /// The type of weights and inputs.
    pub dtype: DType,
}

/// What a build may have, slowest last.
const BACKENDS: [&str; 7] = ["flex", "cuda", "rocm", "metal", "vulkan", "wgpu", "ndarray"];

impl Place {
    /// By the names that a command line has.
    pub fn named(device: &str, dtype: &str) -> Result<Self, ldm::Error> {
        let device = ldm::device(device)?;
        let dtype = ldm::dtype(dtype, &device)?;
        Ok(Self { device, dtype })
    }

    /// In f32.
    pub fn f32(device: Device) -> Self {
        Self { device, dtype: DType::F32 }
    }

    /// Whether it is a processor, whose work is done when a call returns.
    pub fn is_cpu(&self) -> bool {
        // Of the backends here only those on a GPU keep pools of memory.
        self.device.memory_pool_usage().is_none()
    }

    /// Waits for everything that was asked of the device.
    pub fn sync(&self) {
        self.device.sync().expect("the device works");
    }
}

/// Every backend that this build has and this machine offers, by name: in f32, and on a GPU in f16 too. Tells what is
/// left out, once.
pub fn places() -> &'static [(String, Place)] {
    static PLACES: OnceLock<Vec<(String, Place)>> = OnceLock::new();
    PLACES.get_or_init(|| {
        let mut places = Vec::new();
        for name in BACKENDS {
            if !ldm::DEVICES.contains(&name) {
                eprintln!("{name}: skipped, it is not in this build (Cargo feature `{name}`)");
                continue;
            }
            match ldm::device(name) {
                Err(error) => eprintln!("{name}: skipped, {error}"),
                Ok(device) => {
                    let place = Place::f32(device);
                    let half = !place.is_cpu() && place.device.supports_dtype(DType::F16);
                    places.push((name.to_string(), place.clone()));
                    if half {
                        places.push((format!("{name} f16"), Place { dtype: DType::F16, ..place }));
                    }
                }
            }
        }
        places
    })
}
