"""Mutation testing of the pure modules: ``python -m tests.mutants``, or ``make mutants``.

Every mutant is one small change of one expression or statement: a comparison, an operator, a number, a condition, a
result. A mutant is *killed* when a test of its module fails, or does not end within four times the processor time of
the unchanged tests. The tests of a module run in a process forked after pytest, hypothesis and numpy were imported, in
which the mutated module takes the place of the real one, so that a mutant costs little more than its tests. The sample
of mutants is drawn with a seed that is printed.
The exit status is 1 when fewer than `REQUIRED` of them are killed.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib.util
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

REQUIRED = 0.85
_ROOT = Path(__file__).resolve().parent.parent
_LONGEST_SECONDS = 120.0
"""A mutant that waits for something is ended after this time; one that computes, by a limit of processor time."""

TESTS: dict[str, tuple[str, ...]] = {
    "rendezvous/protocol": (
        "tests/rendezvous/test_messages.py",
        "tests/rendezvous/test_protocol.py",
        "tests/rendezvous/test_v2_messages.py",
        "tests/rendezvous/test_protocol_detection.py",
    ),
    "rendezvous/wait_for_graph.py": ("tests/rendezvous/test_wait_for_graph.py",),
    "fmi_shim/frames.py": ("tests/fmi_shim/test_frames.py",),
    "fmi_shim/error_codec.py": ("tests/fmi_shim/test_error_codec.py",),
    "fmi_shim/backoff.py": ("tests/fmi_shim/test_backoff.py",),
    "fmi_shim/collectives": ("tests/fmi_shim/test_collectives.py",),
    "fmi_shim/selection": ("tests/fmi_shim/selection",),
    "fmi_shim/prices.py": ("tests/emulator/aws/test_prices.py",),
    # Plain values first, properties last: a mutant's run ends at the first failure.
    "emulator/aws/stepfunctions/asl": tuple(
        f"tests/emulator/aws/stepfunctions/asl/test_{name}.py"
        for name in (
            "parsed_fields",
            "values",
            "choices",
            "retrying",
            "parse_map",
            "parse_machine",
            "items",
            "intrinsics",
            "expressions",
        )
    ),
    "emulator/aws/prices.py": ("tests/emulator/aws/test_prices.py",),
}
"""The pure modules, or packages of them, and the tests that must notice a mistake in them."""

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
    ast.Mod: ast.Add,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitOr,
}


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change of one module.

    Attributes
    ----------
    module
        Its dotted name.
    number
        Which of the module's mutants, in the order of its syntax tree.
    line
        Where the change is.
    change
        The changed code, before and after.
    """

    module: str
    number: int
    line: int
    change: str


def mutations(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Change `tree` in place in one way after another; yield the line and the change while it is in force."""
    for node in _mutable(tree):
        for field, value in _changes(node):
            before, old = ast.unparse(node), getattr(node, field)
            setattr(node, field, value)
            yield node.lineno, f"{before}  ->  {ast.unparse(node)}"  # type: ignore[attr-defined] # an expression or statement
            setattr(node, field, old)


def _mutable(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield the nodes that do something: no docstrings, annotations, decorators, error messages or assertions."""
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop(0)
        if isinstance(node, ast.Raise | ast.Assert | ast.JoinedStr | ast.Import | ast.ImportFrom):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation) == "TypeAlias":
            continue
        yield node
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "decorator_list", "type_params", "bases", "keywords"):
                continue
            pending += [value] if isinstance(value, ast.AST) else value if isinstance(value, list) else []
        pending = [child for child in pending if isinstance(child, ast.AST)]


def _changes(node: ast.AST) -> Iterator[tuple[str, object]]:
    match node:
        case ast.Compare(ops=[operator]) if type(operator) in _COMPARISONS:
            yield "ops", [_COMPARISONS[type(operator)]()]
        case ast.BinOp() | ast.AugAssign() if type(node.op) in _OPERATORS:
            yield "op", _OPERATORS[type(node.op)]()
        case ast.BoolOp():
            yield "op", ast.Or() if isinstance(node.op, ast.And) else ast.And()
            for kept in node.values:
                yield "values", [kept, kept]
        case ast.UnaryOp(op=ast.Not()):
            yield "operand", ast.copy_location(ast.UnaryOp(ast.Not(), node.operand), node.operand)
        case ast.Constant(value=bool() as value):
            yield "value", not value
        case ast.Constant(value=int() as value):
            yield "value", value + 1
        case ast.Constant(value=float() as value):
            yield "value", value * 2 + 1
        case ast.If() | ast.While() | ast.IfExp():
            yield "test", ast.copy_location(ast.Constant(value=False), node.test)
            if not isinstance(node, ast.While):
                yield "test", ast.copy_location(ast.Constant(value=True), node.test)
        case ast.Return(value=ast.expr() as value) if not isinstance(value, ast.Constant):
            yield "value", ast.copy_location(ast.Constant(value=None), value)


def mutants_of(path: Path) -> list[Mutant]:
    """Return all mutants of the module in `path`, which is below the project's folder."""
    module = ".".join(path.relative_to(_ROOT).with_suffix("").parts)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [Mutant(module, number, line, change) for number, (line, change) in enumerate(mutations(tree))]


