//! How the adversarial loss is weighed against the reconstruction's.

use burn::module::Param;
use burn::tensor::{DType, Tensor};
use ldm_nn::Conv2d;
use ldm_vae::Decoder;

/// A reconstruction, with what came before the decoder's last layer.
#[derive(Debug)]
pub struct Reconstruction<'a> {
    decoder: &'a Decoder,
    hidden: Tensor<4>,
    picture: Tensor<4>,
}

impl<'a> Reconstruction<'a> {
    /// Decodes a latent `z` `[b, embed_dim, h/f, w/f]`: a sample of the posterior, or a quantised latent.
    ///
    /// `post_quant_conv` and `decoder` are the first stage's, of either kind, which see to no sizes here: a latent
    /// that its own encoder gave fits.
    pub fn new(decoder: &'a Decoder, post_quant_conv: Option<&Conv2d>, z: Tensor<4>) -> Self {
        let z = match post_quant_conv {
            Some(conv) => conv.forward(z),
            None => z,
        };
        let hidden = decoder.hidden(z);
        let picture = decoder.output(hidden.clone());
        Self { decoder, hidden, picture }
    }

    /// `[b, out_ch, h, w]`.
    pub fn picture(&self) -> Tensor<4> {
        self.picture.clone()
    }

    /// The norm, `[1]`, of the gradient that a loss has at the last layer's weight, from its gradient `by_picture` at
    /// the picture.
    fn norm_at_last_layer(&self, by_picture: Tensor<4>) -> Tensor<1> {
        // The last layer once more, in a graph of its own: burn's backward consumes the graph it walks.
        let mut decoder = self.decoder.clone();
        let last = &mut decoder.conv_out;
        let weight = last.weight.val().detach().require_grad();
        last.weight = Param::initialized(last.weight.id, weight.clone());
        last.bias = last.bias.take().map(|bias| Param::initialized(bias.id, bias.val().detach()));
        let picture = decoder.output(self.hidden.clone().detach());
        let by_picture = by_picture.cast(picture.dtype());
        let gradients = (picture * by_picture).sum().backward();
        match weight.grad(&gradients) {
            Some(gradient) => gradient.cast(DType::F32).square().sum().sqrt(),
            None => Tensor::zeros([1], &weight.device().inner()),
        }
    }
}

/// `disc_weight |d nll / d W| / (|d g / d W| + 1e-4)`, the ratio at most 1e4, where W is the decoder's last weight:
/// `[1]` (Esser et al. 2021, eq. 7; `calculate_adaptive_weight`).
pub(super) fn weight(
    reconstruction: &Reconstruction<'_>,
    nll: Tensor<4>,
    g: Tensor<4>,
    disc_weight: f64,
) -> Tensor<1> {
    let [nll, g] = [nll, g].map(|gradient| reconstruction.norm_at_last_layer(gradient));
    (nll / (g + 1e-4)).clamp(0.0, 1e4) * disc_weight
}
