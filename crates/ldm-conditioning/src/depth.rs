/// The most layers of a transformer: a config that says more is broken, and would be built layer by layer until memory ends.
/// Published ones have 48 at most.
pub(crate) const MOST_LAYERS: usize = 1024;
