//! What real checkpoints hold and no model that samples needs.

/// Patterns of tensor names, after the loader's prefix; `*` stands for any run of characters.
///
/// Sources: CompVis latent-diffusion (ddpm.py's `register_schedule`, ema.py, the first stages' losses),
/// Stability's generative-models (`denoiser.sigmas`), transformers' CLIP (`position_ids`), BERTEmbedder's x-transformers
/// (`to_logits`).
pub(super) const KNOWN: [&str; 24] = [
    "model_ema.*",
    "loss.*",
    "betas",
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    "log_one_minus_alphas_cumprod",
    "posterior_variance",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
    "lvlb_weights",
    "logvar",
    "denoiser.sigmas",
    "decay",
    "num_updates",
    "*position_ids",
    "*to_logits.*",
    "*attn_mask",
    "*num_batches_tracked",
    "*logit_scale",
];

/// Whether real checkpoints are known to hold a tensor of this name that no model which samples needs: schedule
/// buffers, EMA weights, losses and such.
pub fn is_known_extra(name: &str) -> bool {
    KNOWN.iter().any(|pattern| matches(pattern, name))
}

/// Whether `name` is matched by `pattern`, in which `*` stands for any run of characters.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(name) = name.strip_prefix(head) else {
        return false;
    };
    // The shortest run that lets the rest match; patterns are short, so trying each is cheap enough.
    rest.is_empty()
        || name.char_indices().map(|(i, _)| i).chain([name.len()]).any(|i| matches(rest, &name[i..]))
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn a_star_stands_for_any_run() {
        for (pattern, name, expected) in [
            ("loss.*", "loss.logvar", true),
            ("loss.*", "closs.logvar", false),
            ("*position_ids", "text_model.embeddings.position_ids", true),
            ("*position_ids", "position_ids", true),
            ("*position_ids", "position_ids.weight", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("betas", "betas", true),
            ("betas", "betas2", false),
            ("*", "", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
