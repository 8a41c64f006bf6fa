//! What a sampling run computes once: all that depends on its conditions alone, not on the latent or the timestep.

use std::collections::HashMap;

use burn::module::ParamId;
use burn::tensor::{DType, Tensor, TensorData};
use ldm_nn::silu;

use crate::{
    BasicTransformerBlock, Conditioning, ConditioningMismatch, CrossAttention, Entry, SpatialAttention,
    SpatialTransformer, UNet, UNetError,
};

/// Keys and values of one cross-attention, `[b, heads, m, d]` each.
#[derive(Debug, Clone)]
pub(crate) struct KeysValues {
    pub k: Tensor<4>,
    pub v: Tensor<4>,
}

/// A context `[b, m, d]` beside the keys and values that each layer of one U-Net makes of it.
#[derive(Debug, Clone)]
pub struct PreparedContext {
    tokens: Tensor<3>,
    /// By the id of the layer's `W_K`.
    layers: HashMap<ParamId, KeysValues>,
}

/// What cross-attention reads.
#[derive(Debug, Clone, Copy)]
pub enum Context<'a> {
    /// `[b, m, d]`: every layer projects it.
    Tokens(&'a Tensor<3>),
    /// Projected before.
    Prepared(&'a PreparedContext),
}

/// The conditions of a run as one U-Net reads them at every step.
///
/// [`UNet::prepare`] makes it of the weights as they are then. It holds K and V of every cross-attention, which is
/// `2 b m` numbers for each channel of each of those layers.
#[derive(Debug, Clone)]
pub struct Prepared {
    conditioning: Conditioning,
    context: Option<PreparedContext>,
    /// What is added to the embedded timestep, `[b, width]` each, in this order.
    embeddings: Vec<Tensor<2>>,
}

/// The timesteps of a run, embedded all at once for one U-Net and the conditions of one [`Prepared`].
#[derive(Debug, Clone)]
pub struct PreparedTimesteps {
    values: Vec<f32>,
    /// As the blocks read it, `[n, b, width]`.
    embedded: Tensor<3>,
}

impl PreparedTimesteps {
    /// What the blocks read at this timestep, `[b, width]`; `None` where it or that number of items isn't among what was embedded.
    pub fn at(&self, timestep: f32, b: usize) -> Option<Tensor<2>> {
        let place = self.values.iter().position(|value| *value == timestep)?;
        (self.embedded.dims()[1] == b).then(|| self.embedded.clone().narrow(0, place, 1).squeeze_dim(0))
    }
}

impl<'a> From<&'a Tensor<3>> for Context<'a> {
    fn from(tokens: &'a Tensor<3>) -> Self {
        Self::Tokens(tokens)
    }
}

impl Context<'_> {
    /// Those of one layer.
    pub(crate) fn keys_values(self, layer: &CrossAttention) -> KeysValues {
        match self {
            Self::Tokens(tokens) => layer.project(tokens.clone()),
            Self::Prepared(context) => match context.layers.get(&layer.to_k.weight.id) {
                Some(known) => known.clone(),
                // It was made for another model.
                None => layer.project(context.tokens.clone()),
            },
        }
    }
}

impl Prepared {
    /// The conditions that it was made of.
    pub fn conditioning(&self) -> &Conditioning {
        &self.conditioning
    }

    /// The same with other channels `[b, c, h, w]` beside the latent's: a patch sees a part of them.
    pub fn with_concat(mut self, concat: Tensor<4>) -> Self {
        self.conditioning.concat = Some(concat);
        self
    }
}

impl Prepared {
    /// The same, with K and V in memory of their own for [`overwrite`](Self::overwrite).
    pub fn copied(&self) -> Self {
        let mut copy = self.clone();
        for KeysValues { k, v } in copy.keys_values() {
            for tensor in [k, v] {
                let memory = Tensor::zeros(tensor.dims(), (&tensor.device(), tensor.dtype()));
                let value = std::mem::replace(tensor, memory);
                write_in_place(tensor, &value);
            }
        }
        copy
    }

