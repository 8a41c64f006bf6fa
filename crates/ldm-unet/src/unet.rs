//! `epsilon_theta(z_t, t, tau_theta(y))`: the paper's denoiser.

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use ldm_nn::{
    Conv2d, Conv2dConfig, Embedding, EmbeddingConfig, GroupNorm, GroupNormConfig, Linear, LinearConfig,
    ResnetBlock, silu,
};

use crate::blocks::Builder;
use crate::plan::Plan;
use crate::{
    Conditioning, ConfigError, Context, DownBlock, LabelEmbedding, MidBlock, TimestepEmbedding, UNetConfig,
    UNetError, UpBlock, sinusoidal_embedding,
};

/// The time-conditional U-Net of latent diffusion, with cross-attention.
///
/// It predicts from a noisy latent, the timestep and the conditions what its training asked for: the
/// noise, `x_0` or `v`. Source: paper, sections 3.2 and 3.3; `UNetModel` in the reference's
/// `openaimodel.py`, `UNet2DConditionModel` and `UNet2DModel` in diffusers.
#[derive(Module, Debug)]
pub struct UNet {
    /// `[in_channels -> model_channels]`, 3x3.
    pub conv_in: Conv2d,
    /// From the timestep's sinusoids.
    pub time_embedding: TimestepEmbedding,
    /// A table of classes.
    pub class_embedding: Option<Embedding>,
    /// A label vector through two layers.
    pub class_projection: Option<TimestepEmbedding>,
    /// A label vector through one layer.
    pub class_linear: Option<Linear>,
    /// SDXL's added embeddings.
    pub add_embedding: Option<TimestepEmbedding>,
    /// Finest level first.
    pub down_blocks: Vec<DownBlock>,
    /// At the coarsest level.
    pub mid_block: Option<MidBlock>,
    /// Coarsest level first.
    pub up_blocks: Vec<UpBlock>,
    /// Before the last convolution.
    pub conv_norm_out: GroupNorm,
    /// `[model_channels -> out_channels]`, 3x3, zero at first.
    pub conv_out: Conv2d,
    #[module(skip)]
    inputs: Inputs,
    #[module(skip)]
    config: UNetConfig,
}

/// What a U-Net's blocks are given, in the weights' type.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The noisy latent with the channels that are joined to it, `[b, in_channels, h, w]`.
    pub x: Tensor<4>,
    /// The embedded timestep, with labels and added embeddings, after the SiLU that blocks read it through: `[b, width]`.
    pub time: Tensor<2>,
    /// `[b, m, d]`.
    pub context: Option<Tensor<3>>,
}

/// What goes from block to block of a U-Net.
#[derive(Debug, Clone)]
pub struct Flow {
    /// `[b, c, h, w]`.
    pub x: Tensor<4>,
    /// What the way down keeps for the way up.
    pub skips: Vec<Tensor<4>>,
}

/// What a forward pass checks its inputs against, and how it embeds numbers.
#[derive(Debug, Clone)]
struct Inputs {
    channels: usize,
    center: bool,
    model_channels: usize,
    time_width: usize,
    cos_first: bool,
    freq_shift: f64,
    label: Option<LabelEmbedding>,
    /// Width of the added embedding, and of each number's sinusoids in it.
    added: Option<(usize, usize)>,
    context: Option<usize>,
    timestep_cond: Option<usize>,
}

impl UNetConfig {
    /// Creates the model; its parameters are made lazily.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names what doesn't fit: sizes that don't divide, lists of another length than the
    /// levels', keys that others make necessary.
    pub fn init(&self, device: &Device) -> Result<UNet, ConfigError> {
        let plan = Plan::new(self)?;
        let builder = Builder { config: self, plan: &plan, device };
        let (c, width) = (self.model_channels, self.time_width());
        let mlp = |d_in| TimestepEmbedding::new(d_in, width, None, device);
        Ok(UNet {
            conv_in: Conv2dConfig::new([self.in_channels, c], 3).init(device),
            time_embedding: TimestepEmbedding::new(c, width, self.time_cond_proj_dim, device),
            class_embedding: match plan.label {
                Some(LabelEmbedding::Classes(n)) => Some(EmbeddingConfig::new(n, width).init(device)),
                _ => None,
            },
            class_projection: match plan.label {
                Some(LabelEmbedding::Projection(d)) => Some(mlp(d)),
                Some(LabelEmbedding::Timestep) => Some(mlp(c)),
                _ => None,
            },
            class_linear: match plan.label {
                Some(LabelEmbedding::Linear(d)) => Some(LinearConfig::new(d, width).init(device)),
                _ => None,
            },
            add_embedding: plan.added.map(|added| mlp(added.width)),
            down_blocks: builder.down(),
            mid_block: builder.middle(),
            up_blocks: builder.up(),
            conv_norm_out: GroupNormConfig::new(self.norm_num_groups, c, self.norm_eps).init(device),
            conv_out: Conv2dConfig::new([c, self.out_channels], 3).with_zero_init(true).init(device),
            inputs: Inputs {
                channels: self.in_channels,
                center: self.center_input_sample,
                model_channels: c,
                time_width: width,
                cos_first: self.flip_sin_to_cos,
                freq_shift: self.freq_shift,
                label: plan.label,
                added: plan.added.map(|added| (added.width, added.time_dim)),
                context: plan.context(self),
                timestep_cond: self.time_cond_proj_dim,
            },
            config: self.clone(),
        })
    }
}

