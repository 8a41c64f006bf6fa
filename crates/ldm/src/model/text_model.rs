//! A text encoder alone out of a single file: the file need hold nothing else.

use std::path::Path;

use ldm_conditioning::CondStageConfig;
use ldm_conditioning::bert::{BertEmbedder, BertEmbedderConfig, BertKeys};
use ldm_conditioning::clip::ClipTextEncoder;
use ldm_nn::weights::WeightFile;

use super::LoadOptions;
use super::single_file::{described_by, prefix, read, text_slots};
use super::text_tower::{self, Slot};
use super::yaml::{CondStageTarget, Described};
use crate::Error;

/// A text encoder without its tokenizer: ids in, hidden states out.
#[derive(Debug, Clone)]
pub enum TextModel {
    /// CLIP's or OpenCLIP's.
    Clip(Box<ClipTextEncoder>),
    /// The paper's transformer.
    Bert(Box<BertEmbedder>),
}

/// What the file holds.
enum Found {
    Clip(Vec<Slot>),
    Bert(BertEmbedderConfig),
}

/// Where the paper's transformer lies: in a whole model, and alone in a file.
const BERT: [&str; 2] = ["cond_stage_model.", ""];
const BERT_TOKENS: &str = "transformer.token_emb.weight";

/// Loads a text encoder of a single file that need hold nothing else: the first, or SDXL's second.
///
/// Its tensors may have the names that they have in a whole model, or those without `cond_stage_model.transformer.` and
/// the like. Without a YAML the encoder is recognised by its own keys; an OpenCLIP tower that is alone is then
/// taken whole, whatever Stable Diffusion 2 reads of it.
///
/// # Errors
/// Where neither the YAML in `options` nor the keys tell its config; [`Error::MissingPart`] where there is no second one;
/// [`Error::Weights`].
pub fn load_text_encoder_from_checkpoint(
    path: &Path,
    second: bool,
    options: &LoadOptions,
) -> Result<TextModel, Error> {
    let file = WeightFile::open(path)?;
    let found = match &options.config {
        Some(yaml) => described(yaml)?,
        None => match bert_by_shapes(&file) {
            Some(config) => Found::Bert(config),
            None => Found::Clip(text_tower::recognised(&file)?),
        },
    };
    let missing = || Error::MissingPart {
        directory: path.into(),
        part: "text_encoder_2".into(),
        looked_for: "only SDXL has a second text encoder".into(),
    };
    match found {
        Found::Clip(slots) => {
            let slot = slots.get(usize::from(second)).ok_or_else(missing)?;
            Ok(TextModel::Clip(Box::new(slot.tower(&file)?.encoder(&file, options)?)))
        }
        Found::Bert(_) if second => Err(missing()),
        Found::Bert(config) => {
            let named = described_by(path, options);
            let encoder = config.init(&options.device).map_err(|e| Error::config(named, e))?;
            let prefix = prefix(&file, &BERT, BERT_TOKENS);
            let bert = read(&file, prefix, encoder, &BertKeys::CompVis, options.dtype, &[])?;
            Ok(TextModel::Bert(Box::new(bert)))
        }
    }
}

/// What a YAML says.
fn described(yaml: &Path) -> Result<Found, Error> {
    let Described::Diffusion(params) = Described::read(yaml)? else {
        return Err(Error::config(yaml, "it describes a first stage, no text encoder"));
    };
    if let Some(CondStageTarget::Encoder(target)) = &params.cond_stage_config
        && matches!(target.class(), "BERTEmbedder" | "TransformerEmbedder")
    {
        let config = CondStageConfig::from_target(&target.target, &target.params);
        if let CondStageConfig::BertEmbedder(config) = config.map_err(|e| Error::config(yaml, e))? {
            return Ok(Found::Bert(config));
        }
    }
    Ok(Found::Clip(text_slots(yaml, &params)?.1))
}

/// The paper's transformer, if the file has one; its 8 heads, which no shape shows, are the reference's.
fn bert_by_shapes(file: &WeightFile) -> Option<BertEmbedderConfig> {
    let prefix = prefix(file, &BERT, BERT_TOKENS);
    let shape = |name: &str| file.info(&format!("{prefix}transformer.{name}")).map(|info| &info.shape[..]);
    let &[vocab_size, width] = shape("token_emb.weight")? else { return None };
    let &[max_seq_len, _] = shape("pos_emb.emb.weight")? else { return None };
    // Attention and feed-forward are layers of their own there.
    let queries = |layer: usize| shape(&format!("attn_layers.layers.{}.1.to_q.weight", 2 * layer));
    let layers = (0..).take_while(|layer| queries(*layer).is_some()).count();
    let config = BertEmbedderConfig::new(width, layers).over_tokens(vocab_size, max_seq_len);
    Some(BertEmbedderConfig { dim_head: queries(0)?.first()? / config.heads, ..config })
}
