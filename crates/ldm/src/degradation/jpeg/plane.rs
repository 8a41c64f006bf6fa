use super::cosine::{forward, inverse};

/// One channel, 8 bits.
pub(super) struct Plane {
    width: usize,
    height: usize,
    values: Vec<u8>,
}

impl Plane {
    pub fn new(width: usize, height: usize, values: Vec<u8>) -> Self {
        Self { width, height, values }
    }

    pub fn width(&self) -> usize {
        self.width
    }

    pub fn height(&self) -> usize {
        self.height
    }

    /// The value at a column and a row; beyond the edge, the edge's.
    pub fn at(&self, x: usize, y: usize) -> u8 {
        self.values[y.min(self.height - 1) * self.width + x.min(self.width - 1)]
    }

    /// At half size, rounded up, and as many columns more as fill its last block: those hold what libjpeg makes of the
    /// edge repeated, which is no repetition of the last column. Rounding alternates, so that it favours no side.
    pub fn halved(&self) -> Halved {
        let (width, height) = (self.width.div_ceil(2), self.height.div_ceil(2));
        let padded = width.next_multiple_of(8);
        let value = |x: usize, y: usize| {
            let sum: i32 = [(0, 0), (1, 0), (0, 1), (1, 1)]
                .into_iter()
                .map(|(i, j)| i32::from(self.at(2 * x + i, 2 * y + j)))
                .sum();
            ((sum + 1 + (x % 2) as i32) >> 2) as u8
        };
        let values = (0..height).flat_map(|y| (0..padded).map(move |x| (x, y))).map(|(x, y)| value(x, y));
        Halved { width, plane: Self::new(padded, height, values.collect()) }
    }

    /// Transformed, rounded to the steps and transformed back, block by block.
    pub fn coded(&self, steps: &[i32; 64]) -> Self {
        let mut values = vec![0; self.values.len()];
        for top in (0..self.height).step_by(8) {
            for left in (0..self.width).step_by(8) {
                let mut block: [i32; 64] =
                    std::array::from_fn(|i| i32::from(self.at(left + i % 8, top + i / 8)) - 128);
                forward(&mut block);
                for (v, step) in block.iter_mut().zip(steps) {
                    // The transform's own factor of 8 goes with the step.
                    let divisor = step * 8;
                    *v = v.signum() * ((v.abs() + divisor / 2) / divisor) * step;
                }
                inverse(&mut block);
                for (i, v) in block.into_iter().enumerate() {
                    let (x, y) = (left + i % 8, top + i / 8);
                    if x < self.width && y < self.height {
                        values[y * self.width + x] = (v + 128).clamp(0, 255) as u8;
                    }
                }
            }
        }
        Self::new(self.width, self.height, values)
    }
}

/// A channel at half size.
pub(super) struct Halved {
    /// Columns that are the picture's.
    width: usize,
    plane: Plane,
}

impl Halved {
    pub fn coded(&self, steps: &[i32; 64]) -> Self {
        Self { width: self.width, plane: self.plane.coded(steps) }
    }

    /// At the picture's size: three parts of the nearest and one of the next, each way; of one or two columns, repeated.
    pub fn doubled(&self, width: usize, height: usize) -> Plane {
        let at = |x: usize, y: usize| i32::from(self.plane.at(x.min(self.width - 1), y));
        let value = |x: usize, y: usize| {
            let (column, row) = (x / 2, y / 2);
            if self.width <= 2 {
                return at(column, row) as u8;
            }
            let next_row = if y.is_multiple_of(2) { row.saturating_sub(1) } else { row + 1 };
            let sum = |column: usize| 3 * at(column, row) + at(column, next_row);
            let next_column = if x.is_multiple_of(2) { column.saturating_sub(1) } else { column + 1 };
            let rounding = if x.is_multiple_of(2) { 8 } else { 7 };
            ((3 * sum(column) + sum(next_column.min(self.width - 1)) + rounding) >> 4) as u8
        };
        let values = (0..height).flat_map(|y| (0..width).map(move |x| (x, y))).map(|(x, y)| value(x, y));
        Plane::new(width, height, values.collect())
    }
}
