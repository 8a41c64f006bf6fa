//! PTX as operations of CubeCL's intermediate representation.

use std::cell::Ref;

use burn_cubecl::cubecl::ir::interfaces::side_effects::{MemoryEffect, MemoryEffectsOp};
use burn_cubecl::cubecl::ir::{AddressSpace, Scope};
use burn_cubecl::cubecl::prelude::NativeExpand;
use cubecl_llvm::shared::to_llvm::ToLLVMDialect;
use cubecl_llvm::shared::to_llvm::constant::insert_i32_const;
use cubecl_llvm::shared::to_llvm::ty::cube_type_to_llvm;
use pliron::builtin::attributes::StringAttr;
use pliron::builtin::op_interfaces::OneResultInterface;
use pliron::builtin::types::FP32Type;
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
use pliron_llvm::llvm_attrs::{LlvmAttrValue, LlvmAttributesAttr};
use pliron_llvm::op_interfaces::CastOpInterface;
use pliron_llvm::ops::{
    AddrSpaceCastOp, ExtractElementOp, ExtractValueOp, InlineAsmOp, InsertElementOp, PoisonOp,
};
use pliron_llvm::types::{PointerType, StructLayout, StructType, VoidType};

/// A function, in PTX whose `$0` is the result and `$1` the operand.
#[pliron_op(
    name = "ldm.ptx_function",
    format,
    interfaces = [OneResultInterface],
    attributes = (ldm_ptx_function_text: StringAttr, ldm_ptx_function_constraints: StringAttr),
    verifier = "succ"
)]
pub struct Function;

/// `text` of one value, to another of its type; `constraints` as LLVM has them.
pub fn function<T>(scope: &Scope, text: &str, constraints: &str, x: NativeExpand<T>) -> NativeExpand<T> {
    let x = x.expand.read_value(scope);
    let ctx = scope.ctx_mut();
    let result = x.get_type(ctx);
    let op = Operation::new(ctx, Function::get_concrete_op_info(), vec![result], vec![x], vec![], 0);
    let op = Function { op };
    op.set_attr_ldm_ptx_function_text(ctx, StringAttr::new(text.to_owned()));
    op.set_attr_ldm_ptx_function_constraints(ctx, StringAttr::new(constraints.to_owned()));
    scope.register(&op);
    op.get_result(scope.ctx()).into()
}

#[op_interface_impl]
impl SideEffects for Function {
    fn has_side_effects(&self, _ctx: &Context) -> bool {
        false
    }
}

#[op_interface_impl]
impl MemoryEffectsOp for Function {
    fn memory_effects(&self, _ctx: &Context) -> Vec<MemoryEffect> {
        vec![]
    }
}

#[op_interface_impl]
impl ToLLVMDialect for Function {
    fn rewrite(
        &self,
        ctx: &mut Context,
        rewriter: &mut DialectConversionRewriter,
        _operands: &OperandsInfo,
    ) -> Result<()> {
        let op = self.get_operation();
        let result = cube_type_to_llvm(ctx, self.get_result(ctx).get_type(ctx));
        let text = string(self.get_attr_ldm_ptx_function_text(ctx));
        let constraints = string(self.get_attr_ldm_ptx_function_constraints(ctx));
        let operands = operands(ctx, op);
        let asm = InlineAsmOp::new(ctx, result, operands, &text, &constraints, false);
        rewriter.insert_op(ctx, &asm);
        rewriter.replace_operation_with_values(ctx, op, vec![asm.get_result(ctx)]);
        Ok(())
    }
}

/// A copy from global memory, the second operand, to shared memory, the first, of so many bytes, the third, and zeros.
#[pliron_op(
    name = "ldm.copy_async",
    format,
    attributes = (ldm_copy_async_text: StringAttr),
    verifier = "succ"
)]
pub struct CopyAsync;

/// See [`super::copy_async`].
pub fn copy_async(scope: &Scope, to: Value, from: Value, read: Value, bytes: usize) {
    let ctx = scope.ctx_mut();
    let operands = vec![to, from, read];
    let op = Operation::new(ctx, CopyAsync::get_concrete_op_info(), vec![], operands, vec![], 0);
    let op = CopyAsync { op };
    // What is read once need not stay in the nearest cache, which takes no other copies than of 16 bytes.
    let cache = if bytes == 16 { "cg" } else { "ca" };
    let text = format!("cp.async.{cache}.shared.global [$0], [$1], {bytes}, $2;");
    op.set_attr_ldm_copy_async_text(ctx, StringAttr::new(text));
    scope.register(&op);
}

