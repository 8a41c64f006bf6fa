use burn::module::Module;
use burn::tensor::{Int, Tensor};

use super::{ClipTextEncoder, ClipTokenizer, HiddenState};
use crate::{Conditioner, Conditioning, ConditioningError};

/// A tokenizer and its text encoder: tau_theta for prompts.
///
/// Gives the chosen hidden state as context and, where the encoder has a projection, `text_embeds` as that
/// part of the conditioning.
#[derive(Module, Debug)]
pub struct ClipText {
    /// From prompt to ids.
    #[module(skip)]
    pub tokenizer: ClipTokenizer,
    /// From ids to hidden states.
    pub encoder: ClipTextEncoder,
    /// The hidden state that becomes the context.
    #[module(skip)]
    pub state: HiddenState,
}

impl ClipText {
    /// Joins a tokenizer, an encoder and the choice of a hidden state.
    pub fn new(tokenizer: ClipTokenizer, encoder: ClipTextEncoder, state: HiddenState) -> Self {
        Self { tokenizer, encoder, state }
    }

    /// The prompts' ids, `[b, max_length]`, on the encoder's device.
    ///
    /// # Errors
    /// There are no prompts, or the tokenizer fails.
    pub fn input_ids<S: AsRef<str>>(&self, prompts: &[S]) -> Result<Tensor<2, Int>, ConditioningError> {
        super::embedder::input_ids(&self.tokenizer, prompts, &self.encoder)
    }
}

impl<S: AsRef<str>> Conditioner<[S]> for ClipText {
    /// Context `[b, n, hidden_size]`, and `[b, projection_dim]` where there is a projection.
    fn encode(&self, prompts: &[S]) -> Result<Conditioning, ConditioningError> {
        let ids = self.input_ids(prompts)?;
        if self.encoder.text_projection.is_none() {
            return Ok(Conditioning::context(self.encoder.hidden_state(ids, self.state)?));
        }
        let output = self.encoder.forward(ids)?;
        let context = self.encoder.select(&output, self.state)?;
        Ok(Conditioning { text_embeds: output.text_embeds, ..Conditioning::context(context) })
    }
}
