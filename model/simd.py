"""
Vector registers for numba: types and operations that LLVM turns into the widest instructions of the CPU at hand.

Loops that LLVM vectorizes by itself split a sum into as many lanes as the CPU has, so their last digits depend on the
machine; and it keeps no tile of them in registers. Here the lanes are part of the program: 16 float32, 16 int32 or 8
uint64, one register of AVX-512, two of AVX2, four of SSE or NEON; and 32 bytes, one of AVX2, for what only AVX2 does.
Every operation below is one IEEE operation a lane in a stated order, or one on integers, so numbers are equal, to the
bit, on every instruction set.

An array is read and written at a flat index of its C-contiguous elements; an address, an int64, stands for an array
anywhere, and costs a call nothing. Nothing checks bounds: callers do.

What was compiled before a change in here is compiled anew (`kernel_cache.digest_of_sources`).
"""

import operator
from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

from beexformer.model import target

INDEX = ir.IntType(32)
LLVM = {
    types.float32: ir.FloatType(),
    types.int32: ir.IntType(32),
    types.uint64: ir.IntType(64),
    types.uint16: ir.IntType(16),
    types.uint8: ir.IntType(8),
    types.boolean: ir.IntType(1),
}


class Vector(types.Type):
    """`lanes` numbers of type `element`; lives in compiled code only."""

    def __init__(self, element: Any, lanes: int) -> None:
        self.element, self.lanes = element, lanes
        super().__init__(f"Vector({element} x {lanes})")

    @property
    def llvm(self) -> ir.VectorType:
        return ir.VectorType(LLVM[self.element], self.lanes)


F16 = Vector(types.float32, 16)
I16 = Vector(types.int32, 16)
U8 = Vector(types.uint64, 8)
B16 = Vector(types.boolean, 16)
O32 = Vector(types.uint8, 32)
H32 = Vector(types.uint16, 32)


@register_model(Vector)
class _Model(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, vector.llvm)


# ---------------------------------------------------------------- memory


def _address(context: Any, builder: Any, kinds: Sequence[Any], args: Sequence[Any], element: Any) -> Any:
    """A pointer to the element at an index; of an array, or of what begins at an address."""
    pointer = LLVM[element].as_pointer()
    if isinstance(kinds[0], types.Integer):
        data = builder.inttoptr(args[0], pointer)
    else:
        data = builder.bitcast(context.make_array(kinds[0])(context, builder, args[0]).data, pointer)
    return builder.gep(data, [context.cast(builder, args[1], kinds[1], types.intp)])


def _aligned(access: Any, element: Any) -> Any:
    access.align = element.bitwidth // 8  # of an element, not of a vector: rows may begin anywhere
    return access