#[op_interface_impl]
impl SideEffects for CopyAsync {
    fn has_side_effects(&self, _ctx: &Context) -> bool {
        true
    }
}

#[op_interface_impl]
impl MemoryEffectsOp for CopyAsync {
    fn memory_effects(&self, ctx: &Context) -> Vec<MemoryEffect> {
        let op = self.get_operation();
        let op = op.deref(ctx);
        vec![MemoryEffect::Write(op.get_operand(0)), MemoryEffect::Read(op.get_operand(1))]
    }
}

/// LLVM's numbers of address spaces.
const GLOBAL: u32 = 1;
const SHARED: u32 = 3;

#[op_interface_impl]
impl ToLLVMDialect for CopyAsync {
    fn rewrite(
        &self,
        ctx: &mut Context,
        rewriter: &mut DialectConversionRewriter,
        _operands: &OperandsInfo,
    ) -> Result<()> {
        let op = self.get_operation();
        let text = string(self.get_attr_ldm_copy_async_text(ctx));
        let mut operands = operands(ctx, op);
        for (operand, space) in operands.iter_mut().zip([SHARED, GLOBAL]) {
            *operand = in_space(ctx, rewriter, *operand, space);
        }
        effect(ctx, rewriter, op, operands, &text, "l,l,r,~{memory}");
        Ok(())
    }
}

/// An instruction that orders copies.
#[pliron_op(name = "ldm.order", format, attributes = (ldm_order_text: StringAttr), verifier = "succ")]
pub struct Order;

/// See [`super::commit`] and [`super::wait`].
pub fn order(scope: &Scope, text: String) {
    let ctx = scope.ctx_mut();
    let op = Operation::new(ctx, Order::get_concrete_op_info(), vec![], vec![], vec![], 0);
    let op = Order { op };
    op.set_attr_ldm_order_text(ctx, StringAttr::new(text));
    scope.register(&op);
}

#[op_interface_impl]
impl SideEffects for Order {
    fn has_side_effects(&self, _ctx: &Context) -> bool {
        true
    }
}

#[op_interface_impl]
impl MemoryEffectsOp for Order {
    fn memory_effects(&self, _ctx: &Context) -> Vec<MemoryEffect> {
        let space = AddressSpace::Shared;
        vec![MemoryEffect::ReadAllInSpace(space), MemoryEffect::WriteAllInSpace(space)]
    }
}

#[op_interface_impl]
impl ToLLVMDialect for Order {
    fn rewrite(
        &self,
        ctx: &mut Context,
        rewriter: &mut DialectConversionRewriter,
        _operands: &OperandsInfo,
    ) -> Result<()> {
        let text = string(self.get_attr_ldm_order_text(ctx));
        effect(ctx, rewriter, self.get_operation(), vec![], &text, "~{memory}");
        Ok(())
    }
}

/// Work of a group of planes on a unit's sums, the first operand, in as many registers; the others are places in shared
/// memory.
#[pliron_op(
    name = "ldm.group",
    format,
    interfaces = [OneResultInterface],
    attributes = (ldm_group_text: StringAttr, ldm_group_registers: StringAttr),
    verifier = "succ"
)]
pub struct Group;

/// See [`super::group_product`] and [`super::group_wait`].
pub fn group<T>(
    scope: &Scope,
    sums: NativeExpand<T>,
    places: Vec<Value>,
    text: String,
    registers: usize,
) -> NativeExpand<T> {
    let sums = sums.expand.read_value(scope);
    let ctx = scope.ctx_mut();
    let result = sums.get_type(ctx);
    let operands = std::iter::once(sums).chain(places).collect();
    let op = Operation::new(ctx, Group::get_concrete_op_info(), vec![result], operands, vec![], 0);
    let op = Group { op };
    op.set_attr_ldm_group_text(ctx, StringAttr::new(text));
    op.set_attr_ldm_group_registers(ctx, StringAttr::new(registers.to_string()));
    scope.register(&op);
    op.get_result(scope.ctx()).into()
}

#[op_interface_impl]
impl SideEffects for Group {
    fn has_side_effects(&self, _ctx: &Context) -> bool {
        true
    }
}

