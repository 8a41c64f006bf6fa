use burn::tensor::{DType, Tensor};

/// Named scalars of one step, as the reference logs them, still on the device.
///
/// Reading a scalar waits for the device: the loops read the loss at every step, to see that it is a number, and the
/// rest at the steps that are logged.
#[derive(Debug, Clone, Default)]
pub struct Logs(Vec<(&'static str, Tensor<1>)>);

impl Logs {
    /// Adds a scalar `[1]`; its gradient is not kept.
    pub(crate) fn push(&mut self, name: &'static str, value: Tensor<1>) {
        self.0.push((name, value.inner().cast(DType::F32)));
    }

    /// The scalar of this name, `[1]`, f32.
    pub fn get(&self, name: &str) -> Option<Tensor<1>> {
        self.0.iter().find(|(n, _)| *n == name).map(|(_, value)| value.clone())
    }

    /// All names in the order of the reference, without `train/` or `val/`.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.0.iter().map(|(name, _)| *name)
    }

    /// Reads all scalars, in one transfer.
    pub fn read(&self) -> Vec<(&'static str, f32)> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let values = Tensor::cat(self.0.iter().map(|(_, value)| value.clone()).collect(), 0).into_data();
        self.names().zip(values.iter::<f32>()).collect()
    }
}
