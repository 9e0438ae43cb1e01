"""Sixteen float32 numbers computed with at once, as a type for Numba kernels: `Lanes`, and `Mask` for its comparisons.

    u = decay * v + gain * load(tile, at)
    v = select(u >= threshold, u - lowered, u)

LLVM lowers the type to the machine's registers (one of 512 bits, two of 256, four of 128) and neither contracts nor
reassociates, so every lane has the bits of the scalar computation. Loops over scalars that LLVM would have to vectorise
itself do not do: with a fixed count of sixteen it unrolls them instead.

Sequences lie in memory row by row while lanes hold sixteen rows at one position, so data passes through tiles of
`STEPS` positions of all lanes, position by position; `transpose` turns a square tile in registers.

Importing this module imports numba. Addresses are integers (`Tensor.data_ptr()`): nothing here keeps memory alive.
"""

# Numba infers the types inside a kernel, and its intrinsics take no annotations that mypy would understand.
# mypy: allow-untyped-defs, allow-untyped-calls, disable-error-code="no-any-return"

from __future__ import annotations

import operator

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, overload, register_model

LANES = 16
STEPS = 16
TILE = LANES * STEPS

_FLOATS = ir.VectorType(ir.FloatType(), LANES)
_DOUBLES = ir.VectorType(ir.DoubleType(), LANES)
_INTEGERS = ir.VectorType(ir.IntType(32), LANES)
_BITS = ir.VectorType(ir.IntType(1), LANES)


class LanesType(types.Type):
    """Sixteen float32."""

    def __init__(self) -> None:
        super().__init__(name="Lanes")


class MaskType(types.Type):
    """Sixteen truth values."""

    def __init__(self) -> None:
        super().__init__(name="Mask")


LANES_TYPE, MASK_TYPE = LanesType(), MaskType()
FLOATS = types.CPointer(types.float32)
DOUBLES = types.CPointer(types.float64)
BYTES = types.CPointer(types.uint8)


@register_model(LanesType)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, _FLOATS)


@register_model(MaskType)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, _BITS)


def _operator(function, operands, result, emit):
    """`function` of two `operands` inside kernels, and of nothing else."""

    @intrinsic
    def apply(typing_context, a, b):
        def codegen(context, builder, signature, arguments):
            return emit(builder, *arguments)

        return result(a, b), codegen

    @overload(function)
    def choose(a, b):
        if a == operands and b == operands:
            return lambda a, b: apply(a, b)
        return None


_operator(operator.add, LANES_TYPE, LANES_TYPE, lambda builder, a, b: builder.fadd(a, b))
_operator(operator.sub, LANES_TYPE, LANES_TYPE, lambda builder, a, b: builder.fsub(a, b))
_operator(operator.mul, LANES_TYPE, LANES_TYPE, lambda builder, a, b: builder.fmul(a, b))
_operator(operator.truediv, LANES_TYPE, LANES_TYPE, lambda builder, a, b: builder.fdiv(a, b))
_operator(operator.ge, LANES_TYPE, MASK_TYPE, lambda builder, a, b: builder.fcmp_ordered(">=", a, b))
_operator(operator.gt, LANES_TYPE, MASK_TYPE, lambda builder, a, b: builder.fcmp_ordered(">", a, b))
_operator(operator.and_, MASK_TYPE, MASK_TYPE, lambda builder, a, b: builder.and_(a, b))


@intrinsic
def select(typing_context, mask, yes, no):
    """In each lane `yes` where `mask`, else `no`."""

    def codegen(context, builder, signature, arguments):
        return builder.select(*arguments)

    return LANES_TYPE(MASK_TYPE, LANES_TYPE, LANES_TYPE), codegen


@intrinsic
def splat(typing_context, value):
    """The float32 `value` in every lane."""

    def codegen(context, builder, signature, arguments):
        one = builder.insert_element(ir.Constant(_FLOATS, ir.Undefined), arguments[0], ir.Constant(ir.IntType(32), 0))
        return builder.shuffle_vector(one, one, ir.Constant(_INTEGERS, [0] * LANES))

    return LANES_TYPE(types.float32), codegen


@intrinsic
def truncate(typing_context, lanes):
    """Toward zero, to whole numbers below 2^31."""

    def codegen(context, builder, signature, arguments):
        return builder.sitofp(builder.fptosi(arguments[0], _INTEGERS), _FLOATS)

    return LANES_TYPE(LANES_TYPE), codegen


