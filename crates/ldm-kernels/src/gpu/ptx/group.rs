//! The text of a product by a group of planes.

use std::fmt::Write;

/// Depth of an instruction.
const DEPTH: usize = 16;
/// Depth of a product, and so two bytes times that of a row in shared memory.
const ROW: usize = 32;

/// What a matrix descriptor says beside where the matrix begins: from eight rows to the next 512 bytes, and that pieces
/// change places within 64 bytes. (The distance of columns, 1, means nothing there.)
const LAYOUT: u64 = 2 << 62 | (8 * 2 * ROW as u64 >> 4) << 32 | 1 << 16;

/// Adds to so many sums of a unit; their registers come first, twice, then the addresses of both operands.
pub fn product(registers: usize, element: &str) -> String {
    let columns = 2 * registers;
    let sums: Vec<String> = (0..registers).map(|i| format!("${i}")).collect();
    let sums = sums.join(", ");
    let mut text = String::from("{\n.reg .b64 a, b;\n.reg .pred p;\n");
    for (name, operand) in [("a", 2 * registers), ("b", 2 * registers + 1)] {
        let _ = writeln!(text, "and.b64 {name}, ${operand}, 0x3FFFF;");
        let _ = writeln!(text, "shr.u64 {name}, {name}, 4;");
        let _ = writeln!(text, "or.b64 {name}, {name}, {LAYOUT:#x};");
    }
    text.push_str("setp.le.u64 p, a, a;\nwgmma.fence.sync.aligned;\n");
    for step in 0..ROW / DEPTH {
        if step > 0 {
            // Descriptors count 16 bytes.
            let further = 2 * DEPTH / 16;
            let _ = writeln!(text, "add.u64 a, a, {further};\nadd.u64 b, b, {further};");
        }
        let _ = writeln!(
            text,
            "wgmma.mma_async.sync.aligned.m64n{columns}k{DEPTH}.f32.{element}.{element} {{{sums}}}, a, b, p, 1, 1, 0, 0;"
        );
    }
    text.push_str("wgmma.commit_group.sync.aligned;\n}");
    text
}
