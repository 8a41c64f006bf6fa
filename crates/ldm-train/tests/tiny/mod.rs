//! The smallest runs of both kinds, and pictures to train on.

use std::path::{Path, PathBuf};

use image::{Rgb, RgbImage};
use ldm_scheduler::NativeRng;
use ldm_train::config::RunConfig;
use serde_json::{Value, json};

/// A folder with pictures to train on.
fn pictures(root: &Path) -> PathBuf {
    let folder = root.join("pictures");
    std::fs::create_dir_all(&folder).unwrap();
    let mut rng = NativeRng::new(1);
    for i in 0..10 {
        let [r, g, b] = std::array::from_fn(|_| rng.next_u64() as u8);
        let picture = RgbImage::from_fn(16, 16, |x, y| Rgb([r ^ (x * 9) as u8, g ^ (y * 7) as u8, b]));
        picture.save(folder.join(format!("{i}.png"))).unwrap();
        std::fs::write(folder.join(format!("{i}.txt")), format!("picture {i}")).unwrap();
    }
    folder
}

fn first_stage() -> Value {
    json!({
        "embed_dim": 2,
        "ddconfig": {
            "double_z": true, "z_channels": 2, "resolution": 16, "in_channels": 3, "out_ch": 3, "ch": 4,
            "ch_mult": [1, 2], "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.1, "norm_num_groups": 4,
        },
    })
}

fn autoencoder() -> Value {
    let mut params = first_stage();
    // The discriminator joins early: most of what happens to a run happens with it.
    params["lossconfig"] = json!({
        "target": "ldm.modules.losses.LPIPSWithDiscriminator",
        "params": {
            "kl_weight": 1e-4, "perceptual_weight": 0.0, "learn_logvar": true, "disc_num_layers": 1,
            "disc_start": DISC_START, "disc_weight": 0.5,
        },
    });
    params
}

/// The step at which the discriminator joins.
pub const DISC_START: u64 = 6;

fn vq() -> Value {
    let mut params = first_stage();
    params["ddconfig"]["double_z"] = json!(false);
    params["n_embed"] = json!(16);
    // Between two checkpoints as often as not.
    params["lossconfig"] = json!({
        "target": "taming.modules.losses.vqperceptual.VQLPIPSWithDiscriminator",
        "params": {
            "perceptual_weight": 0.0, "disc_num_layers": 1, "disc_ndf": 8, "disc_start": DISC_START,
            "disc_weight": 0.5, "n_classes": 16, "reseed_every": 4,
        },
    });
    params
}

/// A run's config: `kind` is `first_stage` (KL), `vq` or `diffusion`.
pub fn config(root: &Path, kind: &str, change: &[(&str, Value)]) -> RunConfig {
    RunConfig::from_value(&document(root, kind, change)).unwrap()
}

/// The same as its file has it.
pub fn document(root: &Path, kind: &str, change: &[(&str, Value)]) -> Value {
    let model = match kind {
        "first_stage" => json!({
            "base_learning_rate": 2e-4, "target": "ldm.models.autoencoder.AutoencoderKL", "params": autoencoder(),
        }),
        "vq" => json!({
            "base_learning_rate": 2e-4, "target": "ldm.models.autoencoder.VQModel", "params": vq(),
        }),
        _ => json!({
            "base_learning_rate": 2e-4, "target": "ldm.models.diffusion.ddpm.LatentDiffusion",
            "params": {
                "timesteps": 50, "parameterization": "eps", "rescale_betas_zero_snr": false,
                "scale_by_std": true, "learn_logvar": true, "noise_offset": 0.1,
                "unet_config": { "target": "UNetModel", "params": {
                    "in_channels": 2, "out_channels": 2, "model_channels": 4, "num_res_blocks": 1,
                    "attention_resolutions": [2], "channel_mult": [1, 2], "num_heads": 1, "norm_num_groups": 4,
                    "use_spatial_transformer": true, "context_dim": 8, "use_checkpoint": false,
                    "dropout": 0.1,
                }},
                "first_stage_config": { "target": "AutoencoderKL", "params": first_stage() },
                "cond_stage_trainable": true, "conditioning_key": "crossattn", "conditioning_dropout_prob": 0.2,
                "cond_stage_config": {
                    "target": "ldm.modules.encoders.modules.BERTEmbedder",
                    "params": {
                        "n_embed": 8, "n_layer": 1, "heads": 2, "dim_head": 4, "max_seq_len": 8,
                        "vocab_size": 1962, "vocab_file": "../../assets/emoji_vocab.txt",
                    },
                },
            },
        }),
    };
    let mut document = json!({
        "model": model,
        "data": {
            "source": { "path": pictures(root) },
            "loader": { "batch_size": 3, "transform": { "size": 16, "flip": true } },
        },
        "train": {
            "precision": "f32", "devices": null,
            "seed": 5, "max_steps": 90, "accumulate_grad_batches": 2, "gradient_clip_val": 1.0, "save_every": 3,
            "keep": 2, "log_every": 1, "images_every": 40, "images": 2, "sample_steps": 2,
            "scheduler": { "warm_up_steps": 4, "decay": "cosine", "decay_until": 100 },
        },
    });
    for (pointer, value) in change {
        let (section, key) = pointer.rsplit_once('/').unwrap();
        document.pointer_mut(section).unwrap()[key] = value.clone();
    }
    document
}
