//! Which elements of a tensor are read together.

use burn_cubecl::cubecl::ir::{ElemType, UIntKind};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::permute;
use burn_cubecl::tensor::CubeTensor;

use super::super::waiting::NUMBERS;
use super::fetch::{Fetch, Way};
use super::plan::CubeForm;

/// How a tensor of four axes is read.
#[derive(Debug)]
pub struct Lines {
    /// Whether neighbours are of the depth.
    deep: bool,
    /// Elements of a vector.
    pub vector: usize,
    /// How many of them are moved as one number.
    packed: usize,
    /// Whether vectors may be of twice as many elements, two in one number.
    packs: bool,
    /// Bytes of an element.
    size: usize,
    /// The axis that vectors lie along.
    axis: usize,
    /// In elements.
    strides: [usize; 4],
}

impl Lines {
    /// `[b, c, h, w]` as pixels by channels: channels are the depth.
    pub fn pixels(x: &CubeTensor) -> Self {
        let strides = strides(x);
        Self::new(x, strides, &[(1, true)], strides[1] < strides[3])
    }

    /// `[b, c, h, w]` as channels by pixels: pixels are the depth.
    #[cfg(feature = "autodiff")]
    pub fn channels(x: &CubeTensor) -> Self {
        let strides = strides(x);
        Self::new(x, strides, &[(1, false)], strides[3] < strides[1])
    }

    /// `[c_out, c_in, kh, kw]` as output channels by taps and channels. Neighbours may be of either channels: those
    /// of an input's gradient are of the output's.
    pub fn weights(weight: &CubeTensor) -> Self {
        Self::new(weight, strides(weight), &[(1, true), (0, false)], true)
    }

    /// Vectors along the first of the axes (and whether it is in the depth) that lies dense; where none does,
    /// elements, by neighbouring units along the depth or not.
    fn new(x: &CubeTensor, strides: [usize; 4], axes: &[(usize, bool)], deep: bool) -> Self {
        let dims = dims(x);
        let fits = |axis: usize, n: usize| {
            dims[axis].is_multiple_of(n) && (0..4).all(|i| i == axis || strides[i].is_multiple_of(n))
        };
        let dense = axes.iter().find(|(axis, _)| strides[*axis] == 1);
        let (axis, deep, vector) = match dense {
            Some((axis, deep)) => (*axis, *deep, widest(x, |n| fits(*axis, n))),
            None => (0, deep, 1),
        };
        let packs = vector == NUMBERS
            && x.dtype.size() == 2
            && dense.is_some_and(|(axis, _)| fits(*axis, 2 * NUMBERS));
        Self { deep, vector, packed: 1, packs, size: x.dtype.size(), axis, strides }
    }

    /// Both in vectors of 16 bytes where a device's have four numbers at most: two halves are moved as one number then. Matrix
    /// units alone take them so.
    pub fn packed(both: [Self; 2]) -> [Self; 2] {
        if !both.iter().all(|lines| lines.packs) {
            return both;
        }
        both.map(|lines| Self { vector: 2 * lines.vector, packed: 2, packs: false, ..lines })
    }

    /// Whether a number is several elements.
    pub fn packs_numbers(&self) -> bool {
        self.packed > 1
    }

    /// Of `[b, c, h, w]` of so many rows and columns, whether all pixels lie in one row.
    pub fn flat(&self, [b, _, height, width]: [usize; 4]) -> bool {
        let [outer, _, row, column] = self.strides;
        (height == 1 || row == width * column) && (b == 1 || outer == height * width * column)
    }

    /// Numbers of a vector, as a kernel's argument.
    pub fn numbers(&self) -> usize {
        self.vector / self.packed
    }

    /// What is moved, of elements of this type.
    pub fn moved(&self, elements: ElemType) -> ElemType {
        if self.packed == 1 { elements } else { ElemType::UInt(UIntKind::U32) }
    }

    /// As the left operand of a cube, the units' share of it.
    pub fn left(&self, cube: CubeForm) -> Fetch {
        let way = match self.vector * self.size {
            _ if !cube.copies => Way::Registers,
            bytes @ (4 | 8 | 16) => Way::Copied(bytes),
            _ => Way::Direct,
        };
        let &Self { deep, vector, packed, .. } = self;
        Fetch {
            rows: cube.rows(),
            depth: cube.depth,
            deep,
            vector,
            packed,
            units: cube.units(),
            way,
            group: cube.group,
        }
    }

    /// Whether the cube's units can bring it: in rows of the depth, or without a rest. Groups of planes want vectors of 16 bytes, deep
    /// steps packed ones.
    pub fn suits(&self, cube: CubeForm, fetch: Fetch) -> bool {
        let whole = self.deep || fetch.units.is_multiple_of(fetch.across());
        whole && (!cube.group || self.vector * self.size == 16) && (cube.deep.is_none() || self.packed > 1)
    }

    /// As the right operand.
    pub fn right(&self, cube: CubeForm) -> Fetch {
        Fetch { rows: cube.columns(), ..self.left(cube) }
    }

    /// In vectors.
    pub fn strides(&self) -> [usize; 4] {
        std::array::from_fn(|i| self.strides[i] / if i == self.axis { 1 } else { self.vector })
    }
}

/// The widest vector of the tensor's elements that the kernels can use there.
pub fn widest(x: &CubeTensor, fits: impl Fn(usize) -> bool) -> usize {
    let mut sizes = x.client.io_optimized_vector_sizes(x.dtype.size());
    sizes.find(|n| *n <= Fetch::WIDEST && fits(*n)).unwrap_or(1)
}

/// Weights as they lie, or laid out anew, where neighbours are of neither channels and they are read `often`.
pub fn laid_out(weight: CubeTensor, often: bool) -> CubeTensor {
    let strides = strides(&weight);
    if !often || strides[0] == 1 || strides[1] == 1 {
        return weight;
    }
    permute(into_contiguous(permute(weight, &[0, 2, 3, 1])), &[0, 3, 1, 2])
}

/// As strides describe it.
pub fn strided(x: CubeTensor) -> CubeTensor {
    if x.meta.is_tiled() { into_contiguous(x) } else { x }
}

/// Of four axes.
pub fn dims(x: &CubeTensor) -> [usize; 4] {
    x.meta.shape().dims()
}

/// 0 for an axis of one element.
pub fn strides(x: &CubeTensor) -> [usize; 4] {
    let dims = dims(x);
    std::array::from_fn(|i| if dims[i] == 1 { 0 } else { x.meta.strides()[i] })
}