impl UNet {
    /// One evaluation of `epsilon_theta`.
    ///
    /// Shapes: `x` `[b, in_channels, h, w]` (less those of `concat`) with any `h` and `w`, `timesteps` `[b]` (or `[1]` for all; fractions
    /// allowed), the conditions as [`Conditioning`] says; gives `[b, out_channels, h, w]` in the type of `x`.
    /// It computes in the type of its weights; statistics of norms and the sinusoids are f32 in any case.
    ///
    /// # Errors
    ///
    /// [`UNetError`] names the input that is missing, superfluous or of another size than the model takes.
    pub fn forward(
        &self,
        x: Tensor<4>,
        timesteps: Tensor<1>,
        conditioning: &Conditioning,
    ) -> Result<Tensor<4>, UNetError> {
        let outer = x.dtype();
        let Entry { x, time, context } = self.enter(x, timesteps, conditioning)?;
        Ok(self.all_blocks(x, &time, context.as_ref().map(Context::Tokens)).cast(outer))
    }

    /// What comes before the first block: the inputs checked, joined, embedded and cast to the weights' type.
    ///
    /// # Errors
    ///
    /// As [`forward`](Self::forward).
    pub fn enter(
        &self,
        x: Tensor<4>,
        timesteps: Tensor<1>,
        conditioning: &Conditioning,
    ) -> Result<Entry, UNetError> {
        self.check(&x, timesteps.dims()[0], conditioning)?;
        let b = x.dims()[0];
        // In the order of the fields that they read: lazy weights are drawn at their first use.
        let x = self.join(x, conditioning);
        let time = self.embed_timesteps(timesteps, b, conditioning);
        let time = self.embed_conditions(b, conditioning).into_iter().fold(time, |time, part| time + part);
        Ok(Entry { x, time: silu(time), context: self.context_of(conditioning) })
    }

    /// How many blocks there are: the first convolution, the levels down, the middle, the levels up, the last
    /// convolution.
    pub fn blocks(&self) -> usize {
        2 + self.down_blocks.len() + usize::from(self.mid_block.is_some()) + self.up_blocks.len()
    }

    /// One block: `forward` is [`enter`](Self::enter) and then all of them in order, so that a trainer can run a block
    /// again for its gradient. `time` and `context` are the entry's.
    ///
    /// # Panics
    ///
    /// Where there is no such block.
    pub fn block(&self, block: usize, flow: Flow, time: &Tensor<2>, context: Option<&Tensor<3>>) -> Flow {
        let times = ResnetBlock::project_time(self.resnets(block), time);
        self.one_block(block, flow, time, times, context.map(Context::Tokens))
    }

    /// All blocks in order: `x` and `time` are the entry's.
    pub(crate) fn all_blocks(
        &self,
        x: Tensor<4>,
        time: &Tensor<2>,
        context: Option<Context<'_>>,
    ) -> Tensor<4> {
        let start = Flow { x, skips: Vec::new() };
        let run = |flow, block| {
            let times = ResnetBlock::project_time(self.resnets(block), time);
            self.one_block(block, flow, time, times, context)
        };
        (0..self.blocks()).fold(start, run).x
    }

    /// The same, but what all residual blocks make of the time is computed together, before the first: their lazy weights are drawn then.
    pub(crate) fn all_blocks_of_projected(
        &self,
        x: Tensor<4>,
        time: &Tensor<2>,
        context: Option<Context<'_>>,
    ) -> Tensor<4> {
        let start = Flow { x, skips: Vec::new() };
        let resnets = (0..self.blocks()).flat_map(|block| self.resnets(block));
        let mut times = ResnetBlock::project_time(resnets, time).into_iter();
        let run = |flow, block| {
            let times = times.by_ref().take(self.resnets(block).len());
            self.one_block(block, flow, time, times, context)
        };
        (0..self.blocks()).fold(start, run).x
    }

