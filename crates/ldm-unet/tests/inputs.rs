//! Inputs that don't fit the model.
#![allow(clippy::expect_used)] // Helpers of tests are tests.

use burn::tensor::{Device, Distribution, Tensor};
use ldm_unet::{Conditioning, NumClasses, PerLevel, UNet, UNetConfig, UNetError, VectorLabel};

fn small() -> UNetConfig {
    let mut config = UNetConfig::new(4, 8, 4);
    config.channel_mult = vec![1.0, 2.0];
    config.num_res_blocks = PerLevel::All(1);
    config.norm_num_groups = 4;
    config.num_heads = Some(PerLevel::All(2));
    config.attention_resolutions = vec![1];
    config
}

fn with_context() -> UNetConfig {
    let mut config = small();
    config.use_spatial_transformer = true;
    config.context_dim = Some(6);
    config
}

fn init(config: &UNetConfig) -> UNet {
    config.init(&Device::default()).expect("a valid config")
}

fn zeros<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    Tensor::zeros(shape, &Device::default())
}

/// The error of a pass over `x` `[2, 4, 8, 8]`.
fn refused(model: &UNet, conditioning: &Conditioning) -> UNetError {
    model.forward(zeros([2, 4, 8, 8]), zeros([2]), conditioning).expect_err("an error")
}

fn shape(input: &'static str, axis: &'static str, expected: usize, got: usize) -> UNetError {
    UNetError::Shape { input, axis, expected, got }
}

#[test]
fn a_context_has_to_be_there_and_fit() {
    let model = init(&with_context());
    let missing = refused(&model, &Conditioning::none());
    assert!(matches!(missing, UNetError::Missing { input: "context", .. }), "{missing}");
    assert_eq!(missing.to_string(), "the U-Net has cross-attention: `context` is missing");
    let context = |dims| refused(&model, &Conditioning::context(zeros(dims)));
    assert_eq!(context([2, 5, 7]), shape("context", "the width", 6, 7));
    assert_eq!(context([3, 5, 6]), shape("context", "the batch", 2, 3));
    assert_eq!(context([2, 5, 7]).to_string(), "`context`: the width is 7, the U-Net takes 6");
    let unexpected = refused(&init(&small()), &Conditioning::context(zeros([2, 5, 6])));
    assert!(matches!(unexpected, UNetError::Unexpected { input: "context", .. }), "{unexpected}");
}

#[test]
fn latent_and_timesteps_have_to_fit() {
    let model = init(&small());
    let pass = |x, t| model.forward(zeros(x), zeros(t), &Conditioning::none());
    assert_eq!(pass([2, 5, 8, 8], [2]).expect_err("an error"), shape("x", "the number of channels", 4, 5));
    assert_eq!(pass([2, 4, 8, 8], [3]).expect_err("an error"), shape("timesteps", "the batch", 2, 3));
    for t in [0, 1] {
        assert_eq!(pass([0, 4, 8, 8], [t]).expect_err("an error"), UNetError::EmptyBatch);
    }
    // One timestep serves all, and a single pixel is a picture.
    for x in [[2, 4, 8, 8], [1, 4, 1, 1], [1, 4, 1, 3]] {
        assert_eq!(pass(x, [1]).expect("a sample").dims(), x);
    }
}

#[test]
fn a_latent_that_pooling_would_use_up_is_refused() {
    let mut config = small();
    config.conv_resample = false;
    let model = init(&config);
    let pass = |x| model.forward(zeros(x), zeros([1]), &Conditioning::none());
    let error = pass([1, 4, 8, 1]).expect_err("an error");
    assert_eq!(error, UNetError::TooSmall { axis: "the width", side: 1, levels: 2 });
    assert_eq!(pass([1, 4, 3, 2]).expect("a sample").dims(), [1, 4, 3, 2]);
}

#[test]
fn class_labels_have_to_be_in_the_table() {
    let mut config = small();
    config.num_classes = Some(NumClasses::Count(10));
    let model = init(&config);
    let labels = |labels: &[i64]| refused(&model, &Conditioning::class_labels(labels));
    assert_eq!(labels(&[0, 10]), UNetError::ClassOutOfRange { label: 10, item: 1, classes: 10 });
    assert_eq!(labels(&[-1, 0]), UNetError::ClassOutOfRange { label: -1, item: 0, classes: 10 });
    assert_eq!(labels(&[1]), shape("class_labels", "the batch", 2, 1));
    let missing = refused(&model, &Conditioning::none());
    assert!(matches!(missing, UNetError::Missing { input: "class_labels", .. }), "{missing}");
    let unexpected = refused(&init(&small()), &Conditioning::class_labels([0, 1]));
    assert!(matches!(unexpected, UNetError::Unexpected { input: "class_labels", .. }), "{unexpected}");
    let both = Conditioning::class_labels([0, 1]).with_y(zeros([2, 5]));
    assert!(matches!(refused(&model, &both), UNetError::Unexpected { input: "y", .. }));
}

