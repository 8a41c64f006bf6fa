//! The network's blocks, with torchvision's names for their branches.

use burn::module::Module;
use burn::tensor::module::{avg_pool2d, max_pool2d};
use burn::tensor::ops::{AvgPoolOptions, MaxPoolOptions};
use burn::tensor::{Device, Tensor};

use super::layer::BasicConv2d;

/// A convolution that keeps the size: kernel `[height, width]`, both odd.
fn same(c: [usize; 2], kernel: [usize; 2], device: &Device) -> BasicConv2d {
    BasicConv2d::new(c, kernel, 1, kernel.map(|k| k / 2), device)
}

/// A 3x3 convolution without padding that halves the size.
fn halving(c: [usize; 2], device: &Device) -> BasicConv2d {
    BasicConv2d::new(c, [3; 2], 2, [0; 2], device)
}

fn through<'a>(x: &Tensor<4>, layers: impl IntoIterator<Item = &'a BasicConv2d>) -> Tensor<4> {
    layers.into_iter().fold(x.clone(), |x, layer| layer.forward(x))
}

/// The mean of the 3x3 pixels around, of those that there are.
fn average(x: &Tensor<4>) -> Tensor<4> {
    let options = AvgPoolOptions::new([3, 3]).with_stride([1, 1]).with_padding([1, 1]);
    avg_pool2d(x.clone(), options.with_count_include_pad(false))
}

fn halved(x: &Tensor<4>) -> Tensor<4> {
    max_pool2d(x.clone(), MaxPoolOptions::new([3, 3]).with_stride([2, 2]))
}

/// 35 x 35: `FIDInceptionA`.
#[derive(Module, Debug)]
pub struct InceptionA {
    branch1x1: BasicConv2d,
    branch5x5_1: BasicConv2d,
    branch5x5_2: BasicConv2d,
    branch3x3dbl_1: BasicConv2d,
    branch3x3dbl_2: BasicConv2d,
    branch3x3dbl_3: BasicConv2d,
    branch_pool: BasicConv2d,
}

impl InceptionA {
    pub fn new(c: usize, pool: usize, device: &Device) -> Self {
        let conv = |from, to, kernel: usize| same([from, to], [kernel; 2], device);
        Self {
            branch1x1: conv(c, 64, 1),
            branch5x5_1: conv(c, 48, 1),
            branch5x5_2: conv(48, 64, 5),
            branch3x3dbl_1: conv(c, 64, 1),
            branch3x3dbl_2: conv(64, 96, 3),
            branch3x3dbl_3: conv(96, 96, 3),
            branch_pool: conv(c, pool, 1),
        }
    }

    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let branches = vec![
            self.branch1x1.forward(x.clone()),
            through(&x, [&self.branch5x5_1, &self.branch5x5_2]),
            through(&x, [&self.branch3x3dbl_1, &self.branch3x3dbl_2, &self.branch3x3dbl_3]),
            self.branch_pool.forward(average(&x)),
        ];
        Tensor::cat(branches, 1)
    }
}

/// 35 to 17: `InceptionB`.
#[derive(Module, Debug)]
pub struct InceptionB {
    branch3x3: BasicConv2d,
    branch3x3dbl_1: BasicConv2d,
    branch3x3dbl_2: BasicConv2d,
    branch3x3dbl_3: BasicConv2d,
}

impl InceptionB {
    pub fn new(device: &Device) -> Self {
        Self {
            branch3x3: halving([288, 384], device),
            branch3x3dbl_1: same([288, 64], [1; 2], device),
            branch3x3dbl_2: same([64, 96], [3; 2], device),
            branch3x3dbl_3: halving([96, 96], device),
        }
    }

    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let double = through(&x, [&self.branch3x3dbl_1, &self.branch3x3dbl_2, &self.branch3x3dbl_3]);
        Tensor::cat(vec![self.branch3x3.forward(x.clone()), double, halved(&x)], 1)
    }
}

/// 17 x 17: `FIDInceptionC`.
#[derive(Module, Debug)]
pub struct InceptionC {
    branch1x1: BasicConv2d,
    branch7x7_1: BasicConv2d,
    branch7x7_2: BasicConv2d,
    branch7x7_3: BasicConv2d,
    branch7x7dbl_1: BasicConv2d,
    branch7x7dbl_2: BasicConv2d,
    branch7x7dbl_3: BasicConv2d,
    branch7x7dbl_4: BasicConv2d,
    branch7x7dbl_5: BasicConv2d,
    branch_pool: BasicConv2d,
}