    /// The residual blocks of a block, but for those that resample.
    fn resnets(&self, block: usize) -> &[ResnetBlock] {
        let (down, middle) = (self.down_blocks.len(), usize::from(self.mid_block.is_some()));
        match (block, &self.mid_block) {
            (0, _) => &[],
            (i, _) if i <= down => &self.down_blocks[i - 1].resnets,
            (i, Some(mid)) if i == down + 1 => &mid.resnets,
            (i, _) => self.up_blocks.get(i - 1 - down - middle).map_or(&[], |up| &up.resnets),
        }
    }

    fn one_block(
        &self,
        block: usize,
        flow: Flow,
        time: &Tensor<2>,
        times: impl IntoIterator<Item = Option<Tensor<2>>>,
        context: Option<Context<'_>>,
    ) -> Flow {
        let Flow { x, mut skips } = flow;
        let (down, middle) = (self.down_blocks.len(), usize::from(self.mid_block.is_some()));
        let x = match (block, &self.mid_block) {
            (0, _) => {
                let x = self.conv_in.forward(x);
                skips.push(x.clone());
                x
            }
            (i, _) if i <= down => {
                self.down_blocks[i - 1].forward_projected(x, time, times, context, &mut skips)
            }
            (i, Some(mid)) if i == down + 1 => mid.forward_projected(x, times, context),
            (i, _) if i <= down + middle + self.up_blocks.len() => {
                let up = &self.up_blocks[i - 1 - down - middle];
                up.forward_projected(x, time, times, context, &mut skips)
            }
            (i, _) => {
                assert_eq!(i + 1, self.blocks(), "no such block");
                self.conv_out.forward(self.conv_norm_out.forward_silu(x))
            }
        };
        Flow { x, skips }
    }

    /// The config that the model was made from.
    pub fn config(&self) -> &UNetConfig {
        &self.config
    }

    /// The device that the parameters are on, or would be made on.
    pub fn device(&self) -> Device {
        self.conv_in.weight.lazy_device()
    }

    /// The type of the weights, which it computes in.
    pub fn dtype(&self) -> DType {
        self.conv_in.weight.val().dtype()
    }

    /// What the model embeds as a label.
    pub fn label_embedding(&self) -> Option<LabelEmbedding> {
        self.inputs.label
    }

    /// Width `d` of the context `[b, m, d]`, where the model takes one.
    pub fn context_dim(&self) -> Option<usize> {
        self.inputs.context
    }

    /// Channels of the input.
    pub fn in_channels(&self) -> usize {
        self.inputs.channels
    }

    /// Whether the model takes SDXL's `text_embeds` and `time_ids`.
    pub fn has_added_embedding(&self) -> bool {
        self.inputs.added.is_some()
    }

    /// The number of parameters; none is made for it.
    pub fn parameter_count(&self) -> usize {
        let mut count = Count(0);
        self.visit(&mut count);
        count.0
    }

    /// The latent with the channels that are joined to it, in the weights' type.
    pub(crate) fn join(&self, x: Tensor<4>, conditioning: &Conditioning) -> Tensor<4> {
        let outer = x.dtype();
        let x = match &conditioning.concat {
            Some(concat) => Tensor::cat(vec![x, concat.clone().cast(outer)], 1),
            None => x,
        };
        let x = if self.inputs.center { x * 2.0 - 1.0 } else { x };
        x.cast(self.dtype())
    }

    /// The context in the weights' type.
    pub(crate) fn context_of(&self, conditioning: &Conditioning) -> Option<Tensor<3>> {
        conditioning.context.as_ref().map(|context| context.clone().cast(self.dtype()))
    }

    fn sinusoids(&self, t: Tensor<1>, dim: usize) -> Tensor<2> {
        sinusoidal_embedding(t, dim, self.inputs.cos_first, self.inputs.freq_shift)
    }

    /// The embedded timestep: `[b, width]`.
    pub(crate) fn embed_timesteps(
        &self,
        timesteps: Tensor<1>,
        b: usize,
        conditioning: &Conditioning,
    ) -> Tensor<2> {
        let dtype = self.time_embedding.linear_1.weight.val().dtype();
        let t = self.sinusoids(timesteps, self.inputs.model_channels).cast(dtype);
        let cond = conditioning.timestep_cond.as_ref().map(|cond| cond.clone().cast(dtype));
        let [n, width] = t.dims();
        let t = if n == b { t } else { t.expand([b, width]) };
        self.time_embedding.forward(t, cond)
    }

