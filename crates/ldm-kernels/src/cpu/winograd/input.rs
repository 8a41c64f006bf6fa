//! Patches of the image, transformed into the columns of the 36 products.

use std::ops::Range;

use super::super::im2col::Geometry;
use super::super::panels::Panel;
use super::shuffle::{Row, Shuffle};
use super::transform::{Lane, both, copy, input};
use super::{LANES, PATCH, POINTS, SIDE, Strip, strips};

/// The pixels that a strip of tiles needs of one row.
const ROW: usize = LANES * SIDE + 2;

multiversion! {
    /// Fills a panel: rows `point * c_in + channel`, one column a tile.
    pub fn transform<S: Shuffle>(images: &[f32], c_in: usize, geometry: &Geometry, panel: &Panel, values: &mut [f32]) {
        let width = panel.width;
        let all = panel.first..panel.first + panel.columns;
        let groups = all.clone().step_by(LANES);
        // What lies outside the image or beyond the last tile does so for every channel: it stays zero.
        let mut groups: Vec<_> =
            groups.map(|first| (strips_of(geometry, first..all.end), [[0.0; LANES]; POINTS])).collect();
        for channel in 0..c_in {
            for (group, (strips, patch)) in groups.iter_mut().enumerate() {
                // SAFETY: this version runs where the machine has its instructions.
                unsafe { read::<S>(images, [channel, c_in], geometry, strips, patch) };
                let group = group * LANES;
                // A panel of fewer lanes than ours (another level) takes the first ones.
                let lanes = LANES.min(width - group);
                both(|y, x| patch[y * PATCH + x], input, |y, x, lane| {
                    let to = ((y * PATCH + x) * c_in + channel) * width + group;
                    copy::<LANES>(&mut values[to..][..lanes], &lane[..lanes]);
                });
            }
        }
    }
}

multiversion! {
    /// One channel (`at` is which, and of how many) of `tiles`: `to` is `[36, tiles]`.
    #[cfg(feature = "autodiff")]
    pub fn channel<S: Shuffle>(images: &[f32], at: [usize; 2], geometry: &Geometry, tiles: Range<usize>, to: &mut [f32]) {
        for first in tiles.clone().step_by(LANES) {
            let count = LANES.min(tiles.end - first);
            let strips = strips_of(geometry, first..tiles.end);
            let mut patch = [[0.0; LANES]; POINTS];
            // SAFETY: this version runs where the machine has its instructions.
            unsafe { read::<S>(images, at, geometry, &strips, &mut patch) };
            both(|y, x| patch[y * PATCH + x], input, |y, x, lane| {
                let to = &mut to[(y * PATCH + x) * tiles.len() + first - tiles.start..][..count];
                copy::<LANES>(to, &lane[..count]);
            });
        }
    }
}

/// The strips of the first [`LANES`] of these tiles.
fn strips_of(geometry: &Geometry, tiles: Range<usize>) -> Vec<Strip> {
    strips(geometry, tiles.start..tiles.end.min(tiles.start + LANES)).collect()
}

/// The patches of one channel.
///
/// # Safety
/// The machine must have the instructions of `S`.
#[inline(always)]
unsafe fn read<S: Shuffle>(
    images: &[f32],
    [channel, c_in]: [usize; 2],
    geometry: &Geometry,
    strips: &[Strip],
    patch: &mut [Lane; POINTS],
) {
    for strip in strips {
        let plane = (strip.image * c_in + channel) * geometry.plane();
        let plane = &images[plane..plane + geometry.plane()];
        for y in 0..PATCH {
            let Some(line) = line(plane, geometry, strip.row * SIDE + y) else { continue };
            let patch = &mut patch[y * PATCH..(y + 1) * PATCH];
            let x = strip.column * SIDE;
            if strip.len == LANES {
                // SAFETY: as the caller vouches.
                unsafe { whole::<S>(line, x, patch) };
            } else {
                part(line, x, strip, patch);
            }
        }
    }
}

/// The row above output `y`, if it is one of the image.
#[inline(always)]
fn line<'a>(plane: &'a [f32], geometry: &Geometry, y: usize) -> Option<&'a [f32]> {
    let [height, width] = geometry.input;
    let y = y.checked_sub(1).filter(|y| *y < height)?;
    Some(&plane[y * width..(y + 1) * width])
}

/// Gives all tiles of a full strip, whose outputs begin at `x`, their pixels of one row; zeros outside the image.
///
/// # Safety
/// The machine must have the instructions of `S`.
#[inline(always)]
unsafe fn whole<S: Shuffle>(line: &[f32], x: usize, patch: &mut [Lane]) {
    let (before, rest) = line.split_at(x);
    // SAFETY: as the caller vouches.
    let columns = match rest.first_chunk() {
        Some(row) => unsafe { S::split(row) },
        None => {
            let mut row: Row = [0.0; LANES * SIDE];
            row[..rest.len()].copy_from_slice(rest);
            unsafe { S::split(&row) }
        }
    };
    let before = before.last().copied().unwrap_or(0.0);
    let after = rest.get(LANES * SIDE).copied().unwrap_or(0.0);
    // A patch begins a pixel before its tile and ends one after it: with the neighbours' pixels.
    let (first, last) = (columns[0], columns[SIDE - 1]);
    for tile in 0..LANES {
        patch[0][tile] = if tile == 0 { before } else { last[tile - 1] };
        patch[PATCH - 1][tile] = if tile + 1 == LANES { after } else { first[tile + 1] };
    }
    patch[1..].iter_mut().zip(columns).for_each(|(to, column)| *to = column);
}

/// The same for a strip of fewer tiles, from its lane on.
#[inline(always)]
fn part(line: &[f32], x: usize, strip: &Strip, patch: &mut [Lane]) {
    let mut row = [0.0; ROW];
    let (begin, end) = (x.saturating_sub(1), (x + strip.len * SIDE + 1).min(line.len()));
    row[begin + 1 - x..end + 1 - x].copy_from_slice(&line[begin..end]);
    for i in 0..strip.len {
        for x in 0..PATCH {
            patch[x][strip.lane + i] = row[i * SIDE + x];
        }
    }
}
