//! How much of the work a cube takes at a time.

use burn_cubecl::cubecl::ir::HardwareProperties;

use super::super::fours::COUNT;
use super::super::fragments::{BOARD, UNITS};
use super::super::plane_tile::{SIDE, TileForm};
use super::super::processors::processors;
use super::super::waiting::Missing;

/// The widest head: beyond it the sums don't fit a plane's registers.
pub const WIDEST: usize = 160;

/// Registers of a unit that may wait for the next lines; more would push the sums out.
const AHEAD: usize = 64;

/// Registers of a unit that sums, rows and scores may take: others are needed beside them.
const HELD: usize = 200;

/// Shared memory that has room for two cubes' rows and lines.
const LARGE: usize = 96 << 10;

/// Planes of a cube that has all rows by itself.
const TALLEST: usize = 6;

/// Planes of a cube that has a multiprocessor to itself.
const MANY: usize = 8;

/// Blocks of lines, and sums and scores of a unit, beyond which nobody needs to try.
const MOST: usize = 8;
const SUMS: usize = 160;

/// One of the three kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// The output: a cube has queries and walks the keys.
    Forward,
    /// The queries' gradient: likewise.
    Queries,
    /// The keys' and values' gradients: a cube has keys and walks the queries.
    Keys,
}

/// The sizes of the tensors.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Heads of the whole batch.
    pub heads: usize,
    /// Queries.
    pub n: usize,
    /// Keys.
    pub m: usize,
    /// Elements of a head's row.
    pub d: usize,
    /// Bytes of an element.
    pub size: usize,
}

/// How a plane multiplies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Products {
    /// Of blocks whose values no unit knows: [`plane_tile`](super::super::plane_tile).
    Tiles,
    /// Of such blocks too, but each value can be changed where it is, and a block become an operand:
    /// [`elements`](super::elements). The output's alone; gradients are by tiles.
    Elements,
    /// Of blocks whose values the units know: [`fragments`](super::super::fragments).
    Fragments,
}

/// Who multiplies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Units {
    /// Of what.
    pub products: Products,
    /// Side of what matrix units multiply; `None` where they are emulated, which is slow: for tests.
    pub native: Option<usize>,
}

impl Units {
    /// Whether matrix units multiply.
    pub fn hardware(self) -> bool {
        self.native.is_some()
    }
}

/// Rows that a cube keeps, which its planes share out, and lines that it walks. Known when a kernel is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Plan {
    /// Planes of a cube.
    pub planes: usize,
    /// Units of a plane.
    pub units: usize,
    /// Blocks of 16 rows that a plane keeps.
    pub blocks: usize,
    /// Blocks of 16 lines that are walked at a time.
    pub columns: usize,
    /// Whether those are all.
    pub once: bool,
    /// Whether there are so many each time, the last included.
    pub whole: bool,
    /// By fragments, whether a plane's rows stay in its registers.
    pub held: bool,
    /// Blocks of 16 elements of a row.
    pub depth: usize,
    /// Elements of a row, in eights.
    pub eights: usize,
    /// Bytes of an element.
    pub size: usize,
    /// Who multiplies.
    pub by: Units,
    /// Whether the kernel may use [`ptx`](super::super::ptx).
    pub ptx: bool,
    /// Elements that are moved as one number: halves, two by two, where a device's vectors have four numbers at most.
    pub packed: usize,
}

/// A tile in shared memory, as a cube fills it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lines {
    /// Rows.
    pub count: usize,
    /// Elements of a row, with those that are there to fill the last block.
    pub width: usize,
    /// Elements from a row to the next.
    pub stride: usize,
    /// Units of the cube.
    pub units: usize,
    /// Whether a unit's share is written out, so that it is in registers; elsewhere it would only be long.
    pub unrolled: bool,
    /// Elements that are moved as one number.
    pub packed: usize,
    /// Whether reads of what isn't there stand in branches.
    pub branches: bool,
}