    /// What is added to it, in this order: label and added embeddings, `[b, width]` each.
    pub(crate) fn embed_conditions(&self, b: usize, conditioning: &Conditioning) -> Vec<Tensor<2>> {
        let inputs = &self.inputs;
        let weight = &self.time_embedding.linear_1.weight.val();
        let (dtype, device) = (weight.dtype(), weight.device());
        let mut parts = Vec::new();
        if let (Some(table), Some(labels)) = (&self.class_embedding, &conditioning.class_labels) {
            let ids = TensorData::new(labels.clone(), [1, b]);
            parts.push(table.forward(Tensor::<2, Int>::from_data(ids, &device)).squeeze_dim::<2>(0));
        }
        if let (Some(label), Some(y)) = (inputs.label, &conditioning.y) {
            let y = match label {
                LabelEmbedding::Timestep => self.sinusoids(y.clone().reshape([b]), inputs.model_channels),
                _ => y.clone(),
            };
            let y = y.cast(dtype);
            parts.push(match (&self.class_projection, &self.class_linear) {
                (Some(mlp), _) => mlp.forward(y, None),
                (None, Some(linear)) => linear.forward(y),
                (None, None) => y,
            });
        }
        if let (Some(mlp), Some((_, time_dim))) = (&self.add_embedding, inputs.added) {
            let added = match (&conditioning.text_embeds, &conditioning.time_ids, &conditioning.y) {
                (Some(text), Some(ids), _) => {
                    let [_, n] = ids.dims();
                    let ids =
                        self.sinusoids(ids.clone().reshape([b * n]), time_dim).reshape([b, n * time_dim]);
                    Some(Tensor::cat(vec![text.clone().cast(dtype), ids.cast(dtype)], 1))
                }
                (_, _, Some(y)) => Some(y.clone().cast(dtype)),
                _ => None,
            };
            parts.extend(added.map(|added| mlp.forward(added, None)));
        }
        parts
    }

    pub(crate) fn check(
        &self,
        x: &Tensor<4>,
        timesteps: usize,
        given: &Conditioning,
    ) -> Result<(), UNetError> {
        let [b, _, h, w] = x.dims();
        if b == 0 {
            return Err(UNetError::EmptyBatch);
        }
        self.check_channels(x, given)?;
        for (axis, side) in [("the height", h), ("the width", w)] {
            if self.coarsest_side(side) == 0 {
                return Err(UNetError::TooSmall { axis, side, levels: self.down_blocks.len() });
            }
        }
        if timesteps != 1 {
            size("timesteps", BATCH, b, timesteps)?;
        }
        self.check_conditions(b, given)
    }

    /// The conditions of `b` items, but what is joined to the latent.
    pub(crate) fn check_conditions(&self, b: usize, given: &Conditioning) -> Result<(), UNetError> {
        let inputs = &self.inputs;
        expect("context", given.context.is_some(), inputs.context.is_some(), "cross-attention")?;
        if let (Some(context), Some(d)) = (&given.context, inputs.context) {
            size("context", BATCH, b, context.dims()[0])?;
            size("context", "the width", d, context.dims()[2])?;
            if context.dims()[1] == 0 {
                let (input, axis) = ("context", "the length");
                return Err(UNetError::Shape { input, axis, expected: 1, got: 0 });
            }
        }
        // As in diffusers it may be left out: then nothing is added to the timestep's sinusoids.
        if let Some(cond) = &given.timestep_cond {
            let Some(d) = inputs.timestep_cond else {
                let because = "guidance embedding (`time_cond_proj_dim`)";
                return Err(UNetError::Unexpected { input: "timestep_cond", because });
            };
            matrix("timestep_cond", cond, b, d)?;
        }
        self.check_labels(b, given)?;
        self.check_added(b, given)
    }

    /// What is left of a side at the coarsest level.
    fn coarsest_side(&self, side: usize) -> usize {
        let downsamples = self.down_blocks.iter().filter_map(|block| block.downsample.as_ref());
        downsamples.fold(side, |side, downsample| downsample.size(side))
    }

