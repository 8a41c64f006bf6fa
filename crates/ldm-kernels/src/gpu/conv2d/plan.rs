//! How a convolution is divided among cubes, planes and units.

use burn_cubecl::cubecl::ir::ElemType;
use burn_cubecl::cubecl::prelude::*;

use super::super::plane_tile::{SIDE, TileForm, hardware};
use super::fetch::Fetch;

/// Rows and columns of a cube's tile: output pixels and output channels.
pub const TILE: usize = 64;
/// How deep one step is.
pub const DEPTH: usize = 32;
/// Planes of a cube, as 2x2, each with a quarter of the tile.
pub const PLANES: usize = 4;
/// Blocks down and across of a plane's quarter.
pub const BLOCKS: usize = TILE / 2 / SIDE;
/// From a row to the next of a plane's block row on its way out, in elements.
pub const STAGE_STRIDE: usize = BLOCKS * SIDE + 4;
/// Elements of a plane's block row on its way out.
pub const STAGE: usize = SIDE * STAGE_STRIDE;

/// Multiprocessors assumed where a device does not tell.
const MULTIPROCESSORS: usize = 64;
/// Cubes wanted on each.
const CUBES: usize = 2;
/// The fewest steps of a split.
const STEPS: usize = 8;

/// Whose products, and how many cubes share a tile's depth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Work {
    /// A plane's quarter.
    pub tile: TileForm,
    /// At most so many splits of the depth; `None` for what suits the device.
    pub splits: Option<usize>,
}

impl Work {
    /// By the device's matrix units, or emulated by planes of 32 units. `None` where the device has none for the
    /// type, or too little room.
    pub fn new(client: &Client, elements: ElemType, emulated: bool) -> Option<Self> {
        let limits = &client.properties().hardware;
        let units = if emulated { 32 } else { limits.plane_size_max as usize };
        let room = 2 * Fetch::LARGEST * elements.size() + PLANES * STAGE * size_of::<f32>();
        let taken = (emulated || hardware(client, elements))
            && (16..=64).contains(&units)
            && units.is_power_of_two()
            && units * PLANES <= limits.max_units_per_cube as usize
            && room <= limits.max_shared_memory_size;
        let tile = TileForm { rows: BLOCKS, columns: BLOCKS, units, hardware: !emulated };
        taken.then_some(Self { tile, splits: None })
    }
}

/// The steps of a tile's depth, divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Splits {
    /// How many there are.
    pub count: usize,
    /// Steps of each but the last.
    pub length: usize,
    /// Tiles of the output.
    tiles: usize,
}

impl Splits {
    /// Of `depth` elements, for an output of so many rows and columns: enough to fill the device, none of fewer than
    /// [`STEPS`].
    pub fn new(client: &Client, sides: [usize; 2], depth: usize, wanted: Option<usize>) -> Self {
        let multiprocessors = client.properties().hardware.num_streaming_multiprocessors;
        let cubes = CUBES * multiprocessors.map_or(MULTIPROCESSORS, |n| n as usize);
        Self::among(cubes, sides, depth, wanted)
    }

    fn among(cubes: usize, sides: [usize; 2], depth: usize, wanted: Option<usize>) -> Self {
        let tiles = sides.map(|side| side.div_ceil(TILE)).iter().product::<usize>();
        let steps = depth.div_ceil(DEPTH);
        let filling = cubes.div_ceil(tiles).min(steps / STEPS);
        let length = steps.div_ceil(wanted.unwrap_or(filling).clamp(1, steps));
        Self { count: steps.div_ceil(length), length, tiles }
    }

    /// A cube a tile and split.
    pub fn cubes(&self) -> usize {
        self.tiles * self.count
    }
}

#[cfg(test)]
mod tests {
    use super::{STEPS, Splits};

    #[test]
    fn splits_fill_the_device_and_no_more() {
        // 1280 channels to 1280 at 8x8, twice: 2 by 20 tiles, 360 steps.
        let few = Splits::among(264, [128, 1280], 9 * 1280, None);
        assert_eq!((few.count, few.length, few.cubes()), (7, 52, 280));
        // One tile: as many as there are steps for.
        let one = Splits::among(264, [16, 4], 9 * 1280, None);
        assert_eq!((one.count, one.length), (45, STEPS));
        // Tiles enough, and a depth too short to divide.
        assert_eq!(Splits::among(264, [64 * 64 * 8, 320], 9 * 320, None).count, 1);
        assert_eq!(Splits::among(264, [16, 4], 8 * 32 + 1, None).count, 1);
        // As told: the last shorter, and never more than steps.
        let told = Splits::among(264, [16, 4], 9 * 32, Some(4));
        assert_eq!((told.count, told.length), (3, 3));
        assert_eq!(Splits::among(264, [16, 4], 2 * 32, Some(100)).count, 2);
    }
}