impl Plan {
    /// For these sizes on this device; `None` where nothing fits its shared memory.
    pub fn new(properties: &HardwareProperties, sizes: Sizes, pass: Pass, by: Units) -> Option<Self> {
        let Sizes { heads, n, m, d, size } = sizes;
        let (rows, lines) = if pass == Pass::Keys { (m, n) } else { (n, m) };
        let depth = d.div_ceil(SIDE);
        // Two blocks of rows read each line once for both, as long as their sums fit a unit's 255 registers.
        let deepest = match (by.products, pass) {
            (Products::Tiles, Pass::Keys) | (Products::Fragments, Pass::Forward | Pass::Queries) => 5,
            (Products::Elements, _) => 5,
            (Products::Tiles, _) => 8,
            (Products::Fragments, Pass::Keys) => 3,
        };
        let blocks = if depth <= deepest && rows > SIDE { 2 } else { 1 };
        // All lines at once where there are few, as with a prompt's 77.
        let few = lines.div_ceil(SIDE);
        let shallow = match by.products {
            Products::Tiles => 5,
            Products::Fragments => 4,
            // One block of rows leaves registers for the scores of four.
            Products::Elements => {
                if blocks == 1 {
                    WIDEST / SIDE
                } else {
                    4
                }
            }
        };
        // Sixteen where shared memory is short, which is on Vulkan: an H200 took 700 us there for what takes 896 with 64 keys at a time.
        let short = by.products == Products::Tiles && properties.max_shared_memory_size < LARGE;
        let columns = match pass {
            Pass::Forward if short => 1,
            Pass::Forward if depth <= shallow => few.min(if few <= 5 { 5 } else { 4 }),
            _ => few.min(2),
        };
        // Emulated, those of most GPUs, so that the indices are the same.
        let units = if by.hardware() { properties.plane_size_max as usize } else { UNITS };
        // Emulated fragments are long: a shader compiler would take minutes for more of them.
        let long = by.products == Products::Fragments && !by.hardware();
        let (blocks, columns) = if long { (1, 1) } else { (blocks, columns) };
        let eights = d.div_ceil(8);
        let (once, whole, held, ptx, packed) = (false, false, false, false, 1);
        let first = Self {
            planes: 4,
            units,
            blocks,
            columns,
            once,
            whole,
            held,
            depth,
            eights,
            size,
            by,
            ptx,
            packed,
        };
        // Smaller cubes where there would be less than three for two multiprocessors, but with planes enough to bring the lines: one
        // plane by itself takes longer for that than all the rest.
        let processors = processors(properties);
        let cubes = |plan: &Self| heads * rows.div_ceil(plan.rows());
        let limit = properties.max_shared_memory_size;
        // A multiprocessor with much memory is to hold two cubes: one computes while the other waits for its lines. CUDA
        // keeps a kibibyte of each.
        let half = if limit >= LARGE { limit / 2 - 1024 } else { limit };
        // Planes and blocks of each, the most rows first. By tiles a unit has a row's softmax: with 16 rows half of them have none.
        // By elements, which short memory has room for one cube of at a time, eight planes of 16 rows hide each other's waits.
        let divisions = match by.products {
            Products::Elements => [(MANY, 1), (4, blocks), (2, blocks), (4, 1), (1, blocks), (2, 1), (1, 1)],
            Products::Tiles => [(4, blocks), (2, blocks), (4, 1), (1, blocks), (2, 1), (1, 1), (1, 1)],
            Products::Fragments => [(4, blocks), (4, 1), (2, blocks), (2, 1), (1, blocks), (1, 1), (1, 1)],
        };
        // A prompt's keys fit one cube, which shares their lines' way out of memory among its planes, and the queries among cubes.
        let alone = rows.div_ceil(blocks * SIDE);
        let alone = (pass == Pass::Keys && by.products == Products::Fragments && alone <= TALLEST)
            .then_some((alone, blocks));
        let candidates = [2, 1].into_iter().flat_map(move |least| {
            alone.into_iter().chain(divisions).flat_map(move |(planes, blocks)| {
                // Many planes have registers for as many lines as memory has room for: they meet less often. Rather fewer, if
                // there are so many each time.
                let mut widths = if planes == MANY { [8, 6, 5, 4, 3] } else { [columns; 5] };
                widths.sort_by_key(|columns| !lines.is_multiple_of(columns * SIDE));
                let widths = widths.into_iter().chain([least]);
                widths.map(move |columns| Self { planes, blocks, columns: columns.min(few), ..first })
            })
        });
        let fits = |plan: &Self, limit: usize| {
            let small = match pass {
                Pass::Keys => plan.planes == 1 || Some((plan.planes, plan.blocks)) == alone,
                Pass::Forward | Pass::Queries => plan.rows() <= 4 * SIDE,
            };
            // One of many planes each is enough.
            let enough = if plan.planes == MANY {
                10 * cubes(plan) >= 9 * processors
            } else {
                2 * cubes(plan) >= 3 * processors
            };
            let busy = small || enough;
            busy && plan.planes * plan.units <= properties.max_units_per_cube as usize
                && plan.bytes(pass) <= limit
        };
        let found =
            [half, limit].into_iter().find_map(|limit| candidates.clone().find(|plan| fits(plan, limit)));
        found.map(|plan| {
            let whole = lines.is_multiple_of(plan.lines());
            Self { once: plan.columns >= few, whole, held: plan.holds(pass), ..plan }
        })
    }

