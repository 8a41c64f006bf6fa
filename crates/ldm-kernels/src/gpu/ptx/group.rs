//! The text of a product by a group of planes.

use std::fmt::Write;

use super::{BLOCK, DEPTH};

/// Depth of an instruction.
const STEP: usize = 16;
/// Bytes of an element.
const SIZE: usize = 2;
/// Descriptors count distances in 16 bytes.
const UNIT: usize = 16;

/// How an operand lies, as instructions are told.
struct Layout {
    /// What a matrix descriptor says beside where the matrix begins.
    descriptor: u64,
    /// From an instruction's part to the next, in units.
    step: usize,
}

/// Of an operand in rows of its depth, or `across`, as [`group_product`](super::group_product) describes both.
fn layout(across: bool) -> Layout {
    // Rows of 128 bytes, or of 64; from eight of them to the next, and from 64 columns across to the next, which means
    // nothing in rows of the depth. Pieces change places within a row.
    let (row, beside, places) =
        if across { (BLOCK * SIZE, BLOCK * DEPTH * SIZE / UNIT, 1) } else { (DEPTH * SIZE, 1, 2) };
    Layout {
        descriptor: places << 62 | (8 * row as u64 / UNIT as u64) << 32 | (beside as u64) << 16,
        step: if across { STEP * row } else { STEP * SIZE } / UNIT,
    }
}

/// Adds to so many sums of a unit; their registers come first, twice, then the addresses of both operands.
pub fn product(registers: usize, element: &str, across: [bool; 2]) -> String {
    let columns = 2 * registers;
    let sums: Vec<String> = (0..registers).map(|i| format!("${i}")).collect();
    let sums = sums.join(", ");
    let mut text = String::from("{\n.reg .b64 a, b;\n.reg .pred p;\n");
    let layouts = across.map(layout);
    for (i, name) in ["a", "b"].into_iter().enumerate() {
        let _ = writeln!(text, "and.b64 {name}, ${}, 0x3FFFF;", 2 * registers + i);
        let _ = writeln!(text, "shr.u64 {name}, {name}, 4;");
        let _ = writeln!(text, "or.b64 {name}, {name}, {:#x};", layouts[i].descriptor);
    }
    text.push_str("setp.le.u64 p, a, a;\nwgmma.fence.sync.aligned;\n");
    let [turned_a, turned_b] = across.map(u8::from);
    for step in 0..DEPTH / STEP {
        if step > 0 {
            let [a, b] = layouts.each_ref().map(|layout| layout.step);
            let _ = writeln!(text, "add.u64 a, a, {a};\nadd.u64 b, b, {b};");
        }
        let _ = writeln!(
            text,
            "wgmma.mma_async.sync.aligned.m64n{columns}k{STEP}.f32.{element}.{element} {{{sums}}}, a, b, p, 1, 1, \
             {turned_a}, {turned_b};"
        );
    }
    text.push_str("wgmma.commit_group.sync.aligned;\n}");
    text
}
