//! One convolution, shared out between the threads.

use std::ops::Range;

use rayon::prelude::*;

use super::super::convolution::Added;
use super::super::im2col::Geometry;
use super::super::panels::{Panel, Panels};
use super::super::product::{Bias, Block, Rows, Target, multiply_block};
use super::super::scratch::Scratch;
use super::super::simd::Level;
use super::super::tile::ROWS;
use super::output::{Pixels, Products};
use super::{CHANNELS, LANES, POINTS, input, output, weight};

/// Most tiles in a task: three registers of the widest kind.
const TILES: usize = 48;
/// Most values of transformed input in a task, which reads them again for every few channels (2.4 MB).
const VALUES: usize = 600_000;
/// Most values of transformed input at a time where all threads read the same (24 MiB).
const SHARED: usize = 6 << 20;

/// Either way of sharing it out gives the same bits.
pub struct Layer<'a> {
    pub level: Level,
    pub input: &'a [f32],
    pub weight: &'a [f32],
    pub added: Added<'a>,
    pub output: Target<'a>,
    pub c_in: usize,
    pub c_out: usize,
    pub geometry: &'a Geometry,
    /// Tiles of all images.
    pub tiles: usize,
}

impl Layer<'_> {
    /// Tiles in a task of [`by_tiles`](Self::by_tiles).
    pub fn width(&self) -> usize {
        (VALUES / (POINTS * self.c_in) / LANES * LANES).clamp(LANES, TILES)
    }

    /// A thread takes a few tiles from input to output: what it makes on the way stays in its cache, and of the weights,
    /// transformed before, it reads all.
    pub fn by_tiles(&self) {
        let mut weights = Scratch::take(POINTS * self.c_out.next_multiple_of(ROWS) * self.c_in);
        let blocks = weights.par_chunks_mut(POINTS * CHANNELS * self.c_in);
        blocks.zip(self.weight.par_chunks(CHANNELS * self.c_in * 9)).for_each(|(to, weight)| {
            weight::transform(weight, self.c_in, to);
        });
        let width = self.width();
        (0..self.tiles.div_ceil(width)).into_par_iter().for_each(|task| {
            let tiles = task * width..((task + 1) * width).min(self.tiles);
            let mut patches = Panels::new(self.level, POINTS * self.c_in, [tiles.clone()]);
            patches.fill_here(|panel, values| self.patches(panel, values));
            let mut products = Scratch::take(POINTS * CHANNELS * tiles.len());
            for (block, weights) in weights.chunks(POINTS * CHANNELS * self.c_in).enumerate() {
                // SAFETY: these tiles are this task's own.
                unsafe { self.finish(self.channels(block), tiles.clone(), weights, &patches, &mut products) };
            }
        });
    }

    /// A thread takes a few output channels, transforms their weights and keeps them in its cache; all tiles' input is
    /// transformed before.
    pub fn by_channels(&self) {
        let most = (SHARED / (POINTS * self.c_in)).max(LANES);
        let step = self.tiles.div_ceil(self.tiles.div_ceil(most));
        for start in (0..self.tiles).step_by(step) {
            let tiles = start..(start + step).min(self.tiles);
            let mut patches = Panels::new(self.level, POINTS * self.c_in, [tiles.clone()]);
            patches.fill_whole(|panel, values| self.patches(panel, values));
            (0..self.c_out.div_ceil(CHANNELS)).into_par_iter().for_each(|block| {
                let channels = self.channels(block);
                let (count, c_in) = (channels.len(), self.c_in);
                let own = POINTS * count.next_multiple_of(ROWS) * c_in;
                let mut scratch = Scratch::take(own + POINTS * count * tiles.len());
                let (weights, products) = scratch.split_at_mut(own);
                weight::transform(
                    &self.weight[channels.start * 9 * c_in..channels.end * 9 * c_in],
                    c_in,
                    weights,
                );
                // SAFETY: these channels are this task's own.
                unsafe { self.finish(channels, tiles.clone(), weights, &patches, products) };
            });
        }
    }

    /// The transformed input of a panel's tiles.
    fn patches(&self, panel: &Panel, values: &mut [f32]) {
        input::transform(self.input, self.c_in, self.geometry, panel, values);
    }

    /// The output channels of a block.
    fn channels(&self, block: usize) -> Range<usize> {
        block * CHANNELS..((block + 1) * CHANNELS).min(self.c_out)
    }

    /// Products and output of `channels` and `tiles`, from their weights and patches; the products need `36 x channels x
    /// tiles` values of room.
    ///
    /// # Safety
    /// Nothing else may use these outputs meanwhile.
    unsafe fn finish(
        &self,
        channels: Range<usize>,
        tiles: Range<usize>,
        weights: &[f32],
        patches: &Panels,
        products: &mut [f32],
    ) {
        let (c_in, count, width) = (self.c_in, channels.len(), tiles.len());
        let rows = count.next_multiple_of(ROWS);
        for (point, products) in products.chunks_exact_mut(count * width).enumerate().take(POINTS) {
            let weights = Rows { data: &weights[point * rows * c_in..], count, stride: c_in, tiles: true };
            let depth = point * c_in..(point + 1) * c_in;
            let block = Block { rows: 0..count, panels: 0..patches.panels.len(), depth };
            let target = Target::new(products, width, 1);
            let start = |panel: &Panel| panel.first - tiles.start;
            // SAFETY: the products are the caller's own.
            unsafe { multiply_block(weights, patches, block, Bias::None, &target, &start) };
        }
        for (i, channel) in channels.enumerate() {
            let products = Products { values: &products[i * width..], stride: count * width };
            let bias = self.added.bias.map_or(0.0, |bias| bias[channel]);
            // SAFETY: as the caller vouches.
            let pixels =
                unsafe { Pixels::new(&self.output, self.added.addend, [channel, self.c_out], self.geometry) };
            output::transform(products, bias, &pixels, tiles.clone());
        }
    }
}
