use ldm_nn::weights::{Entry, KeyMap};

/// How a weight file names a [`BertEmbedder`](super::BertEmbedder)'s parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BertKeys {
    /// `transformer.attn_layers.layers.0.0...`, below `cond_stage_model.` of a CompVis checkpoint.
    CompVis,
    /// `model.layers.0.self_attn...`: `LDMBertModel` in the folder `bert/` of a diffusers pipeline.
    Diffusers,
}

/// Our name, then CompVis', then diffusers'.
const TOP: [(&str, &str, &str); 3] = [
    ("token_emb.", "transformer.token_emb.", "model.embed_tokens."),
    ("pos_emb.", "transformer.pos_emb.emb.", "model.embed_positions."),
    ("norm.", "transformer.norm.", "model.layer_norm."),
];

/// Inside a layer. CompVis counts attention and feed-forward as layers of their own: the number is which of
/// the two.
const LAYER: [(&str, usize, &str, &str); 8] = [
    ("attn_norm.", 0, "0.", "self_attn_layer_norm."),
    ("attn.to_q.", 0, "1.to_q.", "self_attn.q_proj."),
    ("attn.to_k.", 0, "1.to_k.", "self_attn.k_proj."),
    ("attn.to_v.", 0, "1.to_v.", "self_attn.v_proj."),
    ("attn.to_out.", 0, "1.to_out.", "self_attn.out_proj."),
    ("ff_norm.", 1, "0.", "final_layer_norm."),
    ("ff.fc1.", 1, "1.net.0.0.", "fc1."),
    ("ff.fc2.", 1, "1.net.2.", "fc2."),
];

impl KeyMap for BertKeys {
    fn entry(&self, path: &str) -> Option<Entry> {
        if let Some(rest) = path.strip_prefix("layers.") {
            let (index, rest) = rest.split_once('.')?;
            let index: usize = index.parse().ok()?;
            return LAYER.iter().find_map(|(ours, half, compvis, diffusers)| {
                let leaf = rest.strip_prefix(ours)?;
                Some(Entry::same(match self {
                    Self::CompVis => {
                        format!("transformer.attn_layers.layers.{}.{compvis}{leaf}", 2 * index + half)
                    }
                    Self::Diffusers => format!("model.layers.{index}.{diffusers}{leaf}"),
                }))
            });
        }
        TOP.iter().find_map(|(ours, compvis, diffusers)| {
            let leaf = path.strip_prefix(ours)?;
            let head = if *self == Self::CompVis { compvis } else { diffusers };
            Some(Entry::same(format!("{head}{leaf}")))
        })
    }
}
