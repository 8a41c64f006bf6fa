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
    let mut found = ldm_nn::device::enumerate(kind)
        .ok_or_else(|| "no driver for it was found on this machine".to_string())?;
    if index >= found.len() {
        return Err(format!("this machine has {} of that kind", found.len()));
    }
    let device = found.swap_remove(index);
    computes(&device)?;
    Ok(device)
}

/// Whether the device runs a kernel with an exponential, which says more than its driver does: burn's CUDA takes those
/// from the CUDA toolkit's `libdevice.10.bc` when it compiles, and without it every later kernel fails.
#[cfg(any(feature = "cuda", feature = "rocm", feature = "metal", feature = "vulkan", feature = "wgpu"))]
fn computes(device: &Device) -> Result<(), String> {
    let zero = burn::tensor::Tensor::<1>::zeros([1], (device, DType::F32));
    match zero.exp().try_into_scalar::<f32>() {
        Ok(1.0) => Ok(()),
        Ok(other) => Err(format!("it computes exp(0) = {other}")),
        Err(error) => Err(format!("it does not run a kernel: {error}")),
    }
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
    use burn::tensor::Tensor;

    use super::*;

    /// Each name of the build gives a device that computes, or an error that says why not.
    #[test]
    fn every_device_computes_or_says_why_not() {
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
