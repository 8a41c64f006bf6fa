use burn::tensor::{DType, Device, Int, Tensor};
use ldm_test_support::assert_close;
use ldm_vae::{Tiling, VqModel};

use crate::{Case, ints};

/// Latents, indices except near-ties, decoded pictures.
fn compare(case: &Case, dtype: DType, tolerance: f64) -> VqModel {
    let device = Device::default();
    let model = case.model(dtype, &device);
    assert_eq!(model.dtype(), dtype);
    let close = |key: &str, output: Tensor<4>| {
        assert_eq!(output.dtype(), dtype);
        let expected = case.fixture.tensor::<4>(key, &device);
        let name = format!("{} {key} {dtype:?}", case.name);
        assert_close(&name, &output.cast(DType::F32), &expected, tolerance);
    };
    close("latents", model.encode(case.picture(&device)).unwrap());
    close("decoded", model.decode(case.latent(&model, &device)).unwrap());

    // From the reference's own latent, so that no rounding before the codebook counts.
    let latents = case.fixture.tensor::<4>("latents", &device);
    let quantized = model.quantize.forward(latents).unwrap();
    let (found, expected) = (ints(&quantized.indices.to_data()), case.fixture.ints("indices"));
    let (_, near) = case.fixture.bytes("near");
    assert_eq!(found.len(), expected.len());
    let differ = (0..found.len()).filter(|i| near[*i] == 0 && found[*i] != expected[*i]).count();
    println!("{}: {differ} of {} indices differ", case.name, found.len());
    if dtype == DType::F32 {
        assert_eq!(differ, 0, "{}", case.name);
    }
    model
}

#[test]
fn the_papers_ladder_is_compvis() {
    let device = Device::default();
    for name in ["vq-f4", "vq-f4-noattn", "vq-f8", "vq-f8-n256", "vq-f16"] {
        let case = Case::compvis(name);
        let model = compare(&case, DType::F32, 1e-4);
        let latents = case.fixture.tensor::<4>("latents", &device);
        let loss = model.quantize.forward(latents).unwrap().loss;
        assert_close(&format!("{name} loss"), &loss, &case.fixture.tensor("loss", &device), 1e-4);
        if name == "vq-f4" {
            let decoded = model.decode_unquantized(case.latent(&model, &device)).unwrap();
            assert_close("unquantized", &decoded, &case.fixture.tensor("unquantized", &device), 1e-4);
        }
    }
}

#[test]
fn diffusers_vq_model_is_diffusers() {
    let device = Device::default();
    for name in ["ldm", "attention", "default"] {
        let case = Case::diffusers(name);
        let model = compare(&case, DType::F32, 1e-4);
        if name == "attention" {
            assert!(model.config().lookup_from_codebook);
            let latents = case.fixture.tensor::<4>("latents", &device);
            let [b, _, h, w] = latents.dims();
            let indices = case.fixture.int::<1>("indices", &device).reshape([b, h, w]);
            let decoded = model.decode_code(indices).unwrap();
            assert_close("looked up", &decoded, &case.fixture.tensor("looked_up", &device), 1e-4);
        }
    }
}

#[test]
fn half_precision_stays_near() {
    if !Device::default().supports_dtype(DType::F16) {
        println!("this device has no f16");
        return;
    }
    compare(&Case::compvis("vq-f8-n256"), DType::F16, 1e-2);
}

#[test]
fn tiles_and_slices_join_to_the_whole() {
    let device = Device::default();
    let case = Case::compvis("vq-f4");
    let model = case.model(DType::F32, &device);
    let (x, z) = (case.picture(&device), case.latent(&model, &device));
    let (latents, picture) = (model.encode(x.clone()).unwrap(), model.decode(z.clone()).unwrap());
    let sliced = model.clone().with_slicing(true);
    assert_close("sliced", &sliced.encode(x.clone()).unwrap(), &latents, 1e-5);
    // One tile holds the picture.
    let tiled = model.clone().with_tiling(Some(Tiling::with_latent_size(8, 4))).unwrap();
    assert_close("one tile", &tiled.encode(x.clone()).unwrap(), &latents, 1e-6);
    assert_close("one tile", &tiled.decode(z.clone()).unwrap(), &picture, 1e-6);
    // Several: the corner far from every seam is the first tile's own.
    let tiled = model.clone().with_tiling(Some(Tiling::with_latent_size(4, 4))).unwrap();
    let corner = |x: Tensor<4>| x.narrow(2, 0, 8).narrow(3, 0, 8);
    let whole = tiled.decode(z.clone()).unwrap();
    assert_eq!(whole.dims(), picture.dims());
    let first = model.decode(z.narrow(2, 0, 4).narrow(3, 0, 4)).unwrap();
    assert_close("corner", &corner(whole), &corner(first), 1e-5);
}

#[test]
fn decode_quantises_and_so_does_its_own_code() {
    let device = Device::default();
    let case = Case::compvis("vq-f8-n256");
    let model = case.model(DType::F32, &device);
    let z = case.latent(&model, &device);
    let quantized = model.quantize.forward(z.clone()).unwrap();
    let by_code = model.decode_code(quantized.indices.map()).unwrap();
    assert_close("by code", &by_code, &model.decode(z).unwrap(), 1e-4);
    let entries = model.quantize.codebook_entry(quantized.indices.map()).unwrap();
    assert_close("entries", &entries, &quantized.z_q, 1e-6);
    let again: Tensor<1, Int> = model.quantize.forward(entries).unwrap().codes;
    assert_eq!(ints(&again.into_data()), ints(&quantized.codes.into_data()));
}
