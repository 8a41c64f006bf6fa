//! Devices and float types by name, as a command line gives them.

use burn::tensor::{DType, Device};

use crate::Error;

/// The device names that this build understands, for help texts and errors.
pub const DEVICES: &[&str] = &[
    #[cfg(feature = "flex")]
    "flex",
    #[cfg(feature = "ndarray")]
    "ndarray",
    #[cfg(feature = "cuda")]
    "cuda",
    #[cfg(feature = "rocm")]
    "rocm",
    #[cfg(feature = "metal")]
    "metal",
    #[cfg(feature = "vulkan")]
    "vulkan",
    #[cfg(feature = "wgpu")]
    "wgpu",
];

/// The device called `name`: one of [`DEVICES`], with `:n` for the n-th GPU (`cuda:1`).
///
/// # Errors
/// [`Error::Device`] for a name that this build does not know and for a GPU that isn't there.
pub fn device(name: &str) -> Result<Device, Error> {
    let error = |reason: String| Error::Device { name: name.into(), reason };
    let (kind, index) = match name.split_once(':') {
        None => (name, 0),
        Some((kind, index)) => {
            let index = index.parse::<usize>();
            (kind, index.map_err(|_| error("after the colon comes the GPU's number".into()))?)
        }
    };
    match kind {
        #[cfg(feature = "flex")]
        "flex" if index == 0 => Ok(Device::flex()),
        #[cfg(feature = "ndarray")]
        #[allow(deprecated, reason = "burn deprecates ndarray in favour of flex; users still ask for it")]
        "ndarray" if index == 0 => Ok(Device::ndarray()),
        #[cfg(feature = "cuda")]
        "cuda" => listed(burn::tensor::DeviceType::Cuda, index).map_err(error),
        #[cfg(feature = "rocm")]
        "rocm" => listed(burn::tensor::DeviceType::Rocm, index).map_err(error),
        #[cfg(feature = "metal")]
        "metal" => listed(burn::tensor::DeviceType::Metal, index).map_err(error),
        #[cfg(feature = "vulkan")]
        "vulkan" => listed(burn::tensor::DeviceType::Vulkan, index).map_err(error),
        #[cfg(feature = "wgpu")]
        "wgpu" => listed(burn::tensor::DeviceType::Wgpu, index).map_err(error),
        _ => Err(error(format!(
            "this build knows {}; others need a Cargo feature (cuda, rocm, metal, vulkan, wgpu, ndarray, flex)",
            DEVICES.join(", ")
        ))),
    }
}

/// The `index`-th device of a kind, if the machine has it.
#[cfg(any(feature = "cuda", feature = "rocm", feature = "metal", feature = "vulkan", feature = "wgpu"))]
fn listed(kind: burn::tensor::DeviceType, index: usize) -> Result<Device, String> {
    // A driver that is missing altogether makes the backend panic while it looks for devices.
    let found = quietly(|| Device::enumerate(kind).into_vec());
    let mut found = found.ok_or_else(|| "no driver for it was found on this machine".to_string())?;
    if index < found.len() {
        return Ok(found.swap_remove(index));
    }
    Err(format!("this machine has {} of that kind", found.len()))
}

/// What `look` gives, or nothing where it panics; the panic's message is not shown.
///
/// The hook that shows it is the process's: for as long as this takes, no thread's panic is shown.
#[cfg(any(
    test,
    feature = "cuda",
    feature = "rocm",
    feature = "metal",
    feature = "vulkan",
    feature = "wgpu"
))]
fn quietly<T>(look: impl FnOnce() -> T + std::panic::UnwindSafe) -> Option<T> {
    use std::panic::{catch_unwind, set_hook, take_hook};
    use std::sync::{Mutex, PoisonError};

    // One at a time, or one would take the other's silence for the hook to put back.
    static HOOK: Mutex<()> = Mutex::new(());
    let _held = HOOK.lock().unwrap_or_else(PoisonError::into_inner);
    let shows = take_hook();
    set_hook(Box::new(|_| {}));
    let found = catch_unwind(look);
    set_hook(shows);
    found.ok()
}

