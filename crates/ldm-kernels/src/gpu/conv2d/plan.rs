//! How a product is divided among cubes, planes and units.

use burn_cubecl::cubecl::ir::{ElemType, HardwareProperties};
use burn_cubecl::cubecl::prelude::*;

use super::super::plane_tile::{SIDE, TileForm, native};
use super::super::processors::processors;
use super::super::ptx;
use super::fetch::Fetch;

/// Channels of a half of a gated product that lie together in a tile, before those of the other half.
pub const HALF: usize = 8;

/// How deep one step is.
pub const DEPTH: usize = ptx::DEPTH;
/// How deep, where nothing but a longer step hides that memory is far.
const DEEP: usize = 64;

/// Tiles of a cube, the largest first: planes down and across, blocks of each down and across. What a plane reads of shared
/// memory grows with its blocks down and across, what it multiplies with their product.
const TILES: [([usize; 2], [usize; 2]); 5] =
    [([2, 2], [4, 5]), ([2, 2], [4, 4]), ([2, 4], [4, 2]), ([2, 2], [4, 2]), ([2, 2], [2, 2])];

/// Those in deep steps of packed operands, likewise, and what a step takes: clocks of shaders written by hand on an H200 by Vulkan, but
/// the last's, which is a guess.
const DEEP_TILES: [([usize; 2], [usize; 2], usize); 5] = [
    ([4, 2], [2, 5], 2350),
    ([4, 2], [2, 4], 1850),
    ([4, 2], [1, 5], 1680),
    ([2, 2], [2, 4], 1400),
    ([2, 2], [2, 2], 900),
];

/// Rows of the smallest.
pub const SMALLEST: usize = 64;

/// Tiles of groups of four planes, likewise: planes down, blocks of 16 across. 160 columns divide the channels of Stable
/// Diffusion's levels, and leave of each a number of tiles that is just below a large GPU's multiprocessors.
const GROUPS: [(usize, usize); 5] = [(8, 10), (8, 8), (8, 4), (4, 8), (4, 4)];
/// Forms of a cube: by planes, and in one of the two other ways.
const FORMS: usize = 10;

/// Blocks of a plane's row of sums that leave its registers at a time.
pub const OUT: usize = 2;

/// The fewest steps of a split.
const STEPS: usize = 8;
/// The most planes on a multiprocessor.
const PLANES: usize = 16;
/// Registers of a multiprocessor for each unit of a plane, and what a unit needs beside its sums.
const REGISTERS: usize = 2048;
const BESIDE: usize = 48;
/// The most sums of a unit where the matrix units multiply 8x8: Metal's devices have fewer registers.
const FEW_SUMS: usize = 64;

// What a multiprocessor needs, in its clocks; rough, and only compared with each other. The figures are a large GPU's: of 24
// layers of Stable Diffusion 1.5's on an H200 (`benches/products.rs`) the way that they choose is within 4 % of the fastest.
/// For the products of two blocks, by groups of planes.
const GROUP: usize = 8;
/// Bytes of shared memory that planes read or write in one. They wait for it, not for their products: 128 of a bank each, at
/// two thirds of that.
const SHARED: usize = 128 * 2 / 3;
/// Bytes of operands that come in one.
const BYTES: usize = 32;
/// From asking for operands until they are there.
const LATENCY: usize = 800;
/// Of a step, the part that a cube alone on a multiprocessor leaves idle: nobody works while it waits.
const ALONE: usize = 8;
/// To launch the kernel that adds splits up.
const LAUNCH: usize = 4000;
/// In deep steps: from a cube's first read to its first product, and from the last to its end.
const ENDS: usize = 5000;
/// Likewise, until the sums of splits are there: that launch takes 6 us by Vulkan, 3 by CUDA. Rough, like the one above.
const LONG_LAUNCH: usize = 12_000;

/// A cube's tile of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CubeForm {
    /// Planes down and across.
    pub planes: [usize; 2],
    /// Of a plane.
    pub tile: TileForm,
    /// How deep a step is.
    pub depth: usize,
    /// What a deep step of packed operands takes; `None` for others.
    pub deep: Option<usize>,
    /// Copies of the operands in shared memory: where there are several, one is read (by groups, two) while the others are
    /// filled.
    pub buffers: usize,
    /// Cubes on a multiprocessor.
    pub together: usize,
    /// Whether operands are copied there while the units go on, and not by way of their registers.
    pub copies: bool,
    /// Whether groups of four planes multiply, of 16 rows each.
    pub group: bool,
}