#[op_interface_impl]
impl MemoryEffectsOp for Group {
    fn memory_effects(&self, _ctx: &Context) -> Vec<MemoryEffect> {
        vec![MemoryEffect::ReadAllInSpace(AddressSpace::Shared)]
    }
}

#[op_interface_impl]
impl ToLLVMDialect for Group {
    fn rewrite(
        &self,
        ctx: &mut Context,
        rewriter: &mut DialectConversionRewriter,
        _operands: &OperandsInfo,
    ) -> Result<()> {
        let op = self.get_operation();
        let text = string(self.get_attr_ldm_group_text(ctx));
        let registers: usize = string(self.get_attr_ldm_group_registers(ctx)).parse().unwrap_or_default();
        let vector = cube_type_to_llvm(ctx, self.get_result(ctx).get_type(ctx));
        let all = operands(ctx, op);
        let mut values = vec![];
        for i in 0..registers {
            let index = insert_i32_const(ctx, rewriter, i as i32);
            let lane = ExtractElementOp::new(ctx, all[0], index);
            rewriter.insert_op(ctx, &lane);
            values.push(lane.get_result(ctx));
        }
        for place in &all[1..] {
            values.push(in_space(ctx, rewriter, *place, SHARED));
        }
        // Each sum goes in where it comes out.
        let mut constraints = vec!["=f".to_owned(); registers];
        constraints.extend((0..registers).map(|i| i.to_string()));
        constraints.extend(all[1..].iter().map(|_| "l".to_owned()));
        constraints.push("~{memory}".to_owned());
        let float: TypeHandle = FP32Type::get(ctx).into();
        let result = StructType::get_unnamed(ctx, (vec![float; registers], StructLayout::Unpacked)).into();
        let asm = InlineAsmOp::new(ctx, result, values, &text, &constraints.join(","), true);
        together(ctx, &asm);
        rewriter.insert_op(ctx, &asm);
        let nothing = PoisonOp::new(ctx, vector);
        rewriter.insert_op(ctx, &nothing);
        let (asm, mut sums) = (asm.get_result(ctx), nothing.get_result(ctx));
        for i in 0..registers {
            let field = ExtractValueOp::new(ctx, asm, vec![i as u32])?;
            rewriter.insert_op(ctx, &field);
            let index = insert_i32_const(ctx, rewriter, i as i32);
            let lane = InsertElementOp::new(ctx, sums, field.get_result(ctx), index);
            rewriter.insert_op(ctx, &lane);
            sums = lane.get_result(ctx);
        }
        rewriter.replace_operation_with_values(ctx, op, vec![sums]);
        Ok(())
    }
}

/// Puts assembly without a result in an operation's place.
fn effect(
    ctx: &mut Context,
    rewriter: &mut DialectConversionRewriter,
    op: Ptr<Operation>,
    operands: Vec<Value>,
    text: &str,
    constraints: &str,
) {
    let nothing = VoidType::get(ctx).into();
    let asm = InlineAsmOp::new(ctx, nothing, operands, text, constraints, true);
    together(ctx, &asm);
    rewriter.insert_op(ctx, &asm);
    rewriter.erase_operation(ctx, op);
}

/// Says that all units of a plane execute it together, so that it stays where it is.
fn together(ctx: &Context, asm: &InlineAsmOp) {
    let mut attributes = LlvmAttributesAttr::new();
    attributes.set("convergent", LlvmAttrValue::Unit);
    asm.set_attr_llvm_inline_asm_attrs(ctx, attributes);
}

/// The pointer in that address space.
fn in_space(
    ctx: &mut Context,
    rewriter: &mut DialectConversionRewriter,
    pointer: Value,
    space: u32,
) -> Value {
    let wanted: TypeHandle = PointerType::get(ctx, space).into();
    if pointer.get_type(ctx) == wanted {
        return pointer;
    }
    let cast = AddrSpaceCastOp::new(ctx, pointer, wanted);
    rewriter.insert_op(ctx, &cast);
    cast.get_result(ctx)
}

fn operands(ctx: &Context, op: Ptr<Operation>) -> Vec<Value> {
    op.deref(ctx).operands().collect()
}

fn string(attribute: Option<Ref<'_, StringAttr>>) -> String {
    attribute.map(|text| String::from(text.clone())).unwrap_or_default()
}
