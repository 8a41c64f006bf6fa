use burn::tensor::{Device, Int, Tensor, TensorData};
use ldm_test_support::{Fixture, assert_close, seeded_input, seeded_weight};
use ldm_vae::{CodebookUsage, Remap, UnknownIndex, VaeError, VectorQuantizer, measure_perplexity};

use crate::ints;

fn quantizer(device: &Device) -> VectorQuantizer {
    let mut quantizer = VectorQuantizer::new(16, 3, 0.25, device);
    let values = TensorData::new(seeded_weight("embedding.weight", &[16, 3]), [16, 3]);
    quantizer.embedding.weight = quantizer.embedding.weight.map(|_| Tensor::from_data(values, device));
    quantizer
}

fn latent(device: &Device) -> Tensor<4> {
    seeded_input("quantizer.z", [2, 3, 4, 5], device)
}

#[test]
fn remapped_indices_are_tamings() {
    let device = Device::default();
    let fixture = Fixture::open("vq_remap");
    let used: Vec<i64> = serde_json::from_value(fixture.json("used")).unwrap();
    for (name, unknown) in
        [("random", UnknownIndex::Random), ("extra", UnknownIndex::Extra), ("two", UnknownIndex::Index(2))]
    {
        let remap = Remap::new(used.clone(), 16, unknown).unwrap();
        let re_embed = remap.re_embed();
        assert_eq!(re_embed, if name == "extra" { 7 } else { 6 });
        let quantizer = quantizer(&device).with_remap(Some(remap)).with_sane_index_shape(name == "two");
        let quantized = quantizer.forward(latent(&device)).unwrap();
        let data = quantized.indices.to_data();
        assert_eq!(data.shape().to_vec(), if name == "two" { vec![2, 4, 5] } else { vec![40, 1] });
        let (found, codes) = (ints(&data), ints(&quantized.codes.to_data()));
        let theirs = fixture.ints(&format!("{name}.indices"));
        for i in 0..40 {
            let is_used = used.contains(&codes[i]);
            if name != "random" || is_used {
                assert_eq!(found[i], theirs[i], "{name} {i}");
            }
            assert!((0..re_embed as i64).contains(&found[i]), "{name} {i}: {}", found[i]);
        }
        assert!(codes.iter().any(|code| !used.contains(code)), "every code is used");
        // Entries of the reference's own indices, random ones too.
        let theirs = Tensor::<1, Int>::from_data(TensorData::new(theirs, [40]), &device).reshape([2, 4, 5]);
        let entries = quantizer.codebook_entry(theirs).unwrap();
        assert_close(name, &entries, &fixture.tensor(&format!("{name}.entries"), &device), 1e-6);
    }
}

#[test]
fn indices_that_are_no_codes_are_named() {
    let device = Device::default();
    let map = |values: [i64; 4]| Tensor::<1, Int>::from_data(values, &device).reshape([1, 2, 2]);
    let plain = quantizer(&device);
    let error = plain.codebook_entry(map([0, 15, 16, 3])).unwrap_err();
    assert_eq!(error, VaeError::Index { index: 16, position: 2, codes: 16 });
    let error = plain.codebook_entry(map([0, -1, 4, 3])).unwrap_err();
    assert_eq!(error.to_string(), "index -1 at position 1 is no code: the indices are 0..16");
    let remap = |used: Vec<i64>| Remap::new(used, 16, UnknownIndex::Extra);
    let remapped = quantizer(&device).with_remap(Some(remap(vec![3, 4]).unwrap()));
    assert!(remapped.codebook_entry(map([0, 1, 2, 2])).is_ok(), "2 is the extra one");
    assert!(matches!(remapped.codebook_entry(map([0, 1, 2, 3])), Err(VaeError::Index { codes: 3, .. })));
    assert!(matches!(remap(vec![3, 16]), Err(VaeError::Index { index: 16, position: 1, codes: 16 })));
    assert!(matches!(remap(vec![]), Err(VaeError::Config { key: "remap", .. })));
}

