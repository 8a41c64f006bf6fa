//! How a kernel walks the elements of a group: along whichever axis they lie dense, several at a time where it can.

use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::cubecl::{self, calculate_cube_count_elemwise};

use super::known::{is_known, or_known};
use super::view::View;

/// The most units that work on one group, or on one chunk of a large one.
const UNITS: usize = 256;

/// Vectors that a unit asks for at a time: one by one it would wait for each.
pub const TOGETHER: usize = 4;

/// A group's channels and their elements, as an outer and an inner axis counted in vectors. The inner one is that
/// which lies dense: channels or elements.
#[derive(CubeType, CubeLaunch)]
pub struct Extents {
    /// Groups of a batch's element.
    pub groups: usize,
    /// Groups of all of them.
    pub all: usize,
    /// Channels of a group.
    pub width: usize,
    /// Of the outer axis.
    pub outer: usize,
    /// Of the inner axis, in vectors.
    pub inner: usize,
}

/// One tensor's strides under that walk, in vectors.
#[derive(CubeType, CubeLaunch)]
pub struct Strides {
    /// To the next element of the batch.
    pub batch: usize,
    /// To the next group.
    pub group: usize,
    /// Along the outer axis.
    pub outer: usize,
    /// Along the inner axis.
    pub inner: usize,
}

/// Extents and two tensors' strides in the order of their fields, known when a kernel is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Known {
    /// Of the walk.
    pub extents: [usize; 5],
    /// Of the input.
    pub from: [usize; 4],
    /// Of the output.
    pub to: [usize; 4],
}

#[cube]
impl Extents {
    /// These, or those that are known when the kernel is compiled.
    pub fn or_known(&self, #[comptime] known: Option<Known>) -> Extents {
        let n = comptime![known.map(|known| known.extents)];
        Extents {
            groups: or_known(self.groups, comptime![n.map(|n| n[0])]),
            all: or_known(self.all, comptime![n.map(|n| n[1])]),
            width: or_known(self.width, comptime![n.map(|n| n[2])]),
            outer: or_known(self.outer, comptime![n.map(|n| n[3])]),
            inner: or_known(self.inner, comptime![n.map(|n| n[4])]),
        }
    }
}

#[cube]
impl Strides {
    /// These, or those that are known when the kernel is compiled.
    pub fn or_known(&self, #[comptime] n: Option<[usize; 4]>) -> Strides {
        Strides {
            batch: or_known(self.batch, comptime![n.map(|n| n[0])]),
            group: or_known(self.group, comptime![n.map(|n| n[1])]),
            outer: or_known(self.outer, comptime![n.map(|n| n[2])]),
            inner: or_known(self.inner, comptime![n.map(|n| n[3])]),
        }
    }
}

/// Where a group starts.
#[cube]
pub fn start(strides: &Strides, group: usize, groups: usize) -> usize {
    group / groups * strides.batch + group % groups * strides.group
}

/// Where a vector of it lies.
#[cube]
pub fn at(strides: &Strides, start: usize, outer: usize, inner: usize) -> usize {
    start + outer * strides.outer + inner * strides.inner
}

/// The group's vectors `first`, `first + units`, .. before `end`, all asked for before the first is waited for. Of those
/// that aren't there, nothing in particular.
#[cube]
pub fn together<F: Float, N: Size>(
    x: &[Vector<F, N>],
    strides: &Strides,
    start: usize,
    inner: usize,
    first: usize,
    end: usize,
    #[comptime] units: usize,
) -> Array<Vector<F, N>> {
    let mut found = Array::<Vector<F, N>>::new(TOGETHER);
    #[unroll]
    for k in 0..TOGETHER {
        let i = min(first + comptime![k * units], end - 1);
        found[k] = x[at(strides, start, i / inner, i % inner)];
    }
    found
}

/// A channel's parameter, for each lane its own where the lanes are channels.
#[cube]
pub fn parameter<F: Float, N: Size>(
    values: &[F],
    channel: usize,
    #[comptime] channels_last: bool,
) -> Vector<f32, N> {
    let mut all = Vector::<f32, N>::new(f32::cast_from(values[channel]));
    if comptime![channels_last] {
        #[unroll]
        for k in 1..N::value() {
            all.insert(k, f32::cast_from(values[channel + k]));
        }
    }
    all
}

/// The group of each lane of a vector of channels, counted on from that of channel 0, of so many channels each.
#[cube]
pub fn groups_of<N: Size>(zeroth: usize, channel: usize, width: usize) -> Array<usize> {
    let n = N::value();
    let mut found = Array::<usize>::new(n);
    let mut group = zeroth + channel / width;
    let mut member = channel % width;
    #[unroll]
    for k in 0..n {
        found[k] = group;
        member += 1;
        let over = member == width;
        member = select(over, 0usize, member);
        group = select(over, group + 1, group);
    }
    found
}