#[test]
fn channels_beside_the_latent_have_to_fit() {
    let mut config = small();
    config.in_channels = 7;
    let model = init(&config);
    let missing = refused(&model, &Conditioning::none());
    assert!(matches!(missing, UNetError::Missing { input: "concat", .. }), "{missing}");
    let concat = |dims| refused(&model, &Conditioning::concat(zeros(dims)));
    assert_eq!(concat([2, 4, 8, 8]), shape("concat", "the number of channels", 3, 4));
    assert_eq!(concat([1, 3, 8, 8]), shape("concat", "the batch", 2, 1));
    assert_eq!(concat([2, 3, 4, 8]), shape("concat", "the height", 8, 4));
    assert_eq!(concat([2, 3, 8, 16]), shape("concat", "the width", 8, 16));
    let unexpected = refused(&init(&small()), &Conditioning::concat(zeros([2, 3, 8, 8])));
    assert!(matches!(unexpected, UNetError::Unexpected { input: "concat", .. }), "{unexpected}");

    // Joined by the model or before it: the same. The last convolution is zero at first.
    let mut model = model;
    model.conv_out = ldm_nn::Conv2dConfig::new([8, 4], 3).init(&Device::default());
    let draw = |shape| Tensor::<4>::random(shape, Distribution::Normal(0.0, 1.0), &Device::default());
    let (x, map) = (draw([2, 4, 8, 8]), draw([2, 3, 8, 8]));
    let pass = |x, conditioning: &Conditioning| model.forward(x, zeros([2]), conditioning).expect("a sample");
    let joined = pass(Tensor::cat(vec![x.clone(), map.clone()], 1), &Conditioning::none());
    assert_eq!(pass(x, &Conditioning::concat(map)).into_data(), joined.into_data());
}

#[test]
fn label_vectors_have_to_fit() {
    let mut config = small();
    config.num_classes = Some(NumClasses::Vector(VectorLabel::Sequential));
    config.adm_in_channels = Some(5);
    let model = init(&config);
    assert!(matches!(refused(&model, &Conditioning::none()), UNetError::Missing { input: "y", .. }));
    let y = |dims| refused(&model, &Conditioning::none().with_y(zeros(dims)));
    assert_eq!(y([2, 6]), shape("y", "the width", 5, 6));
    assert_eq!(y([1, 5]), shape("y", "the batch", 2, 1));
}

#[test]
fn text_and_sizes_have_to_fit() {
    let mut config = small();
    config.addition_embed_type = Some(ldm_unet::AddedEmbedding::TextTime);
    config.addition_time_embed_dim = Some(4);
    config.adm_in_channels = Some(6 * 4 + 5);
    let model = init(&config);
    let missing = refused(&model, &Conditioning::none());
    assert!(matches!(missing, UNetError::Missing { input: "text_embeds", .. }), "{missing}");
    let text_time = |text, ids| Conditioning::none().with_text_time(zeros(text), zeros(ids));
    let width = refused(&model, &text_time([2, 7], [2, 6]));
    assert_eq!(width, shape("text_embeds", "the width, with the sinusoids of `time_ids`,", 29, 31));
    assert_eq!(refused(&model, &text_time([2, 5], [1, 6])), shape("time_ids", "the batch", 2, 1));

    // The joined vector of CompVis' code stands for both.
    let x = zeros([2, 4, 8, 8]);
    let joined = Conditioning::none().with_y(zeros([2, 29]));
    assert!(model.forward(x.clone(), zeros([2]), &joined).is_ok());
    assert!(model.forward(x, zeros([2]), &text_time([2, 5], [2, 6])).is_ok());
    let twice = text_time([2, 5], [2, 6]).with_y(zeros([2, 29]));
    assert!(matches!(refused(&model, &twice), UNetError::Unexpected { input: "text_embeds", .. }));
}

#[test]
fn a_guidance_embedding_may_be_left_out_and_has_to_fit() {
    let mut config = small();
    config.time_cond_proj_dim = Some(3);
    let model = init(&config);
    assert!(model.forward(zeros([2, 4, 8, 8]), zeros([2]), &Conditioning::none()).is_ok());
    let cond = |dims| Conditioning::none().with_timestep_cond(zeros(dims));
    assert_eq!(refused(&model, &cond([2, 4])), shape("timestep_cond", "the width", 3, 4));
    assert_eq!(refused(&model, &cond([1, 3])), shape("timestep_cond", "the batch", 2, 1));
    let unexpected = refused(&init(&small()), &cond([2, 3]));
    assert!(matches!(unexpected, UNetError::Unexpected { input: "timestep_cond", .. }), "{unexpected}");
}
