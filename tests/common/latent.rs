//! The paper's models at a width that runs in no time.

use ldm::{CondStageTarget, LatentDiffusionConfig};
use serde_json::{Value, json};

const WIDTH: usize = 32;
const CODES: usize = 64;

/// The same depth at a width that runs in no time; tests/reference/tasks.py does the same to the reference's files.
pub fn narrow(mut config: LatentDiffusionConfig) -> LatentDiffusionConfig {
    let set = |params: &mut Value, key: &str| {
        if params.get(key).is_some() {
            params[key] = json!(WIDTH);
        }
    };
    set(&mut config.unet_config.params, "model_channels");
    set(&mut config.unet_config.params, "context_dim");
    let first = &mut config.first_stage_config.as_mut().unwrap().params;
    set(&mut first["ddconfig"], "ch");
    if first.get("n_embed").is_some() {
        first["n_embed"] = json!(CODES);
    }
    if let Some(CondStageTarget::Encoder(cond)) = &mut config.cond_stage_config {
        set(&mut cond.params, "embed_dim");
        set(&mut cond.params, "n_embed");
    }
    config
}