/// The channel, counted from the group's first, of a place in the walk.
#[cube]
pub fn channel(
    outer: usize,
    inner: usize,
    #[comptime] vector: usize,
    #[comptime] channels_last: bool,
) -> usize {
    if comptime![channels_last] { inner * vector } else { outer }
}

/// What the host knows of a walk.
#[derive(Debug, Clone, Copy)]
pub struct Walk {
    /// Groups of a batch's element.
    pub groups: usize,
    /// Channels of a group.
    pub width: usize,
    /// Batch, channels, elements of a channel.
    pub shape: [usize; 3],
    /// Whether the inner axis is the channels.
    pub channels_last: bool,
    /// Elements of a vector.
    pub vector: usize,
}

impl Walk {
    /// Through the groups of the first view, which the others follow at their own strides.
    pub fn new(views: &[&View], groups: usize) -> Self {
        let View { tensor, shape, .. } = views[0];
        let channels_last = views[0].channels_last();
        let width = shape[1] / groups;
        let (axis, extent) = if channels_last { (1, width) } else { (2, shape[2]) };
        let fits = |n: usize, view: &View| {
            (0..3).all(|i| if i == axis { view.strides[i] == 1 } else { view.strides[i].is_multiple_of(n) })
        };
        let vector = tensor
            .client
            .io_optimized_vector_sizes(tensor.dtype.size())
            .find(|n| extent.is_multiple_of(*n) && views.iter().all(|view| fits(*n, view)));
        Self { groups, width, shape: *shape, channels_last, vector: vector.unwrap_or(1) }
    }

    /// Groups of the whole batch.
    pub fn all(&self) -> usize {
        self.shape[0] * self.groups
    }

    /// Elements of a group.
    pub fn group(&self) -> usize {
        self.width * self.shape[2]
    }

    /// Outer and inner axis.
    pub fn axes(&self) -> [usize; 2] {
        let Self { width, shape: [_, _, plane], vector, .. } = *self;
        if self.channels_last { [plane, width / vector] } else { [width, plane / vector] }
    }

    /// As a kernel's argument.
    pub fn extents(&self) -> ExtentsLaunch {
        let [groups, all, width, outer, inner] = self.all_extents();
        ExtentsLaunch::new(groups, all, width, outer, inner)
    }

    /// A view's strides as a kernel's argument.
    pub fn strides(&self, view: &View) -> StridesLaunch {
        let [batch, group, outer, inner] = self.all_strides(view);
        StridesLaunch::new(batch, group, outer, inner)
    }

    /// What a kernel may know of input and output.
    pub fn known(&self, from: &View, to: &View) -> Option<Known> {
        is_known(&from.tensor.client).then(|| Known {
            extents: self.all_extents(),
            from: self.all_strides(from),
            to: self.all_strides(to),
        })
    }

    fn all_extents(&self) -> [usize; 5] {
        let [outer, inner] = self.axes();
        [self.groups, self.all(), self.width, outer, inner]
    }

    fn all_strides(&self, view: &View) -> [usize; 4] {
        let [batch, channel, element] = view.strides;
        let n = self.vector;
        let group = self.width * channel / n;
        // A vector is of neighbours: the inner stride is 1 wherever there is more than one of them.
        if self.channels_last {
            [batch / n, group, element / n, channel]
        } else {
            [batch / n, group, channel / n, element]
        }
    }
}

/// A cube's units: so many that work together, in so many rows that don't.
#[derive(Debug, Clone, Copy)]
pub struct Units {
    /// Units of a row; a power of two.
    pub across: usize,
    /// Rows.
    pub rows: usize,
}

impl Units {
    /// For rows of so many vectors: as many rows as a cube has room for.
    pub fn for_rows(client: &Client, vectors: usize) -> Self {
        let most = most(client);
        let across = vectors.next_power_of_two().clamp(32.min(most), most);
        Self { across, rows: most / across }
    }

    /// For columns of so many vectors side by side: the rest of the cube takes different elements of them.
    #[cfg(feature = "autodiff")]
    pub fn for_columns(client: &Client, vectors: usize) -> Self {
        let most = most(client);
        let across = vectors.next_power_of_two().min(32).min(most);
        Self { across, rows: most / across }
    }

    /// All of a cube's units together.
    pub fn together(client: &Client) -> Self {
        Self { across: most(client), rows: 1 }
    }

    /// As a launch takes it.
    pub fn dim(&self) -> CubeDim {
        CubeDim::new_2d(self.across as u32, self.rows as u32)
    }
}

/// A power of two.
fn most(client: &Client) -> usize {
    let limit = client.properties().hardware.max_units_per_cube as usize;
    UNITS.min(1 << limit.max(1).ilog2())
}

/// At least so many cubes; a kernel checks its position.
pub fn cubes(client: &Client, count: usize) -> CubeCount {
    calculate_cube_count_elemwise(client, count, CubeDim::new_single())
}