impl CubeForm {
    /// Rows of the output.
    pub fn rows(self) -> usize {
        self.planes[0] * self.tile.rows * SIDE
    }

    /// Columns of the output.
    pub fn columns(self) -> usize {
        self.planes[1] * self.tile.columns * SIDE
    }

    /// Units of the cube.
    pub fn units(self) -> usize {
        self.planes() * self.tile.units
    }

    /// Planes of the cube.
    pub fn planes(self) -> usize {
        self.planes[0] * self.planes[1]
    }

    /// As a launch takes it.
    pub fn dim(self) -> CubeDim {
        CubeDim::new_2d(self.tile.units as u32, self.planes() as u32)
    }

    /// Columns of a plane's row of blocks that are on their way out at a time.
    pub fn stage_columns(self) -> usize {
        self.tile.columns.min(OUT) * SIDE
    }

    /// Blocks that leave at a time where operands of so many elements of two bytes lay.
    pub fn blocks_out(self, elements: usize) -> usize {
        let room = 2 * elements / size_of::<f32>() / self.planes();
        let fits = |blocks: &usize| SIDE * self.stage_stride(*blocks) <= room;
        (1..=OUT).rev().find(fits).unwrap_or_else(|| unreachable!("operands are larger than a block"))
    }

    /// From a row to the next of them, in elements. Four units write eight neighbours of a row, sixteen of four rows at once: 40 puts
    /// these into different banks, 36 nearly, for those who have little room.
    pub fn stage_stride(self, blocks: usize) -> usize {
        self.tile.columns.min(blocks) * SIDE + if self.copies { 8 } else { 4 }
    }

    /// Sums of a unit.
    pub fn sums(self) -> usize {
        self.tile.rows * self.tile.columns * SIDE * SIDE / self.tile.units
    }

    /// Elements of a plane's row of blocks on its way out.
    pub fn stage(self) -> usize {
        SIDE * self.stage_stride(OUT)
    }

    /// How many steps ahead of the product operands are asked for.
    pub fn ahead(self) -> usize {
        match self {
            // Two are read, by the product that is begun and by the one before it.
            Self { group: true, buffers, .. } => buffers - 2,
            Self { copies: true, buffers, .. } => buffers - 1,
            _ => 1,
        }
    }

    /// Shared memory for operands of so many bytes an element, in bytes.
    fn room(self, size: usize) -> usize {
        let operands = match self.group {
            true => (self.rows() + self.columns()) * self.depth,
            false => Fetch::largest(self.rows(), self.depth) + Fetch::largest(self.columns(), self.depth),
        };
        // Sums of deep steps leave where operands lay.
        let stage = if self.deep.is_some() { 0 } else { self.planes() * self.stage() * size_of::<f32>() };
        self.buffers * operands * size + stage
    }

    /// The most cubes that a multiprocessor has registers for.
    fn most(self) -> usize {
        let planes = PLANES.min(REGISTERS / (self.sums() + BESIDE));
        (planes / self.planes()).max(1)
    }

    /// With buffers and cubes on a multiprocessor that its memory has room for, of an element of so many bytes: eight planes
    /// at work, if there can be, then as much on its way from memory as possible.
    fn fitting(self, limits: &HardwareProperties, size: usize) -> Option<Self> {
        let buffers = match (self.group, self.copies) {
            (true, _) => 3..=5,
            (false, true) => 2..=4,
            (false, false) if self.deep.is_some() => 1..=1,
            (false, false) => 1..=2,
        };
        // By way of registers cubes don't overlap: a second one on a multiprocessor brought nothing on an H200 by Vulkan.
        let most = if self.copies { self.most() } else { 1 };
        let forms = buffers
            .flat_map(|buffers| (1..=most).map(move |together| Self { buffers, together, ..self }))
            .filter(|form| {
                form.units() <= limits.max_units_per_cube as usize
                    && form.together * form.room(size) <= limits.max_shared_memory_size
            });
        forms.max_by_key(|form| {
            let planes = (form.together * form.planes()).min(8);
            (planes, form.together * form.ahead(), form.buffers, form.together)
        })
    }

    /// Clocks of a step.
    fn step(self) -> usize {
        if let Some(clocks) = self.deep {
            return clocks;
        }
        // Bytes of so many rows or columns.
        let bytes = |lines: usize| lines * self.depth * 2;
        let written = bytes(self.rows() + self.columns());
        if !self.group {
            let read = self.planes() * bytes((self.tile.rows + self.tile.columns) * SIDE);
            return (read + written) / SHARED;
        }
        let blocks = self.planes() * self.tile.rows * self.tile.columns * (self.depth / SIDE);
        let come = written / BYTES;
        // What comes while they multiply is in their way a little.
        (blocks * GROUP / 2).max(come) + come / 8
    }
}

