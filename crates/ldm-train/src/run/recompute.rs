//! Gradients of a U-Net with the activations of one block at a time in memory.

use burn::tensor::Tensor;
use ldm_unet::{Conditioning, Flow, UNet, UNetError};

use crate::optim::{Named, gradients};

/// A U-Net's forward pass of which only what goes from block to block was kept.
///
/// The reference's `use_checkpoint`: burn's backward consumes the graph and can't run a block anew inside it, so the
/// blocks are walked from the last to the first, each with a graph of its own.
pub(super) struct Recomputed<'a> {
    unet: &'a UNet,
    conditioning: &'a Conditioning,
    inputs: (Tensor<4>, Tensor<1>),
    /// What each block was given.
    flows: Vec<Flow>,
    /// The prediction, a leaf to take the loss's gradient of.
    pub prediction: Tensor<4>,
}

impl<'a> Recomputed<'a> {
    /// Runs `unet`, whose parameters are leaves, outside autodiff.
    ///
    /// # Errors
    ///
    /// As [`UNet::forward`].
    pub fn forward(
        unet: &'a UNet,
        x: Tensor<4>,
        timesteps: Tensor<1>,
        conditioning: &'a Conditioning,
    ) -> Result<Self, UNetError> {
        use burn::module::Module;
        let plain = unet.valid();
        let outer = x.dtype();
        let entry = plain.enter(x.clone(), timesteps.clone(), &outside(conditioning))?;
        let mut flow = Flow { x: entry.x, skips: Vec::new() };
        let mut flows = Vec::with_capacity(plain.blocks());
        for block in 0..plain.blocks() {
            flows.push(flow.clone());
            flow = plain.block(block, flow, &entry.time, entry.context.as_ref());
        }
        let prediction = flow.x.cast(outer).autodiff().require_grad();
        Ok(Self { unet, conditioning, inputs: (x, timesteps), flows, prediction })
    }

    /// The gradients of everything that `parameters` finds, from the loss's gradient at the prediction.
    ///
    /// # Errors
    ///
    /// As [`UNet::forward`].
    pub fn backward<M: burn::module::Module>(
        self,
        by_prediction: Tensor<4>,
        parameters: &M,
    ) -> Result<Named, UNetError> {
        let entry = self.unet.enter(self.inputs.0, self.inputs.1, self.conditioning)?;
        let leaf = |t: Tensor<4>| t.inner().autodiff().require_grad();
        let mut named = Named::default();
        let mut by_x = by_prediction.cast(entry.x.dtype());
        let mut by_skips: Vec<Option<Tensor<4>>> = Vec::new();
        let mut by_time: Option<Tensor<2>> = None;
        let mut by_context: Option<Tensor<3>> = None;
        for (block, flow) in self.flows.into_iter().enumerate().rev() {
            let x = leaf(flow.x);
            let skips: Vec<_> = flow.skips.into_iter().map(leaf).collect();
            let time = entry.time.clone().inner().autodiff().require_grad();
            let context = entry.context.clone().map(|c| c.inner().autodiff().require_grad());

            let given = Flow { x: x.clone(), skips: skips.clone() };
            let made = self.unet.block(block, given, &time, context.as_ref());
            let mut surrogate = (made.x * by_x).sum();
            for (skip, by_skip) in made.skips.into_iter().zip(by_skips) {
                if let Some(by_skip) = by_skip {
                    surrogate = surrogate + (skip * by_skip).sum();
                }
            }
            let mut found = surrogate.backward();
            named.add(gradients(parameters, &mut found));
            by_x = x.grad(&found).unwrap_or_else(|| x.clone().inner().zeros_like());
            by_skips = skips.iter().map(|skip| skip.grad(&found)).collect();
            by_time = sum(by_time, time.grad(&found));
            by_context = sum(by_context, context.and_then(|context| context.grad(&found)));
        }
        // What the blocks were given has parameters behind it too.
        let mut rest: Option<Tensor<1>> = None;
        let mut add = |part: Tensor<1>| {
            if part.is_tracked() {
                rest = sum(rest.take(), Some(part));
            }
        };
        add((entry.x * by_x).sum());
        if let Some(by_time) = by_time {
            add((entry.time * by_time).sum());
        }
        if let (Some(context), Some(by_context)) = (entry.context, by_context) {
            add((context * by_context).sum());
        }
        if let Some(rest) = rest {
            named.add(gradients(parameters, &mut rest.backward()));
        }
        Ok(named)
    }
}

fn sum<const D: usize>(a: Option<Tensor<D>>, b: Option<Tensor<D>>) -> Option<Tensor<D>> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a + b),
        (a, b) => a.or(b),
    }
}

/// The same conditions as constants.
fn outside(conditioning: &Conditioning) -> Conditioning {
    let mut plain = conditioning.clone();
    plain.context = plain.context.map(Tensor::inner);
    plain.concat = plain.concat.map(Tensor::inner);
    plain.y = plain.y.map(Tensor::inner);
    plain.text_embeds = plain.text_embeds.map(Tensor::inner);
    plain.time_ids = plain.time_ids.map(Tensor::inner);
    plain.timestep_cond = plain.timestep_cond.map(Tensor::inner);
    plain
}
