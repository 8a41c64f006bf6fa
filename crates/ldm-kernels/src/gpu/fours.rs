//! f32 in shared memory, four at a time.
//!
//! Units that each read a row, one element after the other, meet in the same banks or have to start apart, and ask four times as
//! often. Four at a time, eight units are served at once; their rows are to begin four elements, or an odd multiple of that, apart.

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

/// How many.
pub const COUNT: usize = 4;

/// Of a vector.
pub type Four = Const<COUNT>;

/// Elements from a place on, which is a multiple of their number; of other numbers, which have their bits.
#[cube]
pub fn neighbours<S: Numeric, N: Size, Y: Size>(from: &[Vector<S, N>], at: usize) -> Vector<f32, Y> {
    let n = Y::value();
    let mut v = Vector::<f32, Y>::new(0.0f32);
    if comptime![n.is_multiple_of(COUNT)] {
        #[unroll]
        for k in 0..comptime![n / COUNT] {
            let four = from[at / COUNT + k];
            #[unroll]
            for i in 0..COUNT {
                v.insert(comptime![COUNT * k + i], f32::reinterpret(four.extract(i)));
            }
        }
    } else {
        #[unroll]
        for k in 0..n {
            v.insert(k, f32::reinterpret(from[(at + k) / COUNT].extract_dynamic((at + k) % COUNT)));
        }
    }
    v
}