/// Who makes the products.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Work {
    /// The forms that the device has room for: by planes, then by groups of them or, without these, in deep steps, the largest
    /// first of each.
    pub forms: [Option<CubeForm>; FORMS],
    /// Only the form of this place among them, where it can be used; `None` for what suits the device.
    pub form: Option<usize>,
    /// At most so many splits of the depth; `None` for what suits the device.
    pub splits: Option<usize>,
    /// Whether matrix units take packed operands: Vulkan's do. Metal's, of 8x8, want memory of the elements' own type.
    pub packs: bool,
}

impl Work {
    /// By the device's matrix units, or emulated by planes of 32 units. `None` where the device has none for the
    /// type, or too little room.
    pub fn new(client: &Client, elements: ElemType, emulated: bool) -> Option<Self> {
        let limits = &client.properties().hardware;
        let units = if emulated { 32 } else { limits.plane_size_max as usize };
        if !(16..=64).contains(&units) || !units.is_power_of_two() {
            return None;
        }
        let native = if emulated { None } else { Some(native(client, elements)?) };
        let copies = !emulated && ptx::takes(client);
        let size = elements.size();
        let few = native.is_some_and(|side| side < SIDE);
        let form = |planes: [usize; 2], rows: usize, columns: usize| {
            let tile = TileForm { rows, columns, units, native };
            let (depth, deep, group) = (DEPTH, None, false);
            CubeForm { planes, tile, depth, deep, buffers: 1, together: 1, copies, group }
        };
        let fitting =
            |form: CubeForm| (!few || form.sums() <= FEW_SUMS).then(|| form.fitting(limits, size)).flatten();
        let tiles = TILES.map(|(planes, [rows, columns])| fitting(form(planes, rows, columns)));
        let others = if !emulated && ptx::groups(client) && size == 2 {
            GROUPS.map(|(down, columns)| fitting(CubeForm { group: true, ..form([down, 1], 1, columns) }))
        } else if !copies && native.is_some() && size == 2 {
            DEEP_TILES.map(|(planes, [rows, columns], clocks)| {
                fitting(CubeForm { depth: DEEP, deep: Some(clocks), ..form(planes, rows, columns) })
            })
        } else {
            [None; FORMS - TILES.len()]
        };
        let mut forms = [None; FORMS];
        for (form, found) in forms.iter_mut().zip(tiles.into_iter().chain(others)) {
            *form = found;
        }
        let packs = native == Some(SIDE);
        forms.iter().any(Option::is_some).then_some(Self { forms, form: None, splits: None, packs })
    }

    /// Whether convolutions of enlarged pictures to so many channels are convolutions of the pictures: by deep steps alone so far, as
    /// what others take for it nobody has measured.
    pub fn merges(&self, outputs: usize) -> bool {
        let mut deep = self.forms.iter().flatten().filter(|form| form.deep.is_some());
        self.divides(outputs) && deep.any(|form| outputs.is_multiple_of(form.columns()))
    }

    /// Whether a tile that reads whatever there is divides so many columns.
    pub fn divides(&self, columns: usize) -> bool {
        let mut all = self.forms.iter().flatten().filter(|form| !form.group && form.deep.is_none());
        all.any(|form| columns.is_multiple_of(form.columns()))
    }

    /// Whether tile or splits are told.
    pub fn is_told(&self) -> bool {
        self.form.is_some() || self.splits.is_some()
    }

    /// For an output of so many rows and columns and so deep: tile and splits that take the least time. `reads` tells
    /// whether cubes of this form can read the operands.
    pub fn plan(
        &self,
        client: &Client,
        sides: [usize; 2],
        depth: Depth,
        reads: impl Fn(CubeForm) -> bool,
    ) -> Plan {
        self.among(processors(&client.properties().hardware), sides, depth, reads)
    }