    /// What else could be done for so many keys, this among it: for benches.
    pub fn others(self, properties: &HardwareProperties, keys: usize) -> impl Iterator<Item = Self> {
        let few = keys.div_ceil(SIDE);
        let (units, memory) = (properties.max_units_per_cube as usize, properties.max_shared_memory_size);
        let each = [1, 2, 4, 8].into_iter().flat_map(|planes| [1, 2].map(|blocks| (planes, blocks)));
        let plans = each.flat_map(move |(planes, blocks)| {
            (1..=few.min(MOST)).map(move |columns| Self {
                planes,
                blocks,
                columns,
                once: columns >= few,
                whole: keys.is_multiple_of(columns * SIDE),
                ..self
            })
        });
        plans.filter(move |plan| {
            // Sums and scores of a unit.
            let rows = if plan.holds_rows() { 4 * plan.depth } else { 0 };
            let registers = plan.blocks * (4 * plan.eights + 8 * plan.columns + rows);
            registers <= SUMS && plan.planes * plan.units <= units && plan.bytes(Pass::Forward) <= memory
        })
    }

    /// In how many shares the queries are walked for the keys' gradients: as many as keep the device busy where the keys
    /// are few, each of at least eight tiles.
    pub fn shares(&self, properties: &HardwareProperties, sizes: Sizes) -> usize {
        let cubes = sizes.heads * sizes.m.div_ceil(self.rows());
        let most = sizes.n / (8 * self.lines());
        (3 * processors(properties)).div_ceil(2 * cubes).min(most).max(1)
    }

    /// Rows of a plane.
    pub fn plane_rows(&self) -> usize {
        self.blocks * SIDE
    }

    /// Rows of a cube.
    pub fn rows(&self) -> usize {
        self.planes * self.plane_rows()
    }

    /// How often a unit takes a row of its plane's.
    pub fn turns(&self) -> usize {
        self.plane_rows().div_ceil(self.units)
    }

    /// Blocks of lines of which gradients by fragments have products at a time.
    pub fn step(&self) -> usize {
        if self.held { 1 } else { self.columns }
    }

    /// Lines walked at a time.
    pub fn lines(&self) -> usize {
        self.columns * SIDE
    }

    /// The cube's rows in shared memory.
    pub fn kept(&self) -> Lines {
        self.tile(self.rows())
    }

    /// The lines that are walked, in shared memory.
    pub fn walked(&self) -> Lines {
        self.tile(self.lines())
    }

    fn tile(&self, count: usize) -> Lines {
        Lines {
            count,
            width: self.depth * SIDE,
            stride: self.stride(),
            units: self.planes * self.units,
            unrolled: self.by.hardware(),
            packed: self.packed,
            branches: self.ptx,
        }
    }

    /// Elements from a row or a line to the next. 16 bytes more than it is long: eight rows of a block then start in
    /// different banks.
    pub fn stride(&self) -> usize {
        self.depth * SIDE + 16 / self.size
    }

    /// Elements from a row of weights to the next.
    pub fn weight_stride(&self) -> usize {
        self.lines() + 16 / self.size
    }

    /// Elements from a row of scores, which are f32, to the next; of those that lie in shared memory at a time.
    pub fn score_stride(&self) -> usize {
        let lines = if self.by.products == Products::Elements { SIDE } else { self.lines() };
        lines + 4
    }

    /// Fours of the weights in shared memory; as few as can be where they stay in registers.
    pub fn weights(&self) -> usize {
        match self.by.products {
            Products::Elements if self.by.hardware() => 1,
            _ => self.rows() * self.weight_stride() / COUNT,
        }
    }

    /// Votes in shared memory: a plane's, where all of a cube follow a score together, or an emulated unit's. Other planes' units ask
    /// each other.
    pub fn votes(&self) -> usize {
        match self.by.native {
            Some(SIDE) => 0,
            Some(_) => self.planes,
            None => self.planes * self.units,
        }
    }

    /// References in shared memory.
    pub fn offsets(&self) -> usize {
        if self.by.products == Products::Elements { self.rows() } else { 1 }
    }

    /// Whether the plane's rows stay in the matrix units' registers.
    pub fn holds_rows(&self) -> bool {
        self.by.products == Products::Elements && self.by.hardware()
    }

