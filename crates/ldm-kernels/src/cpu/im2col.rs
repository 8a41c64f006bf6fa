//! The columns of a convolution's product, made panel by panel and never as a whole.

use std::ops::Range;

use super::panels::Panel;

/// A convolution of one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Height and width of the image.
    pub input: [usize; 2],
    /// Height and width of the result.
    pub output: [usize; 2],
    /// Height and width of the kernel.
    pub kernel: [usize; 2],
    /// Rows and columns from one output to the next.
    pub stride: [usize; 2],
    /// Zeros above and to the left.
    pub padding: [usize; 2],
}

impl Geometry {
    /// Pixels of the image.
    pub fn plane(&self) -> usize {
        self.input[0] * self.input[1]
    }

    /// Pixels of the result.
    pub fn outputs(&self) -> usize {
        self.output[0] * self.output[1]
    }

    /// Weights of one input channel.
    pub fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }
}

/// Where a run of a panel's values comes from: the same for every channel.
struct Run {
    /// In the channel's rows of the panel.
    to: usize,
    /// In the channel's plane of the image; `None` in the padding.
    from: Option<usize>,
    len: usize,
}

/// The runs of one panel, the kernel's taps one after the other.
pub struct Runs {
    runs: Vec<Run>,
    stride: usize,
}

impl Runs {
    /// `first`: the output pixel that the panel begins with.
    pub fn new(geometry: &Geometry, panel: &Panel, first: usize) -> Self {
        let mut runs = Vec::new();
        let width = geometry.output[1];
        for ky in 0..geometry.kernel[0] {
            for kx in 0..geometry.kernel[1] {
                let to = (ky * geometry.kernel[1] + kx) * panel.width;
                let mut done = 0;
                while done < panel.columns {
                    let (y, x) = ((first + done) / width, (first + done) % width);
                    let len = (width - x).min(panel.columns - done);
                    row(geometry, [ky, kx], y, x..x + len, to + done, &mut runs);
                    done += len;
                }
                zeros(to + done, panel.width - done, &mut runs);
            }
        }
        Self { runs, stride: geometry.stride[1] }
    }

    /// Fills the rows of one channel from its plane.
    pub fn copy(&self, plane: &[f32], values: &mut [f32]) {
        for run in &self.runs {
            let to = &mut values[run.to..run.to + run.len];
            match (run.from, self.stride) {
                (None, _) => to.fill(0.0),
                (Some(from), 1) => to.copy_from_slice(&plane[from..from + run.len]),
                (Some(from), stride) => {
                    to.iter_mut().zip(plane[from..].iter().step_by(stride)).for_each(|(to, v)| *to = *v);
                }
            }
        }
    }
}

/// One tap's values for the outputs `x` of row `y`: zeros, pixels, zeros.
fn row(g: &Geometry, [ky, kx]: [usize; 2], y: usize, x: Range<usize>, to: usize, runs: &mut Vec<Run>) {
    let [height, width] = g.input;
    let source = (y * g.stride[0] + ky).checked_sub(g.padding[0]).filter(|y| *y < height);
    let Some(source) = source else { return zeros(to, x.len(), runs) };
    // Output x reads column x * stride + kx - padding: those before `begin` lie left of it, from `end` on right.
    let begin = g.padding[1].saturating_sub(kx).div_ceil(g.stride[1]).clamp(x.start, x.end);
    let end = (width + g.padding[1]).saturating_sub(kx).div_ceil(g.stride[1]).clamp(begin, x.end);
    zeros(to, begin - x.start, runs);
    if begin < end {
        let from = source * width + begin * g.stride[1] + kx - g.padding[1];
        runs.push(Run { to: to + begin - x.start, from: Some(from), len: end - begin });
    }
    zeros(to + end - x.start, x.end - end, runs);
}

fn zeros(to: usize, len: usize, runs: &mut Vec<Run>) {
    if len > 0 {
        runs.push(Run { to, from: None, len });
    }
}