    fn among(
        &self,
        multiprocessors: usize,
        sides: [usize; 2],
        depth: Depth,
        reads: impl Fn(CubeForm) -> bool,
    ) -> Plan {
        let usable = |form: &CubeForm| reads(*form);
        let told = self.form.and_then(|form| self.forms[form]).filter(usable);
        // Of what is as good the smallest.
        let forms = self.forms.iter().rev().flatten().copied().filter(usable);
        // Groups multiply twice as fast as planes by themselves, and so do these in deep steps.
        let better = |form: &CubeForm| form.group || form.deep.is_some();
        let best = forms.clone().any(|form| better(&form));
        let forms = forms.filter(|form| told.map_or(better(form) == best, |told| told == *form));
        let plans = forms.flat_map(|cube| {
            let steps = depth.steps(cube);
            let fewest_steps = STEPS * DEPTH / cube.depth;
            let tiles = sides[0].div_ceil(cube.rows()) * sides[1].div_ceil(cube.columns());
            let places = cube.together * multiprocessors;
            let (fewest, most) = match self.splits {
                Some(splits) => (splits.clamp(1, steps), splits.clamp(1, steps)),
                None => (1, places.div_ceil(tiles).min(steps / fewest_steps).max(1)),
            };
            (fewest..=most).map(move |splits| {
                let length = steps.div_ceil(splits);
                Plan { cube, splits: steps.div_ceil(length), length, tiles }
            })
        });
        let time = |plan: &Plan| plan.time(multiprocessors, sides[0] * sides[1]);
        plans
            .min_by_key(time)
            .unwrap_or_else(|| unreachable!("`new` leaves a form, tests take those there are"))
    }
}

/// What a product sums: taps of so many channels each.
#[derive(Debug, Clone, Copy)]
pub struct Depth {
    /// How many.
    pub taps: usize,
    /// Of each.
    pub channels: usize,
}

impl Depth {
    fn steps(self, cube: CubeForm) -> usize {
        self.taps * self.channels.div_ceil(cube.depth)
    }
}

/// One product, divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// A cube.
    pub cube: CubeForm,
    /// How many splits of the depth there are.
    pub splits: usize,
    /// Steps of each but the last.
    pub length: usize,
    /// Tiles of the output.
    tiles: usize,
}

impl Plan {
    /// A cube a tile and split.
    pub fn cubes(&self) -> usize {
        self.tiles * self.splits
    }

    /// Estimated clocks: of the multiprocessor with the most cubes, those that it has room for at a time, and of adding
    /// the splits up.
    pub fn time(&self, multiprocessors: usize, outputs: usize) -> usize {
        let (busiest, most) = (self.cubes().div_ceil(multiprocessors), self.cube.together);
        let latency = LATENCY / self.cube.ahead();
        let step = |cubes: usize| match cubes {
            0 => 0,
            // What deep steps take is told of cubes alone.
            1 if self.cube.deep.is_some() => self.cube.step(),
            1 => (self.cube.step() + self.cube.step() / ALONE).max(latency),
            _ => (cubes * self.cube.step()).max(latency),
        };
        let (ends, launch) = if self.cube.deep.is_some() { (ENDS, LONG_LAUNCH) } else { (0, LAUNCH) };
        let products = self.length * (busiest / most * step(most) + step(busiest % most)) + busiest * ends;
        let bytes = 2 * self.splits * outputs * size_of::<f32>();
        products + if self.splits == 1 { 0 } else { launch + bytes / (BYTES * multiprocessors) }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        CubeForm, DEEP, DEEP_TILES, DEPTH, Depth, FORMS, GROUPS, Plan, SIDE, STEPS, TILES, TileForm, Work,
    };

    fn form(planes: [usize; 2], [rows, columns]: [usize; 2]) -> CubeForm {
        let tile = TileForm { rows, columns, units: 32, native: Some(SIDE) };
        let (depth, deep, copies, group) = (DEPTH, None, false, false);
        CubeForm { planes, tile, depth, deep, buffers: 2, together: 1, copies, group }
    }

    fn work() -> Work {
        let tiles = TILES.map(|(planes, tile)| {
            let form = form(planes, tile);
            Some(CubeForm { together: form.most(), ..form })
        });
        let mut forms = [None; FORMS];
        forms[..TILES.len()].copy_from_slice(&tiles);
        Work { forms, form: None, splits: None, packs: true }
    }

    fn depth(steps: usize) -> Depth {
        Depth { taps: 1, channels: steps * DEPTH }
    }

    fn plan(sides: [usize; 2], steps: usize) -> ([usize; 2], Plan) {
        let plan = work().among(132, sides, depth(steps), |_| true);
        ([plan.cube.rows(), plan.cube.columns()], plan)
    }

