//! The 8x8 cosine transform and its inverse in integers (Loeffler, Ligtenberg and Moschytz 1989), with the precision and
//! the rounding of libjpeg's accurate one.

/// Fraction bits of the constants.
const BITS: u32 = 13;
/// Fraction bits kept between rows and columns.
const BETWEEN: u32 = 2;

const C0_298: i32 = 2446;
const C0_390: i32 = 3196;
const C0_541: i32 = 4433;
const C0_765: i32 = 6270;
const C0_899: i32 = 7373;
const C1_175: i32 = 9633;
const C1_501: i32 = 12299;
const C1_847: i32 = 15137;
const C1_961: i32 = 16069;
const C2_053: i32 = 16819;
const C2_562: i32 = 20995;
const C3_072: i32 = 25172;

/// Divides by `2^bits`, rounded.
fn descale(x: i32, bits: u32) -> i32 {
    (x + (1 << (bits - 1))) >> bits
}

/// The block's coefficients, times 8.
pub(super) fn forward(block: &mut [i32; 64]) {
    for row in 0..8 {
        forward_8(block, row * 8, 1, |sum| sum << BETWEEN, BITS - BETWEEN);
    }
    for column in 0..8 {
        forward_8(block, column, 8, |sum| descale(sum, BETWEEN), BITS + BETWEEN);
    }
}

fn forward_8(block: &mut [i32; 64], first: usize, step: usize, whole: impl Fn(i32) -> i32, bits: u32) {
    let x: [i32; 8] = std::array::from_fn(|i| block[first + i * step]);
    let sum = |i: usize| x[i] + x[7 - i];
    let difference = |i: usize| x[i] - x[7 - i];
    let (even, odd) = ([sum(0) + sum(3), sum(1) + sum(2)], [sum(0) - sum(3), sum(1) - sum(2)]);
    let mut put = |i: usize, v: i32| block[first + i * step] = v;
    put(0, whole(even[0] + even[1]));
    put(4, whole(even[0] - even[1]));
    let z = (odd[0] + odd[1]) * C0_541;
    put(2, descale(z + odd[0] * C0_765, bits));
    put(6, descale(z - odd[1] * C1_847, bits));

    let outputs = odd_part([difference(3), difference(2), difference(1), difference(0)]);
    for (i, v) in [7, 5, 3, 1].into_iter().zip(outputs) {
        put(i, descale(v, bits));
    }
}

/// The picture of coefficients that were multiplied by their steps.
pub(super) fn inverse(block: &mut [i32; 64]) {
    for column in 0..8 {
        inverse_8(block, column, 8, BITS - BETWEEN);
    }
    for row in 0..8 {
        inverse_8(block, row * 8, 1, BITS + BETWEEN + 3);
    }
}

fn inverse_8(block: &mut [i32; 64], first: usize, step: usize, bits: u32) {
    let x: [i32; 8] = std::array::from_fn(|i| block[first + i * step]);
    let z = (x[2] + x[6]) * C0_541;
    let (low, high) = (z - x[6] * C1_847, z + x[2] * C0_765);
    let (sum, difference) = ((x[0] + x[4]) << BITS, (x[0] - x[4]) << BITS);
    let even = [sum + high, difference + low, difference - low, sum - high];
    let odd = odd_part([x[7], x[5], x[3], x[1]]);
    for i in 0..4 {
        block[first + i * step] = descale(even[i] + odd[3 - i], bits);
        block[first + (7 - i) * step] = descale(even[i] - odd[3 - i], bits);
    }
}

/// The rotation of the odd half, which both directions share.
fn odd_part(t: [i32; 4]) -> [i32; 4] {
    let z1 = (t[0] + t[3]) * -C0_899;
    let z2 = (t[1] + t[2]) * -C2_562;
    let (z3, z4) = (t[0] + t[2], t[1] + t[3]);
    let z5 = (z3 + z4) * C1_175;
    let (z3, z4) = (z5 - z3 * C1_961, z5 - z4 * C0_390);
    [t[0] * C0_298 + z1 + z3, t[1] * C2_053 + z2 + z4, t[2] * C3_072 + z2 + z3, t[3] * C1_501 + z1 + z4]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inverse_undoes_the_transform() {
        let block: [i32; 64] = std::array::from_fn(|i| (i as i32 * 37 + i as i32 * i as i32) % 256 - 128);
        let mut there = block;
        forward(&mut there);
        // The mean is the first coefficient, times 8 by the transform and 8 by its length.
        let mean: i32 = block.iter().sum();
        assert_eq!(there[0], mean);
        let mut back = there.map(|v| descale(v, 3));
        inverse(&mut back);
        for (a, b) in back.into_iter().zip(block) {
            assert!((a - b).abs() <= 1, "{a} {b}");
        }
    }
}