impl InceptionC {
    /// `c7`: channels of the 7-wide convolutions.
    pub fn new(c7: usize, device: &Device) -> Self {
        let conv = |c, kernel| same(c, kernel, device);
        Self {
            branch1x1: conv([768, 192], [1, 1]),
            branch7x7_1: conv([768, c7], [1, 1]),
            branch7x7_2: conv([c7, c7], [1, 7]),
            branch7x7_3: conv([c7, 192], [7, 1]),
            branch7x7dbl_1: conv([768, c7], [1, 1]),
            branch7x7dbl_2: conv([c7, c7], [7, 1]),
            branch7x7dbl_3: conv([c7, c7], [1, 7]),
            branch7x7dbl_4: conv([c7, c7], [7, 1]),
            branch7x7dbl_5: conv([c7, 192], [1, 7]),
            branch_pool: conv([768, 192], [1, 1]),
        }
    }

    /// To be joined along the channels; the first is what sFID looks at.
    pub fn branches(&self, x: Tensor<4>) -> Vec<Tensor<4>> {
        let double = [
            &self.branch7x7dbl_1,
            &self.branch7x7dbl_2,
            &self.branch7x7dbl_3,
            &self.branch7x7dbl_4,
            &self.branch7x7dbl_5,
        ];
        vec![
            self.branch1x1.forward(x.clone()),
            through(&x, [&self.branch7x7_1, &self.branch7x7_2, &self.branch7x7_3]),
            through(&x, double),
            self.branch_pool.forward(average(&x)),
        ]
    }
}

/// 17 to 8: `InceptionD`.
#[derive(Module, Debug)]
pub struct InceptionD {
    branch3x3_1: BasicConv2d,
    branch3x3_2: BasicConv2d,
    branch7x7x3_1: BasicConv2d,
    branch7x7x3_2: BasicConv2d,
    branch7x7x3_3: BasicConv2d,
    branch7x7x3_4: BasicConv2d,
}

impl InceptionD {
    pub fn new(device: &Device) -> Self {
        Self {
            branch3x3_1: same([768, 192], [1; 2], device),
            branch3x3_2: halving([192, 320], device),
            branch7x7x3_1: same([768, 192], [1; 2], device),
            branch7x7x3_2: same([192, 192], [1, 7], device),
            branch7x7x3_3: same([192, 192], [7, 1], device),
            branch7x7x3_4: halving([192, 192], device),
        }
    }

    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let seven = [&self.branch7x7x3_1, &self.branch7x7x3_2, &self.branch7x7x3_3, &self.branch7x7x3_4];
        let three = through(&x, [&self.branch3x3_1, &self.branch3x3_2]);
        Tensor::cat(vec![three, through(&x, seven), halved(&x)], 1)
    }
}

/// How the last branch pools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pool {
    /// `FIDInceptionE_1`.
    Average,
    /// `FIDInceptionE_2`.
    Max,
}

/// 8 x 8: `FIDInceptionE_1` and `FIDInceptionE_2`.
#[derive(Module, Debug)]
pub struct InceptionE {
    branch1x1: BasicConv2d,
    branch3x3_1: BasicConv2d,
    branch3x3_2a: BasicConv2d,
    branch3x3_2b: BasicConv2d,
    branch3x3dbl_1: BasicConv2d,
    branch3x3dbl_2: BasicConv2d,
    branch3x3dbl_3a: BasicConv2d,
    branch3x3dbl_3b: BasicConv2d,
    branch_pool: BasicConv2d,
    #[module(skip)]
    pool: Pool,
}

impl InceptionE {
    pub fn new(c: usize, pool: Pool, device: &Device) -> Self {
        let conv = |c, kernel| same(c, kernel, device);
        Self {
            branch1x1: conv([c, 320], [1, 1]),
            branch3x3_1: conv([c, 384], [1, 1]),
            branch3x3_2a: conv([384, 384], [1, 3]),
            branch3x3_2b: conv([384, 384], [3, 1]),
            branch3x3dbl_1: conv([c, 448], [1, 1]),
            branch3x3dbl_2: conv([448, 384], [3, 3]),
            branch3x3dbl_3a: conv([384, 384], [1, 3]),
            branch3x3dbl_3b: conv([384, 384], [3, 1]),
            branch_pool: conv([c, 192], [1, 1]),
            pool,
        }
    }

    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let three = self.branch3x3_1.forward(x.clone());
        let double = through(&x, [&self.branch3x3dbl_1, &self.branch3x3dbl_2]);
        let around = MaxPoolOptions::new([3, 3]).with_stride([1, 1]).with_padding([1, 1]);
        let pooled = match self.pool {
            Pool::Average => average(&x),
            Pool::Max => max_pool2d(x.clone(), around),
        };
        let branches = vec![
            self.branch1x1.forward(x),
            self.branch3x3_2a.forward(three.clone()),
            self.branch3x3_2b.forward(three),
            self.branch3x3dbl_3a.forward(double.clone()),
            self.branch3x3dbl_3b.forward(double),
            self.branch_pool.forward(pooled),
        ];
        Tensor::cat(branches, 1)
    }
}