def mutated(mutant: Mutant) -> ast.Module:
    """Return the module's tree with the mutant's change."""
    tree = ast.parse(_path(mutant.module).read_text(encoding="utf-8"))
    for number, _ in enumerate(mutations(tree)):
        if number == mutant.number:
            return ast.fix_missing_locations(copy.deepcopy(tree))
    raise ValueError(f"{mutant.module} has no mutant {mutant.number}")


def _path(module: str) -> Path:
    return _ROOT / (module.replace(".", "/") + ".py")


class _MutatingFinder(MetaPathFinder, Loader):
    """Has one module imported with a mutant's change."""

    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def find_spec(self, fullname: str, path: object, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname != self._mutant.module:
            return None
        return importlib.util.spec_from_file_location(fullname, _path(fullname), loader=self)

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(mutated(self._mutant), str(_path(self._mutant.module)), "exec"), module.__dict__)  # noqa: S102


def start(mutant: Mutant | None, tests: Sequence[str], cpu_seconds: int) -> int:
    """Fork a process that runs `tests` with `mutant` in place for at most `cpu_seconds`; return its process id."""
    child = os.fork()
    if child:
        return child
    status = 3
    try:
        os.setpgid(0, 0)
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds))
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
        import pytest

        if mutant is not None:
            sys.meta_path.insert(0, _MutatingFinder(mutant))
        plugins = [word for name in ("cacheprovider", "xdist", "timeout") for word in ("-p", f"no:{name}")]
        status = int(pytest.main([*plugins, "-o", "addopts=", "-x", "-q", *tests]))
    finally:
        os._exit(status)


def run(mutants: Sequence[Mutant], tests: Sequence[str], cpu_seconds: int, workers: int) -> list[Mutant]:
    """Run the tests on every mutant, so many at a time; return those that no test noticed."""
    waiting, survivors = list(reversed(mutants)), []
    running: dict[int, tuple[Mutant, float]] = {}
    done = 0
    while waiting or running:
        while waiting and len(running) < workers:
            mutant = waiting.pop()
            running[start(mutant, tests, cpu_seconds)] = mutant, time.monotonic() + _LONGEST_SECONDS
        time.sleep(0.01)
        for child, (mutant, end) in list(running.items()):
            ended, status = os.waitpid(child, os.WNOHANG)
            if not ended and time.monotonic() < end:
                continue
            if not ended:
                os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
            if not ended or os.WIFSIGNALED(status):
                print(f"  timed out: {mutant.module}:{mutant.line}: {mutant.change}".replace("\n", " "), flush=True)
            elif status == 0:
                survivors.append(mutant)
            del running[child]
            done += 1
            if done % 50 == 0:
                print(f"{done} of {len(mutants)}, {len(survivors)} survived", flush=True)
    return survivors


def modules_in(place: str) -> list[Path]:
    """Return the modules of a package, or the one module."""
    path = _ROOT / place
    return sorted(path.rglob("*.py")) if path.is_dir() else [path]


def main() -> int:
    """Test mutants, print the survivors, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("places", nargs="*", default=list(TESTS), help="keys of the table of modules; all by default")
    parser.add_argument("--sample", type=int, default=60, help="mutants of each place (0: all; default: %(default)s)")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**6, help="of the sample; default: any")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes at a time")
    options = parser.parse_args()
    import hypothesis
    import numpy  # noqa: F401 - forked processes have it imported
    import pytest  # noqa: F401 - likewise

    hypothesis.settings.register_profile(
        "mutants",
        max_examples=30,
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],  # the smallest example is not needed
        deadline=None,
        database=None,
        derandomize=True,
    )
    hypothesis.settings.load_profile("mutants")
    os.chdir(_ROOT)
    chance = random.Random(options.seed)
    print(f"seed {options.seed}")
    missed = total = 0
    for place in options.places:
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        if os.waitpid(start(None, TESTS[place], int(_LONGEST_SECONDS)), 0)[1]:
            print(f"{place}: its tests fail without any mutant: run pytest {' '.join(TESTS[place])}")
            return 2
        cpu_seconds = int(5 + 4 * (resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before))
        found = [mutant for path in modules_in(place) for mutant in mutants_of(path)]
        chosen = chance.sample(found, min(options.sample or len(found), len(found)))
        survivors = run(chosen, TESTS[place], cpu_seconds, options.workers)
        killed = 1 - len(survivors) / len(chosen)
        print(f"{place}: {killed:.0%} of {len(chosen)} killed ({len(found)} mutants in all)", flush=True)
        for mutant in sorted(survivors, key=lambda each: (each.module, each.line)):
            print(f"  survived: {mutant.module}:{mutant.line}: {mutant.change}".replace("\n", " "))
        missed, total = missed + len(survivors), total + len(chosen)
    print(f"{1 - missed / total:.1%} of {total} mutants killed, at least {REQUIRED:.0%} are required")
    return int(1 - missed / total < REQUIRED)


if __name__ == "__main__":
    sys.exit(main())
