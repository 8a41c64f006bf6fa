//! Vectors on their way from memory, in registers.

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

/// The most numbers of a vector in SPIR-V. Pairs of halves that are moved as one number make twice as many elements of one.
pub const NUMBERS: usize = 4;

/// What becomes of vectors that aren't there: they are zeros.
///
/// Where compilers leave a branch around each read, a unit waits for one after the other. Without, all are read, those that aren't
/// there elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Missing {
    /// They are not read. CUDA's compiler makes predicates of the branches.
    Branches,
    /// They become zeros when they are taken.
    Selected,
    /// Likewise, of numbers that stand for others' bits: by a factor, of which NVIDIA's Vulkan compiler keeps one, and four of what
    /// selects a vector.
    Multiplied,
    /// There are none.
    None,
}

/// A unit's vectors, of which some aren't there.
#[derive(CubeType)]
pub struct Waiting<P: Numeric, N: Size> {
    vectors: Array<Vector<P, N>>,
    /// 1 or 0.
    there: Array<u32>,
    #[cube(comptime)]
    missing: Missing,
}

#[cube]
impl<P: Numeric, N: Size> Waiting<P, N> {
    /// Room for so many.
    pub fn new(#[comptime] count: usize, #[comptime] missing: Missing) -> Waiting<P, N> {
        Waiting::<P, N> { vectors: Array::new(count), there: Array::new(count), missing }
    }

    /// Asks for one: that at a place of memory, which has to be one also if it isn't there.
    pub fn ask(&mut self, which: usize, from: &[Vector<P, N>], at: usize, there: bool) {
        if comptime![self.missing == Missing::Branches] {
            self.vectors[which] = Vector::<P, N>::new(P::from_int(0));
            if there {
                self.vectors[which] = from[at];
            }
        } else {
            self.read(which, from, at);
            self.note(which, there);
        }
    }

    /// [`ask`](Self::ask) in two parts, of which the second can stand outside a branch around the first: what both of its ways tell
    /// NVIDIA's Vulkan compiler is used in each of them, so before it is waited for.
    pub fn read(&mut self, which: usize, from: &[Vector<P, N>], at: usize) {
        self.vectors[which] = from[at];
    }

    /// Whether it is there.
    pub fn note(&mut self, which: usize, there: bool) {
        if comptime![self.missing != Missing::None] {
            self.there[which] = u32::cast_from(there);
        }
    }

    /// Waits for one.
    pub fn take(&self, which: usize) -> Vector<P, N> {
        let vector = self.vectors[which];
        match comptime![self.missing] {
            Missing::Branches | Missing::None => vector,
            Missing::Selected => select(self.there[which] > 0, vector, Vector::<P, N>::new(P::from_int(0))),
            Missing::Multiplied => vector * Vector::<P, N>::new(P::cast_from(self.there[which])),
        }
    }
}
