//! How tensors of any lengths share a launch.
//!
//! A launch takes up to [`MOST`] members (a parameter, its gradient, ..). Its cubes are shared out among them in order, and each
//! finds its member by counting.

use burn::tensor::{DType, Shape};
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;

use super::super::walk::{Units, cubes};

/// Members of a launch.
const MOST: usize = 16;
/// What a unit takes of a member, one after the other.
const EACH: usize = 4;
/// The most bytes of a tensor that shares a buffer.
const SMALL: usize = 1 << 16;

/// What members of one launch have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// Of the tensor that has not the others' type.
    pub dtype: DType,
    /// Vectors that a unit takes together.
    pub together: usize,
}

/// Members of one launch, each of tensors of one length.
pub struct Launch<'a, const T: usize> {
    all: &'a [[CubeTensor; T]],
    /// Which of all.
    pub members: Vec<usize>,
    pub kind: Kind,
    /// Elements of a vector.
    pub vector: usize,
    /// Of a cube.
    pub units: Units,
}

/// Launches for all members, those of different kinds apart. `size` is the largest element's, in bytes; `kind` gives a
/// member's and, in elements, what a vector has to divide.
pub fn launches<const T: usize>(
    all: &[[CubeTensor; T]],
    size: usize,
    kind: impl Fn(usize) -> (Kind, usize),
) -> Vec<Launch<'_, T>> {
    let Some(client) = all.first().and_then(|member| member.first()).map(|x| &x.client) else {
        return Vec::new();
    };
    // A launch binds lengths and factors beside the members' tensors.
    let room = client.properties().hardware.max_bindings.saturating_sub(2) as usize / T;
    let most = room.clamp(1, MOST);
    let mut launches: Vec<Launch<'_, T>> = Vec::new();
    for i in 0..all.len() {
        let (kind, along) = kind(i);
        let mut widths = client.io_optimized_vector_sizes(size);
        let vector = widths.find(|n| along.is_multiple_of(*n)).unwrap_or(1);
        let open = launches
            .iter_mut()
            .find(|launch| launch.kind == kind && launch.vector == vector && launch.members.len() < most);
        match open {
            Some(launch) => launch.members.push(i),
            None => {
                let units = Units::together(client);
                launches.push(Launch { all, members: vec![i], kind, vector, units });
            }
        }
    }
    launches
}

impl<const T: usize> Launch<'_, T> {
    /// Of the members' device.
    pub fn client(&self) -> Client {
        self.all[0][0].client.clone()
    }

    /// Of every member, what its units take one after the other.
    pub fn lengths(&self) -> SequenceArg<usize> {
        self.counts().collect()
    }

    fn counts(&self) -> impl Iterator<Item = usize> {
        let taken = self.vector * self.kind.together;
        self.members.iter().map(move |i| self.all[*i][0].meta.shape().num_elements() / taken)
    }

    /// As many as the members need together.
    pub fn cubes(&self) -> CubeCount {
        cubes(&self.client(), self.needed())
    }

    /// How many have something to do.
    pub fn needed(&self) -> usize {
        let piece = self.units.across * EACH;
        self.counts().map(|count| count.div_ceil(piece)).sum()
    }

    /// The `tensor`th of every member, as a kernel takes them.
    pub fn buffers<C: CubePrimitive>(&self, tensor: usize) -> SequenceArg<Box<[C]>> {
        self.members.iter().map(|i| self.all[*i][tensor].clone().into_buffer_arg()).collect()
    }
}

/// New tensors of these shapes, on the device of `like`. The small ones share a buffer: among many small tensors a pool of
/// memory looks long for room, at every allocation.
pub fn rooms(like: &CubeTensor, shapes: &[Shape], dtype: DType) -> Vec<CubeTensor> {
    let (client, device) = (&like.client, &like.device);
    let alignment = (client.properties().memory.alignment as usize).max(1);
    let bytes = |shape: &Shape| shape.num_elements() * dtype.size();
    let shares = |shape: &Shape| (1..=SMALL).contains(&bytes(shape));
    let taken = |shape: &Shape| bytes(shape).next_multiple_of(alignment);
    let all: usize = shapes.iter().filter(|shape| shares(shape)).map(taken).sum();
    let empty = |shape: Shape| empty_device_contiguous_dtype(client.clone(), device.clone(), shape, dtype);
    let shared = empty(Shape::from([(all / dtype.size()).max(1)])).handle;
    let mut start = 0;
    let room = |shape: &Shape| {
        if !shares(shape) {
            return empty(shape.clone());
        }
        let after = all - start - bytes(shape);
        let handle = shared.clone().offset_start(start as u64).offset_end(after as u64);
        start += taken(shape);
        CubeTensor::new_contiguous(client.clone(), device.clone(), shape.clone(), handle, dtype)
    };
    shapes.iter().map(room).collect()
}

/// The tensor, its elements in order.
pub fn dense(x: CubeTensor) -> CubeTensor {
    into_contiguous(x)
}

/// The tensor or, where it has other holders, a copy, to be written over.
pub fn sole(x: CubeTensor) -> CubeTensor {
    if x.can_mut() { x } else { x.copy() }
}

/// What a unit does of a member.
#[derive(CubeType, Clone, Copy)]
pub struct Share {
    /// What it takes first; the next are `units` further each.
    pub first: usize,
    /// Where they end.
    pub end: usize,
    /// The first cube of the next member.
    pub after: usize,
}

/// Of a member of such a length whose first cube is `before`.
#[cube]
pub fn share(length: usize, before: usize, #[comptime] units: usize) -> Share {
    let piece = comptime![units * EACH];
    let after = before + length.div_ceil(piece);
    let cube = CUBE_POS;
    let mut first = length;
    let mut end = 0usize;
    if cube >= before && cube < after {
        let start = (cube - before) * piece;
        first = start + UNIT_POS as usize;
        end = (start + piece).min(length);
    }
    Share { first, end, after }
}