    /// Those.
    pub fn row_blocks(&self) -> TileForm {
        TileForm { columns: self.depth, ..self.scores() }
    }

    /// Vectors of so many elements of the forward pass' shared memory for rows, as few as can be where planes hold them, and for keys,
    /// where they lie before.
    pub fn kept_and_keys(&self, vector: usize) -> [usize; 2] {
        let [kept, walked] = [self.kept(), self.walked()].map(|lines| lines.vectors(vector));
        if self.holds_rows() { [1, walked.max(kept)] } else { [kept, walked] }
    }

    /// A plane's scores.
    pub fn scores(&self) -> TileForm {
        TileForm { rows: self.blocks, columns: self.columns, units: self.units, native: self.by.native }
    }

    /// Of how many tiles a plane's sums are: none is wider than the scores, in whose place they leave the registers.
    pub fn parts(&self) -> usize {
        self.depth.div_ceil(self.part_columns())
    }

    /// One of them.
    pub fn part(&self, part: usize) -> TileForm {
        let columns = self.part_columns().min(self.depth - part * self.part_columns());
        TileForm { columns, ..self.scores() }
    }

    /// Where it begins.
    pub fn part_start(&self, part: usize) -> usize {
        part * self.part_columns() * SIDE
    }

    /// Blocks across, but for the last.
    fn part_columns(&self) -> usize {
        if self.by.products == Products::Elements { 1 } else { self.columns }
    }

    /// A block's width of all rows, each of which has one value.
    pub fn column(&self) -> TileForm {
        TileForm { columns: 1, ..self.scores() }
    }

    /// Whether lines wait in registers, in vectors of so many elements: the first for the rows, the next while these are computed with.
    pub fn ahead(&self, vector: usize) -> bool {
        let registers = (vector * self.size).div_ceil(4);
        2 * self.walked().share(vector) * registers <= AHEAD
    }

    /// By fragments, whether a unit has registers for the plane's rows beside sums, scores and weights.
    fn holds(&self, pass: Pass) -> bool {
        let eights = match pass {
            Pass::Forward => return true,
            Pass::Queries => self.eights,
            Pass::Keys => 2 * self.eights,
        };
        // Of sixteen lines at a time: scores, products, weights and these as operands.
        self.blocks * 4 * (eights + 2 * self.depth + 8) <= HELD
    }

    /// Shared memory of a cube.
    fn bytes(&self, pass: Pass) -> usize {
        // By fragments gradients have two tiles of each of the lines.
        let (kept, walked) = match (pass, self.by.products) {
            (Pass::Forward, _) => (1, 2),
            (_, Products::Tiles | Products::Elements) => (2, 2),
            (_, Products::Fragments) => (2, 4),
        };
        let lines = match pass {
            Pass::Forward if self.holds_rows() => self.lines() + self.lines().max(self.rows()),
            _ => kept * self.rows() + walked * self.lines(),
        };
        let tiles = lines * self.stride() * self.size;
        let scores = match self.by.products {
            Products::Tiles | Products::Elements => {
                4 * (self.rows() * self.score_stride() + self.offsets()) + COUNT * self.size * self.weights()
            }
            Products::Fragments if self.by.hardware() => 0,
            Products::Fragments => self.planes * BOARD * size_of::<f32>(),
        };
        // A factor a row; the forward pass' votes, what the gradients know of a line.
        let others = if pass == Pass::Forward { self.votes() } else { walked * self.lines() };
        let rest = 4 * (self.rows() + others);
        tiles + scores + rest
    }
}

impl Lines {
    /// What becomes of vectors that aren't there.
    pub fn missing(&self) -> Missing {
        match self {
            Self { branches: true, .. } => Missing::Branches,
            Self { packed: 1, .. } => Missing::Selected,
            _ => Missing::Multiplied,
        }
    }

    /// Vectors of the tile in memory.
    pub fn vectors(&self, vector: usize) -> usize {
        self.count * self.stride / vector
    }

    /// Of a row, in vectors of so many numbers.
    pub fn across(&self, numbers: usize) -> usize {
        self.width / (numbers * self.packed)
    }

    /// From a row to the next, in those.
    pub fn step(&self, numbers: usize) -> usize {
        self.stride / (numbers * self.packed)
    }

    /// Vectors of so many elements of it that a unit brings.
    pub fn share(&self, vector: usize) -> usize {
        (self.count * self.width / vector).div_ceil(self.units)
    }
}
