//! PTX as an operation of CubeCL's intermediate representation.

use burn_cubecl::cubecl::ir::Scope;
use burn_cubecl::cubecl::ir::interfaces::side_effects::{MemoryEffect, MemoryEffectsOp};
use burn_cubecl::cubecl::prelude::{HasValue, NativeExpand};
use cubecl_llvm::shared::to_llvm::ToLLVMDialect;
use cubecl_llvm::shared::to_llvm::ty::cube_type_to_llvm;
use pliron::builtin::attributes::{BoolAttr, StringAttr};
use pliron::builtin::op_interfaces::OneResultInterface;
use pliron::context::{Context, Ptr};
use pliron::derive::{op_interface_impl, pliron_op};
use pliron::irbuild::dialect_conversion::{DialectConversionRewriter, OperandsInfo};
use pliron::irbuild::inserter::Inserter;
use pliron::irbuild::rewriter::Rewriter;
use pliron::op::Op;
use pliron::operation::Operation;
use pliron::opts::dce::SideEffects;
use pliron::result::Result;
use pliron::r#type::{TypeHandle, Typed};
use pliron::value::Value;
use pliron_llvm::ops::InlineAsmOp;

/// Lines of PTX whose `$0` is the result and whose `$1`, `$2`, .. are the operands.
#[pliron_op(
    name = "ldm.ptx",
    format,
    interfaces = [OneResultInterface],
    attributes = (ldm_ptx_text: StringAttr, ldm_ptx_constraints: StringAttr, ldm_ptx_effects: BoolAttr),
    verifier = "succ"
)]
pub struct Ptx;

impl Ptx {
    fn new(
        ctx: &mut Context,
        result: TypeHandle,
        operands: Vec<Value>,
        text: &str,
        constraints: &str,
        effects: bool,
    ) -> Self {
        let op = Operation::new(ctx, Self::get_concrete_op_info(), vec![result], operands, vec![], 0);
        let op = Self { op };
        op.set_attr_ldm_ptx_text(ctx, StringAttr::new(text.to_owned()));
        op.set_attr_ldm_ptx_constraints(ctx, StringAttr::new(constraints.to_owned()));
        op.set_attr_ldm_ptx_effects(ctx, BoolAttr::new(effects));
        op
    }

    /// A function of one value to another of its type, without effects; `constraints` as LLVM has them.
    pub fn unary<T>(scope: &Scope, text: &str, constraints: &str, x: NativeExpand<T>) -> NativeExpand<T> {
        let x = x.value(scope);
        let ctx = scope.ctx_mut();
        let result = x.get_type(ctx);
        let op = Self::new(ctx, result, vec![x], text, constraints, false);
        scope.register(&op);
        op.get_result(scope.ctx()).into()
    }

    fn has_effects(&self, ctx: &Context) -> bool {
        self.get_attr_ldm_ptx_effects(ctx).is_none_or(|effects| bool::from(effects.clone()))
    }
}

#[op_interface_impl]
impl SideEffects for Ptx {
    fn has_side_effects(&self, ctx: &Context) -> bool {
        self.has_effects(ctx)
    }
}

#[op_interface_impl]
impl MemoryEffectsOp for Ptx {
    fn memory_effects(&self, ctx: &Context) -> Vec<MemoryEffect> {
        if self.has_effects(ctx) { vec![MemoryEffect::ReadAll, MemoryEffect::WriteAll] } else { vec![] }
    }
}

#[op_interface_impl]
impl ToLLVMDialect for Ptx {
    fn rewrite(
        &self,
        ctx: &mut Context,
        rewriter: &mut DialectConversionRewriter,
        _operands: &OperandsInfo,
    ) -> Result<()> {
        let op: Ptr<Operation> = self.get_operation();
        let result = cube_type_to_llvm(ctx, self.get_result(ctx).get_type(ctx));
        let operands: Vec<Value> = op.deref(ctx).operands().collect();
        let text = self.get_attr_ldm_ptx_text(ctx).map(|text| String::from(text.clone()));
        let constraints = self.get_attr_ldm_ptx_constraints(ctx).map(|c| String::from(c.clone()));
        let effects = self.has_effects(ctx);
        let (text, constraints) = (text.unwrap_or_default(), constraints.unwrap_or_default());
        let asm = InlineAsmOp::new(ctx, result, operands, &text, &constraints, effects);
        rewriter.insert_op(ctx, &asm);
        rewriter.replace_operation_with_values(ctx, op, vec![asm.get_result(ctx)]);
        Ok(())
    }
}