@intrinsic
def power_of_two(typing_context, whole):
    """2^n of whole numbers n in [-126, 127], exactly."""

    def codegen(context, builder, signature, arguments):
        exponent = builder.add(builder.fptosi(arguments[0], _INTEGERS), ir.Constant(_INTEGERS, [127] * LANES))
        return builder.bitcast(builder.shl(exponent, ir.Constant(_INTEGERS, [23] * LANES)), _FLOATS)

    return LANES_TYPE(LANES_TYPE), codegen


def _pointer_to(kind):
    @intrinsic
    def cast(typing_context, address):
        def codegen(context, builder, signature, arguments):
            return builder.inttoptr(arguments[0], context.get_value_type(kind))

        return kind(types.int64), codegen

    return cast


floats_at, doubles_at, bytes_at = _pointer_to(FLOATS), _pointer_to(DOUBLES), _pointer_to(BYTES)


def _scratch(kind, element, count):
    @intrinsic
    def reserve(typing_context):
        def codegen(context, builder, signature, arguments):
            with builder.goto_entry_block():
                memory = builder.alloca(ir.ArrayType(element, count))
                memory.align = 64
            return builder.bitcast(memory, context.get_value_type(kind))

        return kind(), codegen

    return reserve


new_tile = _scratch(FLOATS, ir.FloatType(), TILE)
"""Room for STEPS positions of all lanes on the stack, uninitialised; call it outside loops."""
new_sums = _scratch(DOUBLES, ir.DoubleType(), LANES)
"""Room for one float64 per lane on the stack, uninitialised."""


def _place(builder, pointer, at, vector):
    return builder.bitcast(builder.gep(pointer, [at]), ir.PointerType(vector))


def _load(builder, pointer, at, vector=_FLOATS, align=4):
    value = builder.load(_place(builder, pointer, at, vector))
    value.align = align
    return value


def _store(builder, pointer, at, value, align=4):
    builder.store(value, _place(builder, pointer, at, value.type)).align = align


@intrinsic
def load(typing_context, pointer, at):
    """The sixteen consecutive floats from `pointer[at]` on."""

    def codegen(context, builder, signature, arguments):
        return _load(builder, *arguments)

    return LANES_TYPE(FLOATS, types.int64), codegen


@intrinsic
def store(typing_context, pointer, at, lanes):
    """Put the lanes at `pointer[at]` and the fifteen floats after it."""

    def codegen(context, builder, signature, arguments):
        _store(builder, *arguments)
        return context.get_dummy_value()

    return types.void(FLOATS, types.int64, LANES_TYPE), codegen


@intrinsic
def accumulate(typing_context, sums, lanes):
    """Add each lane to its float64 in `sums`."""

    def codegen(context, builder, signature, arguments):
        sums, lanes = arguments
        start = ir.Constant(ir.IntType(64), 0)
        total = builder.fadd(_load(builder, sums, start, _DOUBLES, 8), builder.fpext(lanes, _DOUBLES))
        _store(builder, sums, start, total, 8)
        return context.get_dummy_value()

    return types.void(DOUBLES, LANES_TYPE), codegen


@intrinsic
def transpose(typing_context, source, at, stride, target, target_at, target_stride):
    """Sixteen vectors at source[at + i * stride] become the columns of those at target[target_at + i * target_stride].

    Blocks of 8, 4, 2 and 1 off the diagonal change places.
    """

    def codegen(context, builder, signature, arguments):
        source, at, stride, target, target_at, target_stride = arguments

        def nth(start, step, i):
            return builder.add(start, builder.mul(step, ir.Constant(ir.IntType(64), i)))

        rows = [_load(builder, source, nth(at, stride, i)) for i in range(LANES)]
        for size in (8, 4, 2, 1):
            upper = [LANES + j - size if j & size else j for j in range(LANES)]
            lower = [LANES + j if j & size else j + size for j in range(LANES)]
            for i in range(LANES):
                if not i & size:
                    pair = rows[i], rows[i + size]
                    rows[i] = builder.shuffle_vector(*pair, ir.Constant(_INTEGERS, upper))
                    rows[i + size] = builder.shuffle_vector(*pair, ir.Constant(_INTEGERS, lower))
        for i, row in enumerate(rows):
            _store(builder, target, nth(target_at, target_stride, i), row)
        return context.get_dummy_value()

    return types.void(FLOATS, types.int64, types.int64, FLOATS, types.int64, types.int64), codegen
