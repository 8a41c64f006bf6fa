use ldm_nn::weights::{Entry, KeyMap};

/// The names of EMA weights, which the reference's `LitEma` derives from the plain names.
///
/// A name loses its dots, so it can only be mapped forward: `diffusion_model.out.2.bias` becomes
/// `diffusion_modelout2bias`.
pub(super) struct EmaKeys<K> {
    keys: K,
    /// What the averaged module calls the part that the keys name, with its dot.
    part: &'static str,
}

impl<K> EmaKeys<K> {
    /// What stands before each name.
    pub const PREFIX: &'static str = "model_ema.";

    /// Of a diffusion model, whose U-Net alone is averaged.
    pub fn unet(keys: K) -> Self {
        Self { keys, part: "diffusion_model." }
    }

    /// Of a first stage that was averaged whole.
    pub fn first_stage(keys: K) -> Self {
        Self { keys, part: "" }
    }
}

impl<K: KeyMap> KeyMap for EmaKeys<K> {
    fn entry(&self, path: &str) -> Option<Entry> {
        self.entries(path).into_iter().next()
    }

    fn entries(&self, path: &str) -> Vec<Entry> {
        let without_dots = |mut entry: Entry| {
            entry.key = format!("{}{}", self.part, entry.key).replace('.', "");
            entry
        };
        self.keys.entries(path).into_iter().map(without_dots).collect()
    }
}
