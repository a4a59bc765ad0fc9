"""One specification of all operations for all channels: a step, how it is called, and what plain Python says of it.

Nothing of the test tools is imported here, as in `programs`: ranks run it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce as fold
from itertools import accumulate, product
from typing import Any

import numpy as np

import fmi_shim as fmi

Plain = Callable[[Any, Any], Any]

SIZES = (*range(1, 10), 16)
"""The sizes of the worlds in which all is done."""


class Kind(enum.Enum):
    """What the ranks hand in."""

    int = fmi.datatypes.int
    double = fmi.datatypes.double
    int_list = fmi.datatypes.int_list
    double_list = fmi.datatypes.double_list

    @property
    def is_list(self) -> bool:
        return self in (Kind.int_list, Kind.double_list)


class Form(enum.Enum):
    """How it is handed in: with ``fmi.types``, or as an array, into a new one, another one or itself."""

    typed = 0
    array = 1
    out = 2
    in_place = 3


class Function(enum.Enum):
    """``fmi.op``, and custom functions by their flags: commutative, associative."""

    sum = 0
    prod = 1
    max = 2
    min = 3
    custom_both = (True, True)
    custom_commutative = (True, False)
    custom_associative = (False, True)
    custom_neither = (False, False)
    land = 4
    lor = 5
    lxor = 6
    band = 7
    bor = 8
    bxor = 9
    minloc = 10
    maxloc = 11
    avg = 12

    @property
    def is_fmi(self) -> bool:
        """Whether FMI has it, too."""
        return isinstance(self.value, tuple) or self.value < 4

    def is_defined(self, kind: Kind) -> bool:
        """Whether it combines such values; ours of pairs combine lists of an even length."""
        if self.name in ("minloc", "maxloc"):
            return kind.is_list
        if self.is_fmi:
            return True
        return (kind in (Kind.double, Kind.double_list)) == (self is Function.avg)

    @property
    def left_to_right(self) -> bool:
        return isinstance(self.value, tuple) and self is not Function.custom_both


class Order(enum.Enum):
    """The order in which a channel combines values where any order is allowed."""

    fmi = 0
    """FMI's tree; each rank of an allreduce combines f(own, received)."""
    rank_0 = 1
    """FMI's tree; all ranks of an allreduce have the result of rank 0."""
    own = 2
    """Any other order; the tests require none."""


class Operation(enum.Enum):
    """The operation called; `in_turn` sends around a ring that begins at the root, `posted` uses isend and irecv."""

    barrier = enum.auto()
    in_turn = enum.auto()
    sendrecv = enum.auto()
    posted = enum.auto()
    bcast = enum.auto()
    gather = enum.auto()
    scatter = enum.auto()
    allgather = enum.auto()
    alltoall = enum.auto()
    reduce = enum.auto()
    allreduce = enum.auto()
    scan = enum.auto()
    exscan = enum.auto()
    reduce_scatter = enum.auto()
    gatherv = enum.auto()
    scatterv = enum.auto()
    allgatherv = enum.auto()
    alltoallv = enum.auto()
    reduce_scatterv = enum.auto()
    split = enum.auto()

    @property
    def takes_root(self) -> bool:
        return self.name in ("in_turn", "bcast", "gather", "scatter", "reduce", "gatherv", "scatterv")

    @property
    def takes_function(self) -> bool:
        return self.name in ("reduce", "allreduce", "scan", "exscan", "reduce_scatter", "reduce_scatterv")

    @property
    def takes_lists(self) -> bool:
        return self.name in ("scatter", "alltoall", "reduce_scatter") or self.is_uneven

    @property
    def is_uneven(self) -> bool:
        """Whether ranks have lists of different lengths."""
        return self.name in ("gatherv", "scatterv", "allgatherv", "alltoallv", "reduce_scatterv")