    /// Writes what [`UNet::run_blocks`] reads of other conditions into this one's memory, where a recorded pass reads it.
    /// False, and then some of it may be written, where they are of other shapes, types or layers, or where others hold
    /// the memory.
    #[must_use]
    pub fn overwrite(&mut self, from: &Self) -> bool {
        let (Some(to), from) = (&mut self.context, &from.context) else { return from.context.is_none() };
        let Some(from) = from.as_ref().filter(|from| from.layers.len() == to.layers.len()) else {
            return false;
        };
        to.layers.iter_mut().all(|(layer, to)| {
            let Some(from) = from.layers.get(layer) else { return false };
            [(&mut to.k, &from.k), (&mut to.v, &from.v)].into_iter().all(|(to, from)| {
                let fits = to.dims() == from.dims() && to.dtype() == from.dtype() && to.can_mut();
                if fits {
                    write_in_place(to, from);
                }
                fits
            })
        })
    }

    fn keys_values(&mut self) -> impl Iterator<Item = &mut KeysValues> {
        self.context.iter_mut().flat_map(|context| context.layers.values_mut())
    }
}

/// Writes `value` into the memory of `to`, which has its shape and type, unless others hold that.
pub fn write_in_place<const D: usize>(to: &mut Tensor<D>, value: &Tensor<D>) {
    let whole = value.dims().map(|side| 0..side);
    // The value stands in, so that the memory has one holder.
    let memory = std::mem::replace(to, value.clone());
    *to = memory.slice_assign(whole, value.clone());
}

impl UNet {
    /// Computes what is the same at every step of a run: K and V of the context, and the embeddings of labels, vectors
    /// and sizes.
    ///
    /// # Errors
    ///
    /// [`UNetError`] names the condition that is missing, superfluous or of another size than the model takes.
    pub fn prepare(&self, conditioning: &Conditioning) -> Result<Prepared, UNetError> {
        let b = items(conditioning);
        if b == 0 {
            return Err(UNetError::EmptyBatch);
        }
        self.check_conditions(b, conditioning)?;
        Ok(Prepared {
            conditioning: conditioning.clone(),
            context: self.context_of(conditioning).map(|tokens| self.project(tokens)),
            embeddings: self.embed_conditions(b, conditioning),
        })
    }

    /// As [`forward`](Self::forward) under the conditions of `prepared`, which gives the same numbers.
    ///
    /// # Errors
    ///
    /// As [`forward`](Self::forward).
    pub fn forward_prepared(
        &self,
        x: Tensor<4>,
        timesteps: Tensor<1>,
        prepared: &Prepared,
    ) -> Result<Tensor<4>, UNetError> {
        let outer = x.dtype();
        let Entry { x, time, .. } = self.enter_prepared(x, timesteps, prepared)?;
        Ok(self.run_blocks(x, &time, prepared).cast(outer))
    }

    /// What comes before the first block, as [`enter`](Self::enter); the context stays in `prepared`.
    ///
    /// # Errors
    ///
    /// As [`forward`](Self::forward).
    pub fn enter_prepared(
        &self,
        x: Tensor<4>,
        timesteps: Tensor<1>,
        prepared: &Prepared,
    ) -> Result<Entry, UNetError> {
        let given = &prepared.conditioning;
        self.check(&x, timesteps.dims()[0], given)?;
        let b = x.dims()[0];
        let x = self.join(x, given);
        let time = self.embed_timesteps(timesteps, b, given);
        let time = prepared.embeddings.iter().fold(time, |time, part| time + part.clone());
        Ok(Entry { x, time: silu(time), context: None })
    }

