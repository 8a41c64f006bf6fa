//! Resampling of maps and pictures as `torch.nn.functional.interpolate` does it: a matrix product an axis, so
//! that every device has it, with its gradient.

use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

/// How the pixels around a point make its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InterpolateMethod {
    /// The nearest one, in PyTorch's `nearest` (not `nearest-exact`).
    Nearest,
    /// The two nearest of each axis.
    Bilinear,
    /// The four nearest of each axis; Keys' cubic with a = -0.75, or -0.5 where antialiased.
    Bicubic,
    /// The mean of all that the new pixel covers.
    Area,
}

/// A resampling of `[b, c, h, w]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interpolation {
    method: InterpolateMethod,
    align_corners: bool,
    antialias: bool,
}

impl Interpolation {
    /// Pixels are squares, whose corners coincide (PyTorch's `align_corners=False`), without antialiasing.
    pub fn new(method: InterpolateMethod) -> Self {
        Self { method, align_corners: false, antialias: false }
    }

    /// The centres of the corner pixels coincide instead (bilinear and bicubic).
    pub fn with_align_corners(mut self, align_corners: bool) -> Self {
        self.align_corners = align_corners;
        self
    }

    /// Widens the filter where the picture becomes smaller (bilinear and bicubic), as Pillow does.
    pub fn with_antialias(mut self, antialias: bool) -> Self {
        self.antialias = antialias;
        self
    }

    /// `[b, c, h, w] -> [b, c, size]`; both sides at least 1.
    pub fn to_size(&self, x: Tensor<4>, size: [usize; 2]) -> Tensor<4> {
        self.apply(x, size, None)
    }

    /// Both sides times `factor`, rounded down but at least 1: `scale_factor` of PyTorch, which counts pixels
    /// by the factor given, not by the sizes that come out.
    pub fn by_factor(&self, x: Tensor<4>, factor: f64) -> Tensor<4> {
        let [_, _, h, w] = x.dims();
        let size = [h, w].map(|side| ((side as f64 * factor) as usize).max(1));
        self.apply(x, size, Some(factor))
    }

    fn apply(&self, x: Tensor<4>, [h_out, w_out]: [usize; 2], factor: Option<f64>) -> Tensor<4> {
        let [b, c, h, w] = x.dims();
        let (device, dtype) = (x.device(), x.dtype());
        let matrix = |n_in, n_out| self.matrix(n_in, n_out, factor, &device).cast(dtype);
        let x = x.reshape([b * c * h, w]).matmul(matrix(w, w_out)).reshape([b * c, h, w_out]);
        let x = x.swap_dims(1, 2).reshape([b * c * w_out, h]).matmul(matrix(h, h_out));
        x.reshape([b * c, w_out, h_out]).swap_dims(1, 2).reshape([b, c, h_out, w_out])
    }

    /// `[n_in, n_out]`: what each old pixel gives to each new one.
    fn matrix(&self, n_in: usize, n_out: usize, factor: Option<f64>, device: &Device) -> Tensor<2> {
        let mut values = vec![0f32; n_in * n_out];
        for i in 0..n_out {
            for (j, weight) in self.taps(i, n_in, n_out, factor) {
                // Beyond the border the border's pixel counts again.
                values[j.clamp(0, n_in as i64 - 1) as usize * n_out + i] += weight as f32;
            }
        }
        Tensor::from_data(TensorData::new(values, [n_in, n_out]), device)
    }

    /// Old pixels and their weights for the new pixel `i`.
    fn taps(&self, i: usize, n_in: usize, n_out: usize, factor: Option<f64>) -> Vec<(i64, f64)> {
        let scale = match factor {
            _ if self.align_corners => (n_in as f64 - 1.0) / (n_out as f64 - 1.0).max(1.0),
            Some(factor) => 1.0 / factor,
            None => n_in as f64 / n_out as f64,
        };
        match self.method {
            // f32, as PyTorch: a product just below a whole number chooses the pixel.
            InterpolateMethod::Nearest => {
                let scale = factor.map_or(n_in as f32 / n_out as f32, |factor| (1.0 / factor) as f32);
                vec![((i as f32 * scale).floor() as i64, 1.0)]
            }
            InterpolateMethod::Area => {
                let (start, end) = (i * n_in / n_out, ((i + 1) * n_in).div_ceil(n_out));
                (start..end).map(|j| (j as i64, 1.0 / (end - start) as f64)).collect()
            }
            InterpolateMethod::Bilinear if self.antialias => Self::filtered(i, n_in, scale, 1.0, triangle),
            InterpolateMethod::Bicubic if self.antialias => {
                Self::filtered(i, n_in, scale, 2.0, |x| cubic(x, -0.5))
            }
            InterpolateMethod::Bilinear => {
                let at = self.source(i, scale).max(0.0);
                let t = at - at.floor();
                vec![(at as i64, 1.0 - t), (at as i64 + 1, t)]
            }
            InterpolateMethod::Bicubic => {
                let at = self.source(i, scale);
                let t = at - at.floor();
                (-1..=2i64).map(|k| (at.floor() as i64 + k, cubic(t - k as f64, -0.75))).collect()
            }
        }
    }

    /// Where the centre of the new pixel `i` lies, in old pixels.
    fn source(&self, i: usize, scale: f64) -> f64 {
        if self.align_corners { i as f64 * scale } else { (i as f64 + 0.5) * scale - 0.5 }
    }

    fn filtered(
        i: usize,
        n_in: usize,
        scale: f64,
        support: f64,
        filter: impl Fn(f64) -> f64,
    ) -> Vec<(i64, f64)> {
        let stretch = scale.max(1.0);
        // Aligned corners change PyTorch's scale alone here.
        let centre = (i as f64 + 0.5) * scale;
        let start = (centre - support * stretch + 0.5).max(0.0) as i64;
        let end = ((centre + support * stretch + 0.5) as i64).min(n_in as i64);
        let taps = (start..end).map(|j| (j, filter((j as f64 - centre + 0.5) / stretch)));
        let taps: Vec<_> = taps.collect();
        let sum: f64 = taps.iter().map(|(_, weight)| weight).sum();
        taps.into_iter().map(|(j, weight)| (j, weight / sum)).collect()
    }
}

fn triangle(x: f64) -> f64 {
    (1.0 - x.abs()).max(0.0)
}

/// Keys' piecewise cubic.
fn cubic(x: f64, a: f64) -> f64 {
    let x = x.abs();
    if x <= 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * a
    } else {
        0.0
    }
}
