use burn::tensor::{DType, Device, Tensor, TensorData};
use ldm_conditioning::Layout;

use super::MapKind;

/// Pictures, ready for the device.
#[derive(Debug, Clone, PartialEq, Default)]
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
    /// The pictures that go with them, seen as they are; `None` where the data has none, or only views were asked for.
    pub maps: Option<Maps>,
    /// What is in each whole picture and which part of it the crop shows; `None` where the data doesn't say, or only
    /// views were asked for.
    pub layouts: Option<Vec<Layout>>,
}

/// The second pictures of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Maps {
    /// What they are.
    pub kind: MapKind,
    /// Their side, in pixels.
    pub size: usize,
    /// Labels `[b, 1, size, size]` as whole numbers, pictures `[b, 3, size, size]` in [-1, 1].
    pub values: Vec<f32>,
}

impl Maps {
    /// Their values on a device, f32.
    pub fn to_tensor(&self, device: &Device) -> Tensor<4> {
        let channels = self.kind.channels();
        let items = self.values.len() / (channels * self.size * self.size).max(1);
        let data = TensorData::new(self.values.clone(), [items, channels, self.size, self.size]);
        Tensor::from_data(data, (device, DType::F32))
    }
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
