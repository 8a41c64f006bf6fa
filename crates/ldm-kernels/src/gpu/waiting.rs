//! Vectors on their way from memory, in registers.

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

/// The most numbers of a vector in SPIR-V. Pairs of halves that are moved as one number make twice as many elements of one.
pub const NUMBERS: usize = 4;

/// A unit's vectors, of which some aren't there: those are zeros.
///
/// Where compilers leave a branch around each read, a unit waits for one after the other. Without `branches` all are read, those that
/// aren't there elsewhere, and become zeros when they are taken. CUDA's compiler makes predicates of the branches. Where `all` are
/// there nobody asks.
#[derive(CubeType)]
pub struct Waiting<P: Numeric, N: Size> {
    vectors: Array<Vector<P, N>>,
    there: Array<bool>,
    #[cube(comptime)]
    branches: bool,
    #[cube(comptime)]
    all: bool,
}

#[cube]
impl<P: Numeric, N: Size> Waiting<P, N> {
    /// Room for so many.
    pub fn new(#[comptime] count: usize, #[comptime] branches: bool, #[comptime] all: bool) -> Waiting<P, N> {
        Waiting::<P, N> { vectors: Array::new(count), there: Array::new(count), branches, all }
    }

    /// Asks for one: that at a place of memory, which has to be one also if it isn't there.
    pub fn ask(&mut self, which: usize, from: &[Vector<P, N>], at: usize, there: bool) {
        if comptime![self.all] {
            self.vectors[which] = from[at];
        } else if comptime![self.branches] {
            self.vectors[which] = Vector::<P, N>::new(P::from_int(0));
            if there {
                self.vectors[which] = from[at];
            }
        } else {
            self.vectors[which] = from[at];
            self.there[which] = there;
        }
    }

    /// Waits for one.
    pub fn take(&self, which: usize) -> Vector<P, N> {
        if comptime![self.branches || self.all] {
            self.vectors[which]
        } else {
            select(self.there[which], self.vectors[which], Vector::<P, N>::new(P::from_int(0)))
        }
    }
}
