//! Groups that planes keep in registers: a row of a layer norm is a few vectors for each unit of a plane, so that nothing has to be
//! shared; a group of a small map takes some planes of a cube, each of which shares its sums.

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::ir::features::Plane;
use burn_cubecl::cubecl::prelude::*;

use super::walk::{Extents, Walk};

/// Vectors that a unit keeps, at most.
const KEPT: usize = 8;
/// Vectors of a unit beyond which more planes take a group, as long as a cube has some.
const MANY: usize = 4;
/// Units of a cube, at most.
const UNITS: usize = 256;

/// Who takes a group. Known when the kernel is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Kept {
    /// Units of a plane.
    pub lanes: usize,
    /// Planes of a group; a power of two.
    pub planes: usize,
    /// Groups of a cube.
    pub rows: usize,
    /// Vectors of a unit.
    pub vectors: usize,
    /// Whether the walk's outer axis is of one place, as a row's is.
    pub single: bool,
}

impl Kept {
    /// `None` where groups are too large, or the device has planes of several sizes or none that add up.
    pub fn new(client: &Client, walk: &Walk) -> Option<Self> {
        let properties = client.properties();
        let hardware = &properties.hardware;
        // Planes of a software device add up as well. CubeCL does not tell, as it would be slow; the tests want to know.
        let sums = properties.features.plane.contains(Plane::Ops) || cfg!(test);
        let lanes = hardware.plane_size_max as usize;
        if lanes == 0 || hardware.plane_size_min != hardware.plane_size_max || !sums {
            return None;
        }
        let most = 1 << (UNITS.min(hardware.max_units_per_cube as usize) / lanes).checked_ilog2()?;
        let [outer, inner] = walk.axes();
        let vectors = outer * inner;
        let mut planes = 1;
        while planes < most && vectors > MANY * planes * lanes {
            planes *= 2;
        }
        let (rows, vectors) = (most / planes, vectors.div_ceil(planes * lanes));
        (1..=KEPT).contains(&vectors).then_some(Self { lanes, planes, rows, vectors, single: outer == 1 })
    }

    /// Units of a group.
    pub fn units(self) -> usize {
        self.planes * self.lanes
    }

    /// Groups of a cube, and the planes of each.
    pub fn dim(self) -> CubeDim {
        CubeDim::new_2d(self.lanes as u32, (self.planes * self.rows) as u32)
    }
}

/// A unit of a cube.
#[derive(CubeType, Clone, Copy)]
pub struct Member {
    /// Its group; those that aren't there are the last again.
    pub group: usize,
    /// Whether there is such a group.
    pub there: bool,
    /// The group among the cube's.
    pub row: usize,
    /// The plane among the group's.
    pub plane: usize,
    /// The unit among the group's.
    pub unit: usize,
}

/// This unit.
#[cube]
pub fn member(extents: &Extents, #[comptime] kept: Kept) -> Member {
    let planes = comptime![kept.planes];
    let row = UNIT_POS_Y as usize / planes;
    let plane = UNIT_POS_Y as usize % planes;
    let unit = plane * comptime![kept.lanes] + UNIT_POS_X as usize;
    let wanted = CUBE_POS * comptime![kept.rows] + row;
    Member { group: min(wanted, extents.all - 1), there: wanted < extents.all, row, plane, unit }
}

/// Whether vector `k` is the group's.
#[cube]
pub fn counts(#[comptime] k: usize, full: bool, #[comptime] kept: Kept) -> bool {
    if comptime![k + 1 == kept.vectors] { full } else { true.runtime() }
}

/// The sum over the units of a group, for each of them. Of the shared memory, run `run` is for this sum alone.
#[cube]
pub fn across(
    value: f32,
    shared: &mut Shared<[f32]>,
    member: &Member,
    #[comptime] run: usize,
    #[comptime] kept: Kept,
) -> f32 {
    let mut sum = plane_sum(value);
    if comptime![kept.planes > 1] {
        let first = comptime![run * kept.rows * kept.planes] + member.row * comptime![kept.planes];
        if UNIT_POS_X == 0 {
            shared[first + member.plane] = sum;
        }
        sync_cube();
        sum = 0.0f32;
        #[unroll]
        for i in 0..comptime![kept.planes] {
            sum += shared[first + i];
        }
    }
    sum
}
