//! SPIR-V as operations of CubeCL's intermediate representation.

use burn_cubecl::cubecl::ir::interfaces::side_effects::{MemoryEffect, MemoryEffectsOp};
use burn_cubecl::cubecl::ir::{AddressSpace, Scope};
use pliron::context::Context;
use pliron::derive::{op_interface_impl, pliron_op};
use pliron::op::Op;
use pliron::operation::Operation;
use pliron::opts::dce::SideEffects;
use pliron::result::Result;
use pliron_spirv::spirv::{LoopControl, Op as Code};
use pliron_spirv::{PlironBuilder, ToSpirvOp};

/// Loops that were written before it are not unrolled.
#[pliron_op(name = "ldm.keep_loops", format, verifier = "succ")]
pub struct KeepLoops;

/// See [`super::keep_loops`].
pub fn keep_loops(scope: &Scope) {
    let ctx = scope.ctx_mut();
    let op = Operation::new(ctx, KeepLoops::get_concrete_op_info(), vec![], vec![], vec![], 0);
    scope.register(&KeepLoops { op });
}

// It has no result: without an effect it would be taken out.
#[op_interface_impl]
impl SideEffects for KeepLoops {
    fn has_side_effects(&self, _ctx: &Context) -> bool {
        true
    }
}

// It stays behind what writes to shared memory.
#[op_interface_impl]
impl MemoryEffectsOp for KeepLoops {
    fn memory_effects(&self, _ctx: &Context) -> Vec<MemoryEffect> {
        vec![MemoryEffect::ReadAllInSpace(AddressSpace::Shared)]
    }
}

#[op_interface_impl]
impl ToSpirvOp for KeepLoops {
    fn to_spirv(&self, _ctx: &Context, builder: &mut PlironBuilder) -> Result<()> {
        let functions = builder.module_mut().functions.iter_mut();
        let blocks = functions.flat_map(|function| &mut function.blocks);
        let merges = blocks.flat_map(|block| &mut block.instructions);
        for merge in merges.filter(|instruction| instruction.class.opcode == Code::LoopMerge) {
            for operand in &mut merge.operands {
                if *operand == LoopControl::NONE.into() {
                    *operand = LoopControl::DONT_UNROLL.into();
                }
            }
        }
        Ok(())
    }
}