    /// The channels of `x` and of what is joined to it.
    fn check_channels(&self, x: &Tensor<4>, given: &Conditioning) -> Result<(), UNetError> {
        let [b, channels, h, w] = x.dims();
        let taken = self.inputs.channels;
        let Some(concat) = &given.concat else {
            // A latent as the model predicts it lacks the others; any other number is just wrong.
            let lacking = channels < taken && channels == self.config.out_channels;
            expect("concat", false, lacking, "channels beside those of `x`")?;
            return size("x", CHANNELS, taken, channels);
        };
        if channels > taken {
            return size("x", CHANNELS, taken, channels);
        }
        expect("concat", true, channels < taken, "channels beside those of `x`")?;
        let dims = concat.dims();
        size("concat", BATCH, b, dims[0])?;
        size("concat", CHANNELS, taken - channels, dims[1])?;
        size("concat", "the height", h, dims[2])?;
        size("concat", "the width", w, dims[3])
    }

    fn check_labels(&self, b: usize, given: &Conditioning) -> Result<(), UNetError> {
        let classes = match self.inputs.label {
            Some(LabelEmbedding::Classes(classes)) => Some(classes),
            _ => None,
        };
        let part = "a table of classes (`num_classes`)";
        expect("class_labels", given.class_labels.is_some(), classes.is_some(), part)?;
        if let (Some(labels), Some(classes)) = (&given.class_labels, classes) {
            size("class_labels", BATCH, b, labels.len())?;
            let outside = |label: &i64| usize::try_from(*label).map_or(true, |label| label >= classes);
            if let Some((item, label)) = labels.iter().enumerate().find(|(_, label)| outside(label)) {
                return Err(UNetError::ClassOutOfRange { label: *label, item, classes });
            }
        }
        let width = match self.inputs.label {
            None | Some(LabelEmbedding::Classes(_)) => None,
            Some(LabelEmbedding::Projection(d) | LabelEmbedding::Linear(d)) => Some(d),
            Some(LabelEmbedding::Timestep) => Some(1),
            Some(LabelEmbedding::Identity) => Some(self.inputs.time_width),
        };
        if self.inputs.added.is_none() || width.is_some() {
            expect("y", given.y.is_some(), width.is_some(), "a label vector (`num_classes`)")?;
        }
        match (&given.y, width) {
            (Some(y), Some(d)) => matrix("y", y, b, d),
            _ => Ok(()),
        }
    }

    fn check_added(&self, b: usize, given: &Conditioning) -> Result<(), UNetError> {
        let part = "added embeddings of text and sizes (`addition_embed_type`)";
        let takes = self.inputs.added.is_some();
        // A joined vector `y` may stand for both, unless it is a label's.
        if let (Some((width, _)), None, Some(y)) = (self.inputs.added, self.inputs.label, &given.y) {
            expect("text_embeds", given.text_embeds.is_some(), false, "room for it beside `y`")?;
            expect("time_ids", given.time_ids.is_some(), false, "room for it beside `y`")?;
            return matrix("y", y, b, width);
        }
        expect("text_embeds", given.text_embeds.is_some(), takes, part)?;
        expect("time_ids", given.time_ids.is_some(), takes, part)?;
        if let (Some((width, dim)), Some(text), Some(ids)) =
            (self.inputs.added, &given.text_embeds, &given.time_ids)
        {
            size("text_embeds", BATCH, b, text.dims()[0])?;
            size("time_ids", BATCH, b, ids.dims()[0])?;
            let joined = text.dims()[1] + ids.dims()[1] * dim;
            size("text_embeds", "the width, with the sinusoids of `time_ids`,", width, joined)?;
        }
        Ok(())
    }
}

const BATCH: &str = "the batch";
const CHANNELS: &str = "the number of channels";

fn size(input: &'static str, axis: &'static str, expected: usize, got: usize) -> Result<(), UNetError> {
    if expected == got { Ok(()) } else { Err(UNetError::Shape { input, axis, expected, got }) }
}

fn matrix(input: &'static str, x: &Tensor<2>, b: usize, width: usize) -> Result<(), UNetError> {
    size(input, BATCH, b, x.dims()[0])?;
    size(input, "the width", width, x.dims()[1])
}

fn expect(input: &'static str, given: bool, taken: bool, part: &'static str) -> Result<(), UNetError> {
    match (given, taken) {
        (false, true) => Err(UNetError::Missing { input, because: part }),
        (true, false) => Err(UNetError::Unexpected { input, because: part }),
        _ => Ok(()),
    }
}

struct Count(usize);

impl burn::module::ModuleVisitor for Count {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0 += param.lazy_shape().num_elements();
    }
}