def _load(vector: Vector) -> Any:
    def load(typingctx: Any, array: Any, index: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            address = _address(context, builder, sig.args, args, vector.element)
            address = builder.bitcast(address, vector.llvm.as_pointer())
            return _aligned(builder.load(address), vector.element)

        return vector(array, index), codegen

    return intrinsic(load)


def _spread(vector: Vector) -> Any:
    def spread(typingctx: Any, array: Any, index: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return _same(builder, builder.load(_address(context, builder, sig.args, args, vector.element)), vector)

        return vector(array, index), codegen

    return intrinsic(spread)


def _splat(vector: Vector) -> Any:
    def splat(typingctx: Any, number: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return _same(builder, context.cast(builder, args[0], sig.args[0], vector.element), vector)

        return vector(number), codegen

    return intrinsic(splat)


def _same(builder: Any, number: Any, vector: Vector) -> Any:
    undefined = ir.Constant(vector.llvm, ir.Undefined)
    first = builder.insert_element(undefined, number, INDEX(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(INDEX, vector.lanes), [0] * vector.lanes))


load_f16, load_i16, load_u8 = _load(F16), _load(I16), _load(U8)  # (array, index) -> the elements from index on
load_o32 = _load(O32)  # (array, index) -> the 32 bytes from that byte on
spread_f16, spread_u8 = _spread(F16), _spread(U8)  # (array, index) -> that element in every lane
splat_f16, splat_i16, splat_u8 = _splat(F16), _splat(I16), _splat(U8)  # number -> in every lane
splat_o32, splat_h32 = _splat(O32), _splat(H32)


@intrinsic
def load_i8(typingctx: Any, array: Any, index: Any) -> Any:
    """(array of int8, index) -> the 16 elements from index on, as float32."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        octets = ir.VectorType(ir.IntType(8), F16.lanes)
        address = builder.bitcast(_address(context, builder, sig.args, args, types.uint8), octets.as_pointer())
        wide = builder.sext(_aligned(builder.load(address), types.int8), ir.VectorType(ir.IntType(32), F16.lanes))
        return builder.sitofp(wide, F16.llvm)  # SSE and AVX2 convert only int32

    return F16(array, index), codegen


def _address_of(element: Any) -> Any:
    def address(typingctx: Any, array: Any, index: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return builder.ptrtoint(_address(context, builder, sig.args, args, element), ir.IntType(64))

        return types.int64(array, index), codegen

    return intrinsic(address)


address_of_real, address_of_word = _address_of(types.float32), _address_of(types.uint64)  # (array, index) -> address


@intrinsic
def store_word(typingctx: Any, array: Any, index: Any, word: Any) -> Any:
    """The uint64 at index becomes `word`."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.store(args[2], _address(context, builder, sig.args, args, types.uint64))
        return context.get_dummy_value()

    return types.none(array, index, types.uint64), codegen


@intrinsic
def store(typingctx: Any, array: Any, index: Any, vector: Any) -> Any:
    """The elements from index on become the lanes."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        address = _address(context, builder, sig.args, args, vector.element)
        address = builder.bitcast(address, vector.llvm.as_pointer())
        _aligned(builder.store(args[2], address), vector.element)
        return context.get_dummy_value()

    return types.none(array, index, vector), codegen


# ---------------------------------------------------------------- arithmetic, lane by lane


def _operator(operation: Callable[..., Any], emit: Callable[[Any, Any, Any, bool], Any], result: Any = None) -> None:
    @infer_global(operation)
    class _Typing(AbstractTemplate):
        def generic(self, args: Any, kws: Any) -> Any:
            if len(args) == 2 and isinstance(args[0], Vector) and args[0] == args[1]:
                return signature(result or args[0], *args)
            return None

    @lower_builtin(operation, Vector, Vector)
    def _lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return emit(builder, args[0], args[1], sig.args[0].element == types.float32)


_operator(operator.add, lambda builder, a, b, real: builder.fadd(a, b) if real else builder.add(a, b))
_operator(operator.sub, lambda builder, a, b, real: builder.fsub(a, b) if real else builder.sub(a, b))
_operator(operator.mul, lambda builder, a, b, real: builder.fmul(a, b))
_operator(operator.truediv, lambda builder, a, b, real: builder.fdiv(a, b))
_operator(operator.xor, lambda builder, a, b, real: builder.xor(a, b))
_operator(operator.and_, lambda builder, a, b, real: builder.and_(a, b))
_operator(operator.lt, lambda builder, a, b, real: builder.fcmp_ordered("<", a, b), B16)


def _llvm_intrinsic(name: str, builder: Any, args: Sequence[Any]) -> Any:
    kind = args[0].type
    suffix = f"v{kind.count}" + ("f32" if isinstance(kind.element, ir.FloatType) else str(kind.element))
    function = ir.FunctionType(kind, [arg.type for arg in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, function, f"llvm.{name}.{suffix}"), args)


@intrinsic
def popcount(typingctx: Any, words: Any) -> Any:
    """Set bits of each word; VPOPCNTQ where the CPU has it, a table look-up elsewhere."""
    return words(words), lambda context, builder, sig, args: _llvm_intrinsic("ctpop", builder, args)


@intrinsic
def fma(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c, rounded once. A CPU without such an instruction calls libm: as exact, many times slower."""
    return a(a, b, c), lambda context, builder, sig, args: _llvm_intrinsic("fma", builder, args)


@intrinsic
def absolute(typingctx: Any, a: Any) -> Any:
    return a(a), lambda context, builder, sig, args: _llvm_intrinsic("fabs", builder, args)


@intrinsic
def where(typingctx: Any, mask: Any, a: Any, b: Any) -> Any:
    """a where the mask is set, else b."""
    return a(mask, a, b), lambda context, builder, sig, args: builder.select(*args)


@intrinsic
def to_real(typingctx: Any, low: Any, high: Any) -> Any:
    """Twice 8 counts below 2^24 (uint64) -> 16 float32, exactly."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        narrow = [builder.trunc(arg, ir.VectorType(ir.IntType(32), low.lanes)) for arg in args]
        lanes = ir.Constant(ir.VectorType(INDEX, F16.lanes), list(range(F16.lanes)))
        return builder.sitofp(builder.shuffle_vector(*narrow, lanes), F16.llvm)  # SSE and AVX2 convert only int32

    return F16(low, high), codegen


@intrinsic
def times_power_of_two(typingctx: Any, a: Any, n: Any) -> Any:
    """a * 2^n, both normal numbers, for a whole n (float32) to which 1.5 * 2^23 has been added, so that it stands in
    the lowest bits: they go into the exponent's."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        integers = ir.VectorType(ir.IntType(32), a.lanes)
        number, low = (builder.bitcast(arg, integers) for arg in args)
        shifted = builder.shl(low, ir.Constant(integers, [23] * a.lanes))
        return builder.bitcast(builder.add(number, shifted), args[0].type)

    return a(a, n), codegen


@intrinsic
def larger(typingctx: Any, a: Any, b: Any) -> Any:
    """The larger one of two integers."""
    return a(a, b), lambda context, builder, sig, args: builder.select(builder.icmp_signed(">", *args), *args)


@intrinsic
def nearest(typingctx: Any, a: Any) -> Any:
    """The nearest whole number of |a| < 2^22, int32, ties to even: added to 1.5 * 2^23 it is in the lowest bits."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        far = builder.fadd(args[0], ir.Constant(F16.llvm, [12582912.0] * F16.lanes))
        return builder.sub(builder.bitcast(far, I16.llvm), ir.Constant(I16.llvm, [0x4B400000] * I16.lanes))

    return I16(a), codegen


@intrinsic
def without_bits(typingctx: Any, a: Any, bits: Any) -> Any:
    """float32 whose bits that are set in `bits` (int32) are none."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        mask = builder.not_(_same(builder, context.cast(builder, args[1], sig.args[1], types.int32), I16))
        return builder.bitcast(builder.and_(builder.bitcast(args[0], I16.llvm), mask), F16.llvm)

    return a(a, bits), codegen


@intrinsic
def real_of(typingctx: Any, a: Any) -> Any:
    """int32 -> the nearest float32."""
    return F16(a), lambda context, builder, sig, args: builder.sitofp(args[0], F16.llvm)


@intrinsic
def lanes_below(typingctx: Any, high: Any) -> Any:
    """The mask of lanes i with i < high."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        vector = Vector(types.uint64, B16.lanes)
        counting = ir.Constant(vector.llvm, list(range(B16.lanes)))
        high = _same(builder, context.cast(builder, args[0], sig.args[0], types.int64), vector)
        return builder.icmp_signed("<", counting, high)

    return B16(high), codegen


def _load_codes(width: int) -> Any:
    """(array of bytes, index) -> 16 numbers of `width` bits from that byte on, the first in the lowest, as float32."""
    octets, integers = ir.VectorType(ir.IntType(8), 2 * width), ir.VectorType(ir.IntType(32), F16.lanes)
    each = 8 // width

    def load(typingctx: Any, array: Any, index: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            address = builder.bitcast(_address(context, builder, sig.args, args, types.uint8), octets.as_pointer())
            packed = builder.load(address)
            packed.align = 1
            place = ir.Constant(ir.VectorType(INDEX, F16.lanes), [i // each for i in range(F16.lanes)])
            shifts = ir.Constant(integers, [i % each * width for i in range(F16.lanes)])
            shifted = builder.lshr(builder.zext(builder.shuffle_vector(packed, packed, place), integers), shifts)
            return builder.sitofp(builder.and_(shifted, ir.Constant(integers, [2**width - 1] * F16.lanes)), F16.llvm)

        return F16(array, index), codegen

    return intrinsic(load)


load_codes_4, load_codes_2 = _load_codes(4), _load_codes(2)


# ---------------------------------------------------------------- signs by table, on AVX2 and NEON (target.LOOK_UP)


def _constant(module: Any, name: str, numbers: Sequence[int]) -> Any:
    """A table of bytes that belongs to the code."""
    kind = ir.ArrayType(ir.IntType(8), len(numbers))
    if name not in module.globals:
        table = ir.GlobalVariable(module, kind, name)
        table.linkage, table.global_constant, table.align = "internal", True, 32
        table.initializer = ir.Constant(kind, bytearray(numbers))
    return module.globals[name]


def _counts(high: bool) -> Any:
    """Of each octet, for its low and its high four signs, in how many they differ from each four there can be."""
    differing = [
        (four ^ other).bit_count() for octet in range(256) for four in (octet & 15, octet >> 4) for other in range(16)
    ]

    def counts(typingctx: Any, words: Any, index: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            octet = builder.load(_address(context, builder, sig.args, args, types.uint8))
            place = builder.add(
                builder.shl(builder.zext(octet, ir.IntType(64)), ir.IntType(64)(5)), ir.IntType(64)(16 * high)
            )
            table = _constant(builder.module, "differing_signs", differing)
            row = builder.bitcast(
                builder.gep(table, [ir.IntType(64)(0), place]), ir.VectorType(ir.IntType(8), 16).as_pointer()
            )
            result = builder.load(row)
            result.align = 16
            return builder.shuffle_vector(result, result, ir.Constant(ir.VectorType(INDEX, 32), [*range(16)] * 2))

        return O32(words, index), codegen

    return intrinsic(counts)


low_counts, high_counts = _counts(False), _counts(True)  # (words, octet's index) -> its table, in both halves


@intrinsic
def look_up(typingctx: Any, table: Any, places: Any) -> Any:
    """table[place] of each lane, both halves having a table of 16 of their own."""

    def call(builder: Any, name: str, *args: Any) -> Any:
        function = ir.FunctionType(args[0].type, [arg.type for arg in args])
        return builder.call(cgutils.get_or_insert_function(builder.module, function, name), args)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        if not target.ARM:
            return call(builder, "llvm.x86.avx2.pshuf.b", *args)

        def lanes(vector: Any, first: int, last: int) -> Any:
            return builder.shuffle_vector(
                vector, vector, ir.Constant(ir.VectorType(INDEX, last - first), [*range(first, last)])
            )

        parts = [
            call(builder, "llvm.aarch64.neon.tbl1.v16i8", *(lanes(arg, first, first + 16) for arg in args))
            for first in (0, 16)
        ]
        return builder.shuffle_vector(*parts, ir.Constant(ir.VectorType(INDEX, 32), [*range(32)]))

    return table(table, places), codegen


@intrinsic
def low_nibbles(typingctx: Any, octets: Any) -> Any:
    """The low four bits of each."""
    return octets(octets), lambda context, builder, sig, args: builder.and_(args[0], ir.Constant(O32.llvm, [15] * 32))


@intrinsic
def high_nibbles(typingctx: Any, octets: Any) -> Any:
    """The high four bits of each."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pairs = ir.VectorType(ir.IntType(16), 16)  # no instruction shifts bytes
        shifted = builder.lshr(builder.bitcast(args[0], pairs), ir.Constant(pairs, [4] * 16))
        return builder.and_(builder.bitcast(shifted, O32.llvm), ir.Constant(O32.llvm, [15] * 32))

    return octets(octets), codegen


@intrinsic
def widen(typingctx: Any, octets: Any) -> Any:
    """32 counts of 8 bits -> of 16."""
    return H32(octets), lambda context, builder, sig, args: builder.zext(args[0], H32.llvm)


def _reals(first: int) -> Any:
    def reals(typingctx: Any, counts: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            lanes = ir.Constant(ir.VectorType(INDEX, F16.lanes), list(range(first, first + F16.lanes)))
            wide = builder.zext(
                builder.shuffle_vector(args[0], args[0], lanes), ir.VectorType(ir.IntType(32), F16.lanes)
            )
            return builder.sitofp(wide, F16.llvm)

        return F16(counts), codegen

    return intrinsic(reals)


first_reals, last_reals = _reals(0), _reals(16)  # 32 counts (uint16) -> the first or the last 16 as float32


# ---------------------------------------------------------------- integers of 8 bits, four in an int32


@intrinsic
def fours_of(typingctx: Any, first: Any, second: Any, third: Any, fourth: Any) -> Any:
    """Four int32 from 0 to 255 -> one, the first in its lowest octet."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        result = args[0]
        for i in (1, 2, 3):
            result = builder.or_(result, builder.shl(args[i], ir.Constant(I16.llvm, [8 * i] * I16.lanes)))
        return result

    return I16(first, second, third, fourth), codegen


@intrinsic
def store_octets(typingctx: Any, array: Any, index: Any, vector: Any) -> Any:
    """The lowest octets of 16 int32, in fours, become the 4 elements (int32) from index on."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        octets = ir.VectorType(ir.IntType(8), I16.lanes)
        address = builder.bitcast(_address(context, builder, sig.args, args, types.int32), octets.as_pointer())
        _aligned(builder.store(builder.trunc(args[2], octets), address), types.int32)
        return context.get_dummy_value()

    return types.none(array, index, vector), codegen


def _with_fours(builder: Any, total: Any, unsigned: Any, signed: Any) -> Any:
    """total + what the products of four octets each sum to, 16 times: where there is AVX-512 VNNI one instruction
    (VPDPBUSD), elsewhere on x86 two and an addition (PMADDUBSW, PMADDWD). Sums of two products must have 16 bits."""
    halves = ir.VectorType(ir.IntType(16), 2 * I16.lanes)
    if target.ARM:

        def shifted(vector: Any, *operations: Any) -> Any:
            for operation in operations:
                vector = operation(
                    vector, ir.Constant(vector.type, [vector.type.element.width // 2] * vector.type.count)
                )
            return vector

        unsigned, signed = builder.bitcast(unsigned, halves), builder.bitcast(signed, halves)
        even = builder.mul(shifted(unsigned, builder.shl, builder.lshr), shifted(signed, builder.shl, builder.ashr))
        odd = builder.mul(shifted(unsigned, builder.lshr), shifted(signed, builder.ashr))
        sums = builder.bitcast(builder.add(even, odd), I16.llvm)
        both = builder.add(shifted(sums, builder.shl, builder.ashr), shifted(sums, builder.ashr))
        return builder.add(total, both)

    def call(name: str, result: Any, *args: Any) -> Any:
        function = ir.FunctionType(result, [arg.type for arg in args])
        return builder.call(cgutils.get_or_insert_function(builder.module, function, f"llvm.x86.{name}"), args)

    if target.VNNI:
        return call("avx512.vpdpbusd.512", I16.llvm, total, unsigned, signed)
    by_two, by_four, lanes = {
        16: ("avx512.pmaddubs.w.512", "avx512.pmaddw.d.512"),
        8: ("avx2.pmadd.ub.sw", "avx2.pmadd.wd"),
        4: ("ssse3.pmadd.ub.sw.128", "sse2.pmadd.wd"),
    }[target.LANES] + (target.LANES,)
    octets, pairs, sums = (ir.VectorType(ir.IntType(n), 32 * lanes // n) for n in (8, 16, 32))
    parts = []
    for first in range(0, I16.lanes, lanes):
        place = ir.Constant(ir.VectorType(INDEX, lanes), list(range(first, first + lanes)))
        two = (builder.bitcast(builder.shuffle_vector(x, x, place), octets) for x in (unsigned, signed))
        parts.append(call(by_four, sums, call(by_two, pairs, *two), ir.Constant(pairs, [1] * pairs.count)))
    while len(parts) > 1:
        place = ir.Constant(ir.VectorType(INDEX, 2 * parts[0].type.count), list(range(2 * parts[0].type.count)))
        parts = [builder.shuffle_vector(*two, place) for two in zip(parts[::2], parts[1::2], strict=True)]
    return builder.add(total, parts[0])


@intrinsic
def sums_of_fours(typingctx: Any, unsigned: Any) -> Any:
    """The sum of each int32's four octets."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        zero, ones = (ir.Constant(I16.llvm, [each] * I16.lanes) for each in (0, 0x01010101))
        return _with_fours(builder, zero, args[0], ones)

    return unsigned(unsigned), codegen


# ---------------------------------------------------------------- sums of products that stay in registers


def _products(
    rows: int,
    registers: int,
    offset: Callable[[Any, Any, Any], Any],
    row_step: int,
    goes_on: bool = False,
    numbers: Vector = F16,
) -> Any:
    """(a, a's start, a's step, first, last, b, b's start, out, out's start): for k in first..last - 1 add, rounding
    once, element `offset(k, step) + r row_step` of a times 16 `registers` numbers of b to row r of a sum. Rows of b and
    of `out` follow each other. One chain of additions for each number, in the order of k, whatever the shape; one that
    `goes_on` begins with what `out` has, unless first is 0.

    Numbers are float32, or (I16) fours of octets, those of a unsigned and of b signed, and sums are integers, exact.
    Where these go on it is the other way round, and there is one argument more, the address of weights [2, 16
    `registers`]: what `out` has, which is float32, times the first of them, plus the sum times the second."""
    width = registers * F16.lanes
    real = numbers is F16
    weighs = goes_on and not real
    results = F16 if goes_on else numbers

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        def whole(i: int) -> Any:
            return context.cast(builder, args[i], sig.args[i], types.intp)

        def vector_at(i: int, index: Any, kind: Vector) -> Any:
            place = _address(context, builder, (sig.args[i], types.intp), (args[i], index), kind.element)
            return builder.bitcast(place, kind.llvm.as_pointer())

        word = context.get_value_type(types.intp)
        a_start, a_step, first, last, b_start, out_start = (whole(i) for i in (1, 2, 3, 4, 6, 8))
        at_zero = builder.icmp_signed("==", first, word(0))

        def zero(kind: Vector) -> Any:
            return ir.Constant(kind.llvm, [0.0 if kind is F16 else 0] * F16.lanes)

        def load(i: int, index: Any, kind: Vector) -> Any:
            return _aligned(builder.load(vector_at(i, index, kind)), F16.element)

        def place_of(r: int, t: int) -> Any:
            return builder.add(out_start, word(r * width + F16.lanes * t))

        def before(r: int, t: int) -> Any:
            return builder.select(at_zero, zero(F16), load(7, place_of(r, t), F16))

        def more(sum_: Any, vector: Any, same: Any) -> Any:
            if real:
                return _llvm_intrinsic("fma", builder, (vector, same, sum_))
            return _with_fours(builder, sum_, *((vector, same) if goes_on else (same, vector)))

        sums = [
            [
                cgutils.alloca_once_value(builder, before(r, t) if goes_on and real else zero(numbers))
                for t in range(registers)
            ]
            for r in range(rows)
        ]
        with cgutils.for_range_slice(builder, first, last, word(1), word) as (k, _):
            at_b = builder.add(b_start, builder.mul(k, word(width)))
            vectors = [load(5, builder.add(at_b, word(F16.lanes * t)), numbers) for t in range(registers)]
            at_a = builder.add(a_start, offset(builder, k, a_step))
            for r in range(rows):
                index = builder.add(at_a, word(r * row_step))
                place = _address(context, builder, (sig.args[0], types.intp), (args[0], index), numbers.element)
                same = _same(builder, builder.load(place), numbers)
                for t in range(registers):
                    builder.store(more(builder.load(sums[r][t]), vectors[t], same), sums[r][t])
        for t in range(registers):
            if weighs:
                old, new = (load(9, word(width * i + F16.lanes * t), F16) for i in range(2))
            for r in range(rows):
                result = builder.load(sums[r][t])
                if weighs:
                    result = builder.fmul(builder.sitofp(result, F16.llvm), new)
                    result = builder.fadd(builder.fmul(load(7, place_of(r, t), F16), old), result)
                _aligned(builder.store(result, vector_at(7, place_of(r, t), results)), F16.element)
        return context.get_dummy_value()

    # numba takes the number of arguments from a function's signature, so each has its own

    def products(
        typingctx: Any,
        a: Any,
        a_start: Any,
        a_step: Any,
        first: Any,
        last: Any,
        b: Any,
        b_start: Any,
        out: Any,
        out_start: Any,
    ) -> Any:
        return types.none(a, a_start, a_step, first, last, b, b_start, out, out_start), codegen

    def weighed(
        typingctx: Any,
        a: Any,
        a_start: Any,
        a_step: Any,
        first: Any,
        last: Any,
        b: Any,
        b_start: Any,
        out: Any,
        out_start: Any,
        weights: Any,
    ) -> Any:
        return types.none(a, a_start, a_step, first, last, b, b_start, out, out_start, weights), codegen

    return intrinsic(weighed if weighs else products)


def _in_tiles(builder: Any, k: Any, step: Any) -> Any:
    """Column k of a token, tiles being `step` apart."""
    return builder.add(builder.mul(builder.lshr(k, k.type(4)), step), builder.and_(k, k.type(F16.lanes - 1)))


def _in_quarter_tiles(builder: Any, k: Any, step: Any) -> Any:
    """Four k of a token's columns."""
    return builder.add(builder.mul(builder.lshr(k, k.type(2)), step), builder.and_(k, k.type(F16.lanes // 4 - 1)))


def _in_rows(builder: Any, k: Any, step: Any) -> Any:
    return builder.mul(k, step)


def along_columns(rows: int, registers: int) -> Any:
    """Rows of a are tokens, one after another in a tile, and k their columns: scores of `rows` keys by 16 `registers`
    queries, which are the lanes."""
    return _products(rows, registers, _in_tiles, F16.lanes)


def along_fours_of_columns(rows: int, registers: int) -> Any:
    """The same of integers, four columns at a time."""
    return _products(rows, registers, _in_quarter_tiles, F16.lanes // 4, numbers=I16)


def along_rows(rows: int, registers: int) -> Any:
    """Rows of a are columns of one tile, and k its tokens: `rows` columns of a mean of values for 16 `registers`
    queries, which are the lanes."""
    return _products(rows, registers, _in_rows, 1, goes_on=True)


def along_fours_of_rows(rows: int, registers: int) -> Any:
    """The same of integers, four tokens at a time."""
    return _products(rows, registers, _in_rows, 1, goes_on=True, numbers=I16)


# ---------------------------------------------------------------- across lanes


@intrinsic
def transpose_f16(typingctx: Any, source: Any, start: Any, step: Any, target: Any, to: Any, to_step: Any) -> Any:
    """16 rows of 16 float32 at start, start + step, ... of `source` -> columns of the rows at to, to + to_step, ..."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        def rows(first: int) -> list[Any]:
            index, step = (context.cast(builder, args[first + i], sig.args[first + i], types.intp) for i in (1, 2))
            result = []
            for _ in range(F16.lanes):
                place = _address(context, builder, (sig.args[first], types.intp), (args[first], index), F16.element)
                result.append(builder.bitcast(place, F16.llvm.as_pointer()))
                index = builder.add(index, step)
            return result

        block = [_aligned(builder.load(row), F16.element) for row in rows(0)]
        for half in (8, 4, 2, 1):  # rows i and i + half swap their off-diagonal squares of that size
            low = [lane if lane % (2 * half) < half else lane - half + 16 for lane in range(16)]
            high = [lane + half if lane % (2 * half) < half else lane + 16 for lane in range(16)]
            for i in (i for i in range(16) if i % (2 * half) < half):
                pair = block[i], block[i + half]
                for row, lanes in ((i, low), (i + half, high)):
                    block[row] = builder.shuffle_vector(*pair, ir.Constant(ir.VectorType(INDEX, 16), lanes))
        for row, place in zip(block, rows(3), strict=True):
            _aligned(builder.store(row, place), F16.element)
        return context.get_dummy_value()

    return types.none(source, start, step, target, to, to_step), codegen


@intrinsic
def mask_bits(typingctx: Any, mask: Any) -> Any:
    """A mask's lanes as bits of a uint64, first lane lowest."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.zext(builder.bitcast(args[0], ir.IntType(mask.lanes)), ir.IntType(64))

    return types.uint64(mask), codegen


def _fold(combine: Callable[[Any, Any, Any], Any]) -> Any:
    """Lane i with lane i + n/2, and so on by halves: the same order on every machine."""

    def fold(typingctx: Any, vector: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            value, lanes = args[0], vector.lanes
            while lanes > 1:
                half = lanes // 2
                parts = [
                    builder.shuffle_vector(
                        value, value, ir.Constant(ir.VectorType(INDEX, half), list(range(start, start + half)))
                    )
                    for start in (0, half)
                ]
                value, lanes = combine(builder, *parts), half
            return builder.extract_element(value, INDEX(0))

        return vector.element(vector), codegen

    return intrinsic(fold)


total = _fold(lambda builder, a, b: builder.fadd(a, b))  # sum of the lanes
greatest = _fold(lambda builder, a, b: builder.select(builder.fcmp_ordered("<", a, b), b, a))