    /// The same at a timestep that was embedded before: `time` `[b, width]` is what [`PreparedTimesteps::at`] gives.
    ///
    /// # Errors
    ///
    /// As [`forward`](Self::forward).
    pub fn enter_embedded(
        &self,
        x: Tensor<4>,
        time: Tensor<2>,
        prepared: &Prepared,
    ) -> Result<Entry, UNetError> {
        let given = &prepared.conditioning;
        self.check(&x, time.dims()[0], given)?;
        Ok(Entry { x: self.join(x, given), time, context: None })
    }

    /// Embeds the timesteps of a run for `b` items each at once, which step by step would be some thirty small operations a step.
    ///
    /// # Errors
    ///
    /// [`UNetError::Shape`] where the conditions are those of another number of items; [`UNetError::EmptyBatch`] without items or
    /// timesteps.
    pub fn prepare_timesteps(
        &self,
        timesteps: &[f32],
        b: usize,
        prepared: &Prepared,
    ) -> Result<PreparedTimesteps, UNetError> {
        if b == 0 || timesteps.is_empty() {
            return Err(UNetError::EmptyBatch);
        }
        self.check_conditions(b, &prepared.conditioning)?;
        // The first convolution's weight comes before these, as in `enter`: lazy weights are drawn at their first use.
        let _ = self.dtype();
        // Samplers of second order come to a timestep twice.
        let mut values = timesteps.to_vec();
        values.dedup();
        let n = values.len();
        let each = values.iter().flat_map(|value| std::iter::repeat_n(*value, b));
        let each = TensorData::new(each.collect::<Vec<f32>>(), [n * b]);
        let each = Tensor::from_data(each, (&self.device(), DType::F32));
        let timestep_cond =
            prepared.conditioning.timestep_cond.as_ref().map(|cond| cond.clone().repeat_dim(0, n));
        let conditions = Conditioning { timestep_cond, ..Conditioning::none() };
        let time = self.embed_timesteps(each, n * b, &conditions);
        let parts = prepared.embeddings.iter().map(|part| part.clone().repeat_dim(0, n));
        let time = silu(parts.fold(time, |time, part| time + part));
        let width = time.dims()[1];
        Ok(PreparedTimesteps { values, embedded: time.reshape([n, b, width]) })
    }

    /// All blocks, on the latent and the time of [`enter_prepared`](Self::enter_prepared): `[b, out_channels, h, w]` in
    /// the weights' type. It reads nothing from the host, so that its launches can be recorded.
    pub fn run_blocks(&self, x: Tensor<4>, time: &Tensor<2>, prepared: &Prepared) -> Tensor<4> {
        self.all_blocks_of_projected(x, time, prepared.context.as_ref().map(Context::Prepared))
    }

    fn project(&self, tokens: Tensor<3>) -> PreparedContext {
        let blocks = self.transformers().flat_map(|transformer| &transformer.transformer_blocks);
        let layers = blocks.flat_map(BasicTransformerBlock::reading_context);
        let layers = layers.map(|layer| (layer.to_k.weight.id, layer.project(tokens.clone()))).collect();
        PreparedContext { tokens, layers }
    }

    fn transformers(&self) -> impl Iterator<Item = &SpatialTransformer> {
        let down = self.down_blocks.iter().flat_map(|block| &block.attentions);
        let middle = self.mid_block.iter().filter_map(|block| block.attention.as_ref());
        let up = self.up_blocks.iter().flat_map(|block| &block.attentions);
        down.chain(middle).chain(up).filter_map(|attention| match attention {
            SpatialAttention::Transformer(transformer) => Some(transformer),
            SpatialAttention::Block(_) => None,
        })
    }
}

/// The items of a conditioning. Where its parts disagree they are the first part's, and the checks name another.
fn items(conditioning: &Conditioning) -> usize {
    match conditioning.batch() {
        Ok(items) => items.unwrap_or(1),
        Err(ConditioningMismatch::Batch { expected, .. }) => expected,
        Err(_) => 1,
    }
}