    #[test]
    fn plans_fill_the_device_and_no_more() {
        // Much of everything: the largest tiles, the depth in one.
        let (tile, large) = plan([1 << 18, 128], 9 * 4);
        assert_eq!((tile, large.splits, large.length, large.cubes()), ([128, 128], 1, 36, 2048));
        // Channels of Stable Diffusion's: tiles that divide them.
        assert_eq!(plan([2 * 64 * 64, 320], 9 * 10).0, [128, 160]);
        // 1280 channels to 1280 at 8x8, twice: eight tiles, in as many splits as fill nearly every multiprocessor.
        let (tile, few) = plan([128, 1280], 9 * 40);
        assert_eq!((tile, few.cubes() >= 120, few.cubes() <= 2 * 132), ([128, 160], true, true));
        assert!(few.length * few.splits >= 360 && few.length * (few.splits - 1) < 360);
        // One small tile: no split of fewer steps than are worth it.
        let (tile, one) = plan([16, 4], 9 * 40);
        assert_eq!(tile, [64, 64]);
        assert!(one.length >= STEPS && one.splits > 8);
        // A depth too short to divide.
        assert_eq!(plan([16, 4], STEPS + 1).1.splits, 1);
    }

    /// The fastest ways on an H200 by Vulkan, of Stable Diffusion's layers (all within 7 % of it, 0.7 % all together).
    #[test]
    fn cubes_that_do_not_overlap_are_split_less() {
        let mut work = work();
        for form in work.forms.iter_mut().flatten() {
            form.together = 1;
        }
        for (sides, steps, splits) in [
            ([2 * 64 * 64, 320], 9 * 30, 1),
            ([2 * 32 * 32, 640], 9 * 20, 2),
            ([2 * 16 * 16, 1280], 9 * 80, 4),
            ([2 * 8 * 8, 1280], 9 * 80, 16),
            ([2 * 64 * 64, 2560], 10, 1),
            ([2 * 32 * 32, 640], 80, 2),
        ] {
            let plan = work.among(128, sides, depth(steps), |_| true);
            let tile = [plan.cube.rows(), plan.cube.columns()];
            assert_eq!((tile, plan.splits), ([128, 160], splits), "{sides:?} {steps}");
        }
    }

    #[test]
    fn groups_go_first() {
        let (down, columns) = GROUPS[0];
        let mut work = work();
        let form = form([down, 1], [1, columns]);
        work.forms[TILES.len()] =
            Some(CubeForm { buffers: 3, together: 2, copies: true, group: true, ..form });
        for group in [true, false] {
            let plan = work.among(132, [128, 64], depth(360), |form| group || !form.group);
            assert_eq!(plan.cube.group, group);
        }
    }

    /// Stable Diffusion's layers on a device of an H200's size.
    #[test]
    fn deep_steps_go_first() {
        let mut work = work();
        for (at, (planes, tile, clocks)) in DEEP_TILES.into_iter().enumerate() {
            let form = CubeForm { depth: DEEP, deep: Some(clocks), buffers: 1, ..form(planes, tile) };
            assert_eq!(form.units(), 32 * form.planes());
            // Where operands lay is room for two blocks of a plane's row of sums, beside a gap.
            assert_eq!(form.blocks_out(form.columns() * (DEEP + 8)), 2);
            work.forms[TILES.len() + at] = Some(form);
        }
        for (sides, depth, tile, splits) in [
            ([2 * 64 * 64, 320], Depth { taps: 9, channels: 320 }, [128, 160], 1),
            ([2 * 16 * 16, 1280], Depth { taps: 9, channels: 1280 }, [128, 160], 4),
            ([2 * 8 * 8, 1280], Depth { taps: 9, channels: 1280 }, [128, 128], 12),
            ([2 * 64 * 64, 320], Depth { taps: 1, channels: 320 }, [128, 160], 1),
        ] {
            let plan = work.among(128, sides, depth, |_| true);
            let found = [plan.cube.rows(), plan.cube.columns()];
            assert_eq!((plan.cube.depth, found, plan.splits), (DEEP, tile, splits), "{sides:?} {depth:?}");
            // No split of fewer elements than of shallow steps.
            assert!(plan.splits == 1 || plan.length * DEEP >= STEPS * DEPTH);
            // Operands that are not packed.
            let plan = work.among(128, sides, depth, |form| form.deep.is_none());
            assert_eq!(plan.cube.depth, DEPTH);
        }
    }

    #[test]
    fn plans_are_as_told() {
        for form in 0..TILES.len() {
            let told =
                Work { form: Some(form), splits: Some(4), ..work() }.among(132, [16, 4], depth(9), |_| true);
            // The last shorter, and never more than steps.
            assert_eq!((told.cube, told.splits, told.length), (work().forms[form].unwrap(), 3, 3));
        }
        assert_eq!(Work { splits: Some(100), ..work() }.among(132, [16, 4], depth(2), |_| true).splits, 2);
    }
}
