use std::collections::HashMap;
use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use safetensors::tensor::{Dtype, TensorView};

/// Uniform in [-1, 1), drawn from `name`: FNV-1a of the name seeds SplitMix64, 24 bits an element.
fn uniform(name: &str, n: usize) -> impl Iterator<Item = f32> {
    let seed = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3));
    (1..=n as u64).map(move |i| {
        let mut z = seed.wrapping_add(i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        (z >> 40) as f32 / 8_388_608.0 - 1.0
    })
}

/// The weight that both sides give the tensor `name` of this shape.
///
/// One axis: `1 + 0.1 u` where the name ends in `weight` (a norm), else `0.1 u` (a bias). More axes:
/// `u sqrt(3 / fan_in)`, so that activations keep their size.
pub fn seeded_weight(name: &str, shape: &[usize]) -> Vec<f32> {
    let n = shape.iter().product();
    if shape.len() < 2 {
        let offset = if name.ends_with("weight") { 1.0 } else { 0.0 };
        return uniform(name, n).map(|u| offset + 0.1f32 * u).collect();
    }
    let fan_in: usize = shape[1..].iter().product();
    let scale = (3.0 / fan_in as f64).sqrt() as f32;
    uniform(name, n).map(|u| u * scale).collect()
}

/// An input of unit variance drawn from `name`.
pub fn seeded_input<const D: usize>(name: &str, shape: [usize; D], device: &Device) -> Tensor<D> {
    let scale = 3f64.sqrt() as f32;
    let values: Vec<f32> = uniform(name, shape.iter().product()).map(|u| u * scale).collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// Writes a safetensors file with a seeded weight for every name and shape.
pub fn write_weights(path: &Path, shapes: &[(String, Vec<usize>)]) {
    let bytes: Vec<Vec<u8>> = shapes
        .iter()
        .map(|(name, shape)| seeded_weight(name, shape).iter().flat_map(|v| v.to_le_bytes()).collect())
        .collect();
    let views: HashMap<_, _> = shapes
        .iter()
        .zip(&bytes)
        .map(|((name, shape), bytes)| {
            let view = TensorView::new(Dtype::F32, shape.clone(), bytes);
            (name.clone(), view.expect("a seeded weight fits its shape"))
        })
        .collect();
    safetensors::serialize_to_file(&views, None, path).expect("the file can be written");
}
