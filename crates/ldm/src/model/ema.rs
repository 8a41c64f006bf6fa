use ldm_nn::weights::{Entry, KeyMap};

/// The names of a U-Net's EMA weights, which the reference's `LitEma` derives from the plain names.
///
/// A name loses its dots, so it can only be mapped forward: `diffusion_model.out.2.bias` becomes
/// `diffusion_modelout2bias`.
pub(super) struct EmaKeys<K>(pub K);

impl<K> EmaKeys<K> {
    /// What stands before each name.
    pub const PREFIX: &'static str = "model_ema.";
}

impl<K: KeyMap> KeyMap for EmaKeys<K> {
    fn entry(&self, path: &str) -> Option<Entry> {
        self.entries(path).into_iter().next()
    }

    fn entries(&self, path: &str) -> Vec<Entry> {
        let without_dots = |mut entry: Entry| {
            entry.key = format!("diffusion_model.{}", entry.key).replace('.', "");
            entry
        };
        self.0.entries(path).into_iter().map(without_dots).collect()
    }
}
