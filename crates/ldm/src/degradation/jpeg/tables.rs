/// ITU-T T.81, table K.1: brightness.
const LUMA: [i32; 64] = [
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17,
    22, 29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78,
    87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
];

/// ITU-T T.81, table K.2: colour, its first four rows and columns; all else is 99.
const CHROMA: [[i32; 4]; 4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]];

/// The steps of brightness and of colour at this quality, row by row.
pub(super) fn quantisation(quality: u8) -> [[i32; 64]; 2] {
    let quality = i32::from(quality.clamp(1, 100));
    let percent = if quality < 50 { 5000 / quality } else { 200 - 2 * quality };
    let scaled = |step: i32| ((step * percent + 50) / 100).clamp(1, 255);
    let chroma = |i: usize| CHROMA.get(i / 8).and_then(|row| row.get(i % 8)).copied().unwrap_or(99);
    [LUMA.map(scaled), std::array::from_fn(|i| scaled(chroma(i)))]
}