@dataclass(frozen=True, slots=True)
class Step:
    """One call of every rank; `seed` decides about the values, `count` is the length of a list."""

    operation: Operation
    kind: Kind = Kind.int
    function: Function = Function.sum
    root: int = 0
    count: int = 3
    seed: int = 0
    form: Form = Form.typed

    @property
    def is_valid(self) -> bool:
        """Whether the operation is defined."""
        if self.operation.takes_lists and not self.kind.is_list:
            return False
        if not self.operation.takes_function:
            return True
        pairs = self.function in (Function.minloc, Function.maxloc)
        return self.function.is_defined(self.kind) and not (pairs and (self.count % 2 or self.form is not Form.typed))

    def values(self, size: int, wide: bool = False) -> list[Any]:
        """Return every rank's value: halves and integers from -2 to 2, so that all combinations of 16 are exact."""
        count = sum(self.counts(size)) if self.operation.is_uneven else self.count * (size if wide else 1)
        scale = 1 if self.kind in (Kind.int, Kind.int_list) else 0.5
        rows = [[((self.seed + 7 * r + 3 * i) * 5 // 3 % 5 - 2) * scale for i in range(count)] for r in range(size)]
        return rows if self.kind.is_list else [row[0] for row in rows]

    def counts(self, size: int) -> list[int]:
        """Return the elements of each rank, where they differ: some have none."""
        pairs = 2 if self.function in (Function.minloc, Function.maxloc) else 1
        return [(self.count + self.seed + 2 * rank) % (self.count + 2) // pairs * pairs for rank in range(size)]

    def types(self, count: int) -> fmi.types:
        return fmi.types(self.kind.value, count) if self.kind.is_list else fmi.types(self.kind.value)


def steps(size: int) -> Iterator[Step]:
    """Yield every operation with every type, every function and every root.

    Among more than four ranks a reduction to a root takes every function with every root, and the types take turns.
    """
    yield Step(Operation.barrier)
    for operation in Operation:
        takes_turns = operation is Operation.reduce and size > len(Kind)
        functions = FMI_FUNCTIONS if operation.takes_function else [Function.sum]
        roots = range(size if operation.takes_root else 1)
        for (i, kind), (j, function), root in product(enumerate(Kind), enumerate(functions), roots):
            step = Step(operation, kind, function, root, seed=root)
            if (
                operation is not Operation.barrier
                and step.is_valid
                and not (takes_turns and (i + j + root) % len(Kind))
            ):
                yield step
    yield from steps_beyond_fmi(size)


FMI_FUNCTIONS = [function for function in Function if function.is_fmi]


def steps_beyond_fmi(size: int) -> Iterator[Step]:
    """Yield every function that FMI lacks, with types, roots and reductions that take turns."""
    reductions = [operation for operation in Operation if operation.takes_function]
    for i, function in enumerate(function for function in Function if not function.is_fmi):
        kinds = [kind for kind in Kind if function.is_defined(kind)]
        for j in range(2):
            operation = reductions[(i + 2 * j + size) % len(reductions)]
            fitting = [kind for kind in kinds if kind.is_list or not operation.takes_lists]
            yield Step(operation, fitting[(i + j) % len(fitting)], function, (i + j) % size, 4, i)


def covering_steps(size: int) -> Iterator[Step]:
    """Yield every operation with every root, or twice: types and functions take turns, also from size to size.

    Of a ring the first four ranks begin one.
    """
    return _taking_turns(size, range(size))


def fewest_steps(size: int) -> Iterator[Step]:
    """Yield what `covering_steps` yields, with three roots: the first, the last and one between them.

    Among more than four ranks these three take turns from size to size.
    """
    roots = sorted({0, size // 2, size - 1})
    return _taking_turns(size, roots if size <= len(Kind) else [roots[size % len(roots)]])


def _taking_turns(size: int, roots: Sequence[int]) -> Iterator[Step]:
    for operation in Operation:
        kinds = [kind for kind in Kind if kind.is_list or not operation.takes_lists]
        functions = FMI_FUNCTIONS if operation.takes_function else [Function.sum]
        places = roots if operation.takes_root else [0] * min(2, len(roots)) if operation.takes_function else [0]
        if operation is Operation.in_turn:  # as many messages one after another as there are ranks: slow
            places = places[:4]
        for i, root in enumerate(places):
            turn = SIZES.index(size) * min(2, len(places)) + i
            kind = kinds[(turn + turn // len(FMI_FUNCTIONS)) % len(kinds)]
            yield Step(operation, kind, functions[turn % len(functions)], root, seed=i)
    yield from list(steps_beyond_fmi(size))[::4]


def every_step(comm: fmi.Communicator, rank: int, size: int, todo: Sequence[Step], order: Order) -> list[Any]:
    """Do all of it; return what came, arrays as lists."""
    return [_plain(_do(comm, rank, size, step, order)) for step in todo]


def expected(step: Step, size: int, order: Order, framed: bool = True) -> list[Any]:
    """Return what every rank must get, computed in the simplest way."""
    values, ranks = step.values(size), range(size)
    ordered = step.function.left_to_right and (framed or not step.kind.is_list or step.form is not Form.typed)
    f = _of_lists(step.function, _function(step, order)[1])
    if step.function is Function.avg and step.operation.takes_function:
        return _means(step, size, order, framed)
    joined = [element for value in values for element in (value if step.kind.is_list else [value])]
    wide = step.values(size, wide=True) if step.operation.takes_lists else []
    slices = [slice(rank * step.count, (rank + 1) * step.count) for rank in ranks]
    counts = step.counts(size)
    ends = list(accumulate(counts))
    uneven = [slice(end - count, end) for count, end in zip(counts, ends, strict=True)]
    at_root = lambda value, other: [value if rank == step.root else other for rank in ranks]  # noqa: E731
    match step.operation:
        case Operation.barrier:
            return [None] * size
        case Operation.in_turn | Operation.sendrecv | Operation.posted:
            return [values[rank - 1] for rank in ranks]
        case Operation.bcast:
            return [values[step.root]] * size
        case Operation.gather:
            return at_root(joined, [])
        case Operation.scatter:
            return [wide[step.root][slices[rank]] for rank in ranks]
        case Operation.allgather:
            return [joined] * size
        case Operation.alltoall:
            return [[element for row in wide for element in row[slices[rank]]] for rank in ranks]
        case Operation.reduce if ordered:
            return at_root(fold(f, values), None)
        case Operation.reduce:
            return at_root(_tree(values[step.root :] + values[: step.root], f), None)
        case Operation.allreduce if ordered:
            return [fold(f, values)] * size
        case Operation.allreduce:
            return [_doubling(values, 0 if order is Order.rank_0 else rank, f) for rank in ranks]
        case Operation.scan if ordered:
            return [fold(f, values[: rank + 1]) for rank in ranks]
        case Operation.scan:
            return [_sweep(values[: rank + 1], f) for rank in ranks]
        case Operation.exscan:
            return [fold(f, values[:rank]) if rank else None for rank in ranks]
        case Operation.reduce_scatter:
            return [fold(f, wide)[slices[rank]] for rank in ranks]
        case Operation.gatherv:
            return at_root([element for rank in ranks for element in values[rank][: counts[rank]]], [])
        case Operation.allgatherv:
            return [[element for rank in ranks for element in values[rank][: counts[rank]]]] * size
        case Operation.scatterv:
            return [values[step.root][uneven[rank]] for rank in ranks]
        case Operation.alltoallv:
            slices = [[values[source][uneven[(rank - source) % size]] for source in ranks] for rank in ranks]
            return [[element for part in row for element in part] for row in slices]
        case Operation.reduce_scatterv:
            return [fold(f, values)[uneven[rank]] for rank in ranks]
        case Operation.split:
            return [
                [len(ranks[rank % 2 :: 2]), fold(_of_lists(Function.sum, _add), values[rank % 2 :: 2])]
                for rank in ranks
            ]


def _means(step: Step, size: int, order: Order, framed: bool) -> list[Any]:
    """Return the sums, divided by the number of ranks that they are of."""
    ranks = {Operation.scan: range(1, size + 1), Operation.exscan: range(size)}.get(step.operation, [size] * size)
    sums = expected(replace(step, function=Function.sum), size, order, framed)
    divided = lambda total, count: [t / count for t in total] if isinstance(total, list) else total / count  # noqa: E731
    return [None if total is None else divided(total, count) for total, count in zip(sums, ranks, strict=True)]


def _tree(values: list[Any], f: Plain) -> Any:
    """Combine as FMI's tree does: neighbours at distance 1, then 2, then 4, f(own, received)."""
    while len(values) > 1:
        values = [fold(f, values[i : i + 2]) for i in range(0, len(values), 2)]
    return values[0]


def _doubling(values: list[Any], rank: int, f: Plain) -> Any:
    """Allreduce as FMI does: ranks past the largest power of two are folded in, then a tree seen from `rank`."""
    core = 1 << (len(values).bit_length() - 1)
    folded = [fold(f, values[i::core]) for i in range(core)]

    def seen_from(own: int, low: int, high: int) -> Any:
        if high - low == 1:
            return folded[low]
        middle = (low + high) // 2
        first, second = ((low, middle), (middle, high)) if own < middle else ((middle, high), (low, middle))
        return f(seen_from(own, *first), seen_from(own ^ (middle - low), *second))

    return seen_from(rank if rank < core else rank - core, 0, core)


def _sweep(values: list[Any], f: Plain) -> Any:
    """Scan as FMI does: the last block of a power of two in a tree, f(later, earlier), then with all before it."""
    block = len(values) & -len(values)
    last = _tree(values[len(values) - block :][::-1], f)
    return last if block == len(values) else f(last, _sweep(values[: len(values) - block], f))


def _add(left: Any, right: Any) -> Any:
    return left + right


def _multiply(left: Any, right: Any) -> Any:
    return left * right


def _double_and_add(left: Any, right: Any) -> Any:
    """Neither commutative nor associative in truth, so that every order has its own result."""
    return 2 * left + right


def _right(left: Any, right: Any) -> Any:
    """Associative in truth."""
    return right


def _larger(left: Any, right: Any) -> Any:
    """Commutative and associative in truth."""
    return np.maximum(left, right) if isinstance(left, np.ndarray) else max(left, right)


def _function(step: Step, order: Order) -> tuple[fmi.func, Plain]:
    """Return the step's function and what it does; where no order is required its flags are the truth."""
    if step.function in _BUILT_IN:
        return fmi.func(fmi.op[step.function.name]), _BUILT_IN[step.function]
    plain = _double_and_add
    in_order = (Operation.reduce, Operation.allreduce, Operation.scan)
    if step.function is Function.custom_both and (order is Order.own or step.operation not in in_order):
        plain = _larger
    elif step.function is Function.custom_associative and step.operation is Operation.exscan:
        plain = _right
    return fmi.func(fmi.op.custom, plain, *step.function.value), plain


_BUILT_IN: dict[Function, Plain] = {
    Function.sum: _add,
    Function.prod: _multiply,
    Function.max: max,
    Function.min: min,
    Function.land: lambda a, b: int(bool(a) and bool(b)),
    Function.lor: lambda a, b: int(bool(a) or bool(b)),
    Function.lxor: lambda a, b: int(bool(a) != bool(b)),
    Function.band: lambda a, b: a & b,
    Function.bor: lambda a, b: a | b,
    Function.bxor: lambda a, b: a ^ b,
    Function.minloc: lambda a, b: min(a, b),
    Function.maxloc: lambda a, b: max(a, b, key=lambda pair: (pair[0], -pair[1])),
    Function.avg: _add,
}


def _of_lists(function: Function, plain: Plain) -> Plain:
    """Return the function of two values or lists; lists of pairs are combined pair by pair."""
    if function in (Function.minloc, Function.maxloc):
        return lambda a, b: [
            element for i in range(0, len(a), 2) for element in plain((a[i], a[i + 1]), (b[i], b[i + 1]))
        ]
    return lambda a, b: [plain(x, y) for x, y in zip(a, b, strict=True)] if isinstance(a, list) else plain(a, b)


def _plain(result: Any) -> Any:
    return result.tolist() if isinstance(result, np.ndarray | np.generic) else result


def _do(comm: fmi.Communicator, rank: int, size: int, step: Step, order: Order) -> Any:
    if step.operation is Operation.split:
        return _split(comm, rank, size, step)
    if step.operation.is_uneven:
        return _uneven(comm, rank, size, step, order)
    value: Any = step.values(size, step.operation.takes_lists)[rank]
    if step.operation is Operation.barrier or step.form is Form.typed:
        count = step.count * (size if step.operation.takes_lists else 1)
        return _call(comm, rank, size, step, order, value, {"t": step.types(count)})
    given = np.array(value, np.int32 if step.kind in (Kind.int, Kind.int_list) else np.float64)
    result = _call(comm, rank, size, step, order, given, {})
    if step.form is Form.array:
        return result
    place = None
    if size > 1 and isinstance(result, np.ndarray) and step.operation not in _WITHOUT_OUT:
        itself = step.form is Form.in_place and step.operation in _IN_PLACE
        place = given if itself else np.empty_like(result)
    again = _call(comm, rank, size, step, order, given, {} if place is None else {"out": place})
    return again if place is None or again is place or not again.size else f"{again!r} is not the out that was given"


_WITHOUT_OUT = (Operation.bcast, Operation.in_turn, Operation.posted)
_IN_PLACE = (Operation.allreduce, Operation.scan, Operation.alltoall, Operation.sendrecv)


def _call(
    comm: fmi.Communicator, rank: int, size: int, step: Step, order: Order, value: Any, how: dict[str, Any]
) -> Any:
    method = getattr(comm, step.operation.name, None)
    match step.operation:
        case Operation.barrier:
            return comm.barrier()
        case Operation.in_turn | Operation.sendrecv | Operation.posted:
            return _around(comm, rank, size, step, value, how)
        case Operation.bcast:
            return comm.bcast(value if "t" in how or rank == step.root else np.empty_like(value), step.root, **how)
        case Operation.scatter if "t" not in how:
            how.setdefault("out", np.empty(step.count, value.dtype))
            return comm.scatter(value if rank == step.root else None, step.root, **how)
        case Operation.reduce:
            return comm.reduce(value, step.root, _function(step, order)[0], **how)
        case Operation.gather | Operation.scatter:
            return method(value, step.root, **how)
        case Operation.allgather | Operation.alltoall:
            return method(value, **how)
        case _:
            return method(value, _function(step, order)[0], **how)


def _around(comm: fmi.Communicator, rank: int, size: int, step: Step, value: Any, how: dict[str, Any]) -> Any:
    """Hand a value to the next rank around a ring, and return the one before's."""
    after, before = (rank + 1) % size, (rank - 1) % size
    if step.operation is Operation.sendrecv:
        return comm.sendrecv(value, after, before, **how)
    into = how if "t" in how else {"out": np.empty_like(value)}
    if step.operation is Operation.posted:
        coming, going = comm.irecv(before, **into), comm.isend(value, after, **how)
        going.wait()
        return coming.wait()
    if rank == step.root:
        comm.send(value, after, **how)
    received = comm.recv(before, **into)
    if rank != step.root:
        comm.send(value, after, **how)
    return received


def _uneven(comm: fmi.Communicator, rank: int, size: int, step: Step, order: Order) -> Any:
    """Call an operation of lists of different lengths; of an alltoallv slice i goes i ranks further."""
    counts, numbers = step.counts(size), step.values(size)[rank]
    if step.operation in (Operation.gatherv, Operation.allgatherv):
        numbers = numbers[: counts[rank]]
    typed = step.form is Form.typed
    how: dict[str, Any] = {"t": step.types(len(numbers))} if typed else {}
    value: Any = numbers if typed else np.array(numbers, np.int32 if step.kind is Kind.int_list else np.float64)
    if step.form is Form.out:
        length = {Operation.gatherv: sum(counts) if rank == step.root else 0, Operation.allgatherv: sum(counts)}
        received = sum(_received(counts, rank, size))
        length[Operation.alltoallv] = received
        how["out"] = np.empty(length.get(step.operation, counts[rank]), value.dtype)
        if step.operation is Operation.gatherv and rank != step.root:
            del how["out"]
    match step.operation:
        case Operation.gatherv:
            return comm.gatherv(value, step.root, counts if rank == step.root else None, **how)
        case Operation.allgatherv:
            return comm.allgatherv(value, None if step.seed % 2 else counts, **how)
        case Operation.scatterv if not typed and rank != step.root:
            place = how.get("out", np.empty(counts[rank], value.dtype))
            return comm.scatterv(place if step.seed % 2 else None, step.root, out=None if step.seed % 2 else place)
        case Operation.scatterv:
            return comm.scatterv(value, step.root, counts, **how)
        case Operation.alltoallv:
            sends = [counts[(i - rank) % size] for i in range(size)]
            slices = list(np.split(np.array(value), np.cumsum(counts)[:-1]))
            turned = np.concatenate([slices[(i - rank) % size] for i in range(size)])
            given: Any = turned.tolist() if typed else turned.astype(value.dtype)
            receives = None if step.seed % 2 else _received(counts, rank, size)
            return comm.alltoallv(given, sends, receives, **how)
        case _:
            return comm.reduce_scatter(value, _function(step, order)[0], counts=counts, **how)


def _received(counts: Sequence[int], rank: int, size: int) -> list[int]:
    """Return how much each rank sends to this one in `_uneven`."""
    return [counts[(rank - source) % size] for source in range(size)]


def _split(comm: fmi.Communicator, rank: int, size: int, step: Step) -> list[Any]:
    with comm.split(rank % 2) as part:
        value = step.values(size)[rank]
        return [part.size, part.allreduce(value, fmi.func(fmi.op.sum), step.types(step.count))]
