//! Conditions prepared once give what they give step by step, in every bit.
#![allow(clippy::expect_used)] // Helpers of tests are tests.

mod support;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Device, Tensor};
use ldm_nn::lora::LoraConfig;
use ldm_test_support::{relative_difference, seeded_input};
use ldm_unet::{Conditioning, Prepared, SpatialAttention, SpatialTransformer, UNet, UNetError};
use support::{Case, cases};

/// The model's prediction with prepared conditions and without; panics where they differ.
#[track_caller]
fn both(name: &str, model: &UNet, dtype: DType, case: &Case) -> Tensor<4> {
    let (x, timesteps, conditioning) = case.inputs();
    let x = x.cast(dtype);
    let expected = model.forward(x.clone(), timesteps.clone(), &conditioning).expect("a sample");
    let prepared = model.prepare(&conditioning).expect("fitting conditions");
    // Twice: the first pass leaves them as they were.
    for _ in 0..2 {
        let found = model.forward_prepared(x.clone(), timesteps.clone(), &prepared).expect("a sample");
        assert_eq!(found.dtype(), dtype, "{name}");
        assert_eq!(found.to_data(), expected.to_data(), "{name}");
    }
    expected
}

#[test]
fn every_kind_of_model_and_condition() {
    for case in cases() {
        both(&case.name, &case.model(DType::F32), DType::F32, &case);
    }
}

/// Timesteps of a run, embedded all at once: products of more rows may add up in another order.
#[test]
fn timesteps_embedded_ahead() {
    for case in cases() {
        let model = case.model(DType::F32);
        let (x, _, conditioning) = case.inputs();
        let b = x.dims()[0];
        let prepared = model.prepare(&conditioning).expect("fitting conditions");
        let values = [999.0, 500.5, 500.5, 0.0];
        let timesteps = model.prepare_timesteps(&values, b, &prepared).expect("fitting conditions");
        let mut found = vec![];
        for value in [999.0, 0.0] {
            let time = timesteps.at(value, b).expect("one of them");
            let entry = model.enter_embedded(x.clone(), time, &prepared).expect("an entry");
            found.push(model.run_blocks(entry.x, &entry.time, &prepared));
            let at = Tensor::<1>::full([b], value, (&case.device, DType::F32));
            let expected = model.forward(x.clone(), at, &conditioning).expect("a sample");
            let difference = relative_difference(&found[found.len() - 1], &expected);
            assert!(difference <= 1e-5, "{} at {value}: {difference}", case.name);
        }
        assert!(relative_difference(&found[0], &found[1]) > 1e-4, "{}: the timestep does nothing", case.name);
        assert!(
            timesteps.at(500.5, b).is_some()
                && timesteps.at(1.0, b).is_none()
                && timesteps.at(0.0, b + 1).is_none(),
            "{}",
            case.name
        );
    }
}

/// Attention in f32 and in f16.
#[test]
fn half_precision() {
    for name in ["sd1", "sd2", "sdxl"] {
        let case = Case::open("condition", name);
        if !case.device.supports_dtype(DType::F16) {
            println!("no f16 on {:?}", case.device);
            return;
        }
        for outer in [DType::F16, DType::F32] {
            both(name, &case.model(DType::F16), outer, &case);
        }
    }
}

/// No other parameter here has a second axis of this length.
const RANK: usize = 3;

/// Draws the factors of LoRA, half of which are zero at first.
struct Factors(usize);

impl ModuleMapper for Factors {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let shape = param.lazy_shape();
        if D != 2 || shape[1] != RANK {
            return param;
        }
        self.0 += 1;
        let name = format!("factor {}", self.0);
        param.map(|zeros| seeded_input(&name, zeros.dims(), &zeros.device()))
    }
}

#[test]
fn a_model_with_lora() {
    for name in ["sd1", "cross_only"] {
        let case = Case::open("condition", name);
        let model = case.model(DType::F32);
        let plain = both(name, &model, DType::F32, &case);
        let mut factors = Factors(0);
        let adapted = model.with_lora(&LoraConfig::new(RANK), 1).expect("attention layers").map(&mut factors);
        assert!(factors.0 > 0, "{name}: no factors");
        let changed = both(name, &adapted, DType::F32, &case);
        assert!(relative_difference(&changed, &plain) > 1e-3, "{name}: the factors do nothing");
    }
}