/// The float type called `name`: `f32`, `f16` or `bf16`.
///
/// # Errors
/// [`Error::Argument`] for another name, [`Error::DType`] where `device` can't compute in it.
pub fn dtype(name: &str, device: &Device) -> Result<DType, Error> {
    let dtype = match name {
        "f32" => DType::F32,
        "f16" => DType::F16,
        "bf16" => DType::BF16,
        _ => return Err(Error::argument("dtype", format!("`{name}` is none of f32, f16, bf16"))),
    };
    check_dtype(dtype, device)?;
    Ok(dtype)
}

/// Whether `device` can compute in `dtype`, as an error.
pub(crate) fn check_dtype(dtype: DType, device: &Device) -> Result<(), Error> {
    if device.supports_dtype(dtype) {
        return Ok(());
    }
    Err(Error::DType { dtype: format!("{dtype:?}").to_lowercase(), device: format!("{device:?}") })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex, PoisonError};

    use burn::tensor::Tensor;

    use super::*;

    /// Held by the tests that change the hook of panics.
    static HOOK: Mutex<()> = Mutex::new(());

    /// Each name of the build gives a device that computes, or an error that says why not.
    #[test]
    fn every_device_computes_or_says_why_not() {
        let _held = HOOK.lock().unwrap_or_else(PoisonError::into_inner);
        let mut opened = Vec::new();
        for name in DEVICES {
            match device(name) {
                Ok(device) => {
                    let numbers = |v: [f32; 3]| Tensor::<1>::from_data(v, (&device, DType::F32));
                    let sum = numbers([1.0, 2.0, -3.5]) + numbers([0.5, -2.0, 10.0]);
                    assert_eq!(sum.into_data().try_to_vec::<f32>().unwrap(), [1.5, 0.0, 6.5], "{name}");
                    opened.push(*name);
                }
                Err(Error::Device { name: told, reason }) => {
                    assert_eq!(told, *name);
                    println!("{name}: {reason}");
                }
                Err(other) => panic!("{name}: {other}"),
            }
        }
        assert!(opened.contains(&"flex"), "{opened:?}");
    }

    #[test]
    fn a_panic_while_looking_for_devices_is_not_shown() {
        const WORDS: &str = "there is no such driver, says a test";
        let _held = HOOK.lock().unwrap_or_else(PoisonError::into_inner);
        let shown = Arc::new(AtomicUsize::new(0));
        let before = std::panic::take_hook();
        let counter = shown.clone();
        std::panic::set_hook(Box::new(move |info| match info.payload_as_str() {
            Some(WORDS) => {
                counter.fetch_add(1, Ordering::SeqCst);
            }
            _ => before(info),
        }));
        assert_eq!(quietly(|| -> usize { panic!("{WORDS}") }), None);
        assert_eq!(shown.load(Ordering::SeqCst), 0);
        assert_eq!(quietly(|| 7), Some(7));
        // Afterwards panics are shown again.
        assert!(std::panic::catch_unwind(|| panic!("{WORDS}")).is_err());
        assert_eq!(shown.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn an_unknown_device_is_named() {
        let error = device("abacus").unwrap_err().to_string();
        assert!(error.contains("abacus") && error.contains(DEVICES[0]), "{error}");
    }

    #[test]
    fn a_number_that_is_none_is_refused() {
        let error = device("flex:x").unwrap_err().to_string();
        assert!(error.contains("flex:x"), "{error}");
    }

    #[test]
    fn an_unknown_float_type_is_named() {
        let error = dtype("f12", &Device::default()).unwrap_err().to_string();
        assert!(error.contains("f12") && error.contains("bf16"), "{error}");
    }
}