#[test]
fn usage_and_perplexity_are_tamings() {
    let device = Device::default();
    let quantized = quantizer(&device).forward(latent(&device)).unwrap();
    let mut usage = CodebookUsage::new(16);
    assert_eq!((usage.used(), usage.perplexity()), (0, 1.0));
    usage.count(&quantized);
    let expected = Fixture::open("vq_gradients").tensor::<1>("perplexity", &device).into_scalar::<f64>();
    assert!((usage.perplexity() - expected).abs() < 1e-4 * expected, "{} {expected}", usage.perplexity());
    assert_eq!(usage.counts().iter().sum::<u64>(), 40);
    assert_eq!(usage.used() + usage.dead().len(), 16);
    // The same, counted on the device.
    let [perplexity, used] =
        measure_perplexity(quantized.codes.clone(), 16).map(|number| number.into_scalar::<f64>());
    assert!((perplexity - expected).abs() < 1e-4 * expected, "{perplexity} {expected}");
    assert_eq!(used, usage.used() as f64);
    usage.count(&quantized);
    assert!((usage.perplexity() - expected).abs() < 1e-4 * expected, "twice the same is the same");
    assert_eq!(CodebookUsage::resume(usage.counts().to_vec()), usage);
}

#[test]
fn dead_codes_come_to_life_where_latents_are() {
    let device = Device::default();
    // A codebook far away: one code serves all.
    let far = quantizer(&device);
    let weight = far.embedding.weight.val();
    let first = weight.clone().narrow(0, 0, 1);
    let weight = Tensor::cat(vec![first, weight.narrow(0, 1, 15) + 100.0], 0);
    let mut far = far;
    far.embedding.weight = far.embedding.weight.map(|_| weight.clone());
    let id = far.embedding.weight.id;
    let z = latent(&device);
    let mut usage = CodebookUsage::new(16);
    let before = far.forward(z.clone()).unwrap();
    usage.count(&before);
    assert_eq!((usage.used(), usage.dead()), (1, (1..16).collect()));
    let mut pixels = 0..;
    let (alive, dead) = far.reseed(&usage, z.clone(), |n| pixels.next().unwrap_or(0) % n).unwrap();
    assert_eq!(dead, (1..16).collect::<Vec<_>>());
    assert_eq!(alive.embedding.weight.id, id, "an optimiser knows the codebook by its id");
    let rows = z.clone().permute([0, 2, 3, 1]).reshape([40, 3]);
    let codes = alive.embedding.weight.val();
    assert_close("re-seeded", &codes.clone().narrow(0, 1, 15), &rows.narrow(0, 0, 15), 1e-6);
    assert_close("the living one", &codes.narrow(0, 0, 1), &weight.narrow(0, 0, 1), 1e-6);
    let after = alive.forward(z.clone()).unwrap();
    let mut usage = CodebookUsage::new(16);
    usage.count(&after);
    assert!(usage.used() >= 15 && usage.perplexity() > 5.0, "{} {}", usage.used(), usage.perplexity());
    assert!(after.loss.into_scalar::<f64>() < before.loss.into_scalar::<f64>());
    // Nothing is dead: nothing changes.
    let mut all = CodebookUsage::new(16);
    let codes = alive.embedding.weight.val().reshape([1, 16, 1, 3]).permute([0, 3, 1, 2]);
    all.count(&alive.forward(codes).unwrap());
    let (same, dead) = alive.clone().reseed(&all, z, |_| panic!("nothing to draw")).unwrap();
    assert!(dead.is_empty());
    assert_close("same", &same.embedding.weight.val(), &alive.embedding.weight.val(), 0.0);
}

#[test]
fn a_large_codebook_goes_in_blocks() {
    // 16,384 codes for 4,096 pixels: 67 million scores, in four blocks.
    let device = Device::default();
    let quantizer = VectorQuantizer::new(16384, 4, 0.25, &device);
    let codes = quantizer.embedding.weight.val();
    // Each pixel is a code; every fourth code.
    let picks: Vec<i64> = (0..4096).map(|i| i * 4 + 1).collect();
    let data = TensorData::new(picks.clone(), [4096]);
    let z = codes.select(0, Tensor::<1, Int>::from_data(data, &device));
    let z = z.reshape([1, 64, 64, 4]).permute([0, 3, 1, 2]);
    let quantized = quantizer.forward(z.clone()).unwrap();
    let entries = quantizer.codebook_entry(quantized.indices.map()).unwrap();
    // Codes as close as U(-1/n, 1/n) makes them may be within rounding of each other; their values then agree.
    assert_close("values", &entries, &z, 1e-2);
    let same = ints(&quantized.indices.to_data()).iter().zip(&picks).filter(|(a, b)| a == b).count();
    assert!(same > 4000, "{same} of 4096");
}