fn transformers(model: &mut UNet) -> Vec<&mut SpatialTransformer> {
    let down = model.down_blocks.iter_mut().flat_map(|block| &mut block.attentions);
    let middle = model.mid_block.iter_mut().filter_map(|block| block.attention.as_mut());
    let up = model.up_blocks.iter_mut().flat_map(|block| &mut block.attentions);
    let all = down.chain(middle).chain(up).filter_map(|attention| match attention {
        SpatialAttention::Transformer(transformer) => Some(transformer),
        SpatialAttention::Block(_) => None,
    });
    all.collect()
}

/// With the weights of K and V gone, what was prepared before still holds them.
#[test]
fn keys_and_values_are_not_projected_again() {
    let case = Case::open("condition", "sd1");
    let model = case.model(DType::F32);
    let expected = both("sd1", &model, DType::F32, &case);
    let (x, timesteps, conditioning) = case.inputs();
    let prepared = model.prepare(&conditioning).expect("fitting conditions");

    let mut without = model;
    for block in transformers(&mut without).into_iter().flat_map(|t| &mut t.transformer_blocks) {
        for linear in [&mut block.attn2.to_k, &mut block.attn2.to_v] {
            linear.weight = linear.weight.clone().map(|weight| weight.zeros_like());
        }
    }
    let found = without.forward_prepared(x.clone(), timesteps.clone(), &prepared).expect("a sample");
    assert_eq!(found.to_data(), expected.to_data());
    let found = without.forward(x, timesteps, &conditioning).expect("a sample");
    assert!(relative_difference(&found, &expected) > 1e-2);
}

/// Another model's keys and values are of no use, but its context is.
#[test]
fn what_another_model_prepared_is_projected_anew() {
    let case = Case::open("condition", "sd1");
    let (x, timesteps, conditioning) = case.inputs();
    let (one, other) = (case.model(DType::F32), case.config.init(&case.device).expect("a valid config"));
    let prepared = other.prepare(&conditioning).expect("fitting conditions");
    let expected = one.forward(x.clone(), timesteps.clone(), &conditioning).expect("a sample");
    let found = one.forward_prepared(x, timesteps, &prepared).expect("a sample");
    assert_eq!(found.to_data(), expected.to_data());
}

#[test]
fn conditions_that_do_not_fit_are_named() {
    let case = Case::open("condition", "sd1");
    let model = case.model(DType::F32);
    let d = model.context_dim().expect("cross-attention");
    let zeros = |shape: [usize; 3]| Tensor::<3>::zeros(shape, &Device::default());
    let prepare =
        |conditioning: &Conditioning| -> Result<Prepared, UNetError> { model.prepare(conditioning) };
    let missing = prepare(&Conditioning::none()).expect_err("an error");
    assert!(matches!(missing, UNetError::Missing { input: "context", .. }), "{missing}");
    let wide = prepare(&Conditioning::context(zeros([2, 5, d + 1]))).expect_err("an error");
    let expected = UNetError::Shape { input: "context", axis: "the width", expected: d, got: d + 1 };
    assert_eq!(wide, expected);
    let empty = prepare(&Conditioning::context(zeros([0, 5, d]))).expect_err("an error");
    assert_eq!(empty, UNetError::EmptyBatch);
    let labels = Conditioning::context(zeros([2, 5, d])).with_class_labels([0, 1]);
    let superfluous = prepare(&labels).expect_err("an error");
    assert!(matches!(superfluous, UNetError::Unexpected { input: "class_labels", .. }), "{superfluous}");

    // A latent for another number of items.
    let prepared = prepare(&Conditioning::context(zeros([2, 5, d]))).expect("fitting conditions");
    let x = Tensor::<4>::zeros([3, 4, 8, 8], &Device::default());
    let t = Tensor::<1>::zeros([1], &Device::default());
    let items = model.forward_prepared(x, t, &prepared).expect_err("an error");
    let other = UNetError::Shape { input: "context", axis: "the batch", expected: 3, got: 2 };
    assert_eq!(items, other);
    assert_eq!(model.prepare_timesteps(&[1.0], 3, &prepared).expect_err("an error"), other);
    for (timesteps, b) in [(&[] as &[f32], 2), (&[1.0], 0)] {
        let empty = model.prepare_timesteps(timesteps, b, &prepared).expect_err("an error");
        assert_eq!(empty, UNetError::EmptyBatch);
    }
}
