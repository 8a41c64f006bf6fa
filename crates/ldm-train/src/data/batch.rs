use burn::tensor::{DType, Device, Tensor, TensorData};

/// Pictures, ready for the device.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Its number since the run's beginning.
    pub number: u64,
    /// `[b, 3, size, size]` in [-1, 1], in that order; empty where only views were asked for.
    pub pictures: Vec<f32>,
    /// Side of a picture, in pixels.
    pub size: usize,
    /// A caption for each picture; empty where the data has none.
    pub captions: Vec<String>,
    /// A class for each picture, where all have one.
    pub classes: Option<Vec<i64>>,
    /// The pictures' names.
    pub keys: Vec<String>,
    /// Which picture of the data set each is, with its crop and flip: equal numbers mean equal pixels. `None`
    /// for crops taken anywhere.
    pub views: Option<Vec<u64>>,
}

impl Batch {
    /// How many pictures.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// `[b, 3, size, size]` in [-1, 1], f32.
    pub fn to_tensor(&self, device: &Device) -> Tensor<4> {
        let shape = [self.len(), 3, self.size, self.size];
        Tensor::from_data(TensorData::new(self.pictures.clone(), shape), (device, DType::F32))
    }
}
