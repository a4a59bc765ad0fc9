"""``fmi-emulator sweep``: runs a program over a grid of settings, and makes a table and figures of it."""

import argparse
import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from botocore.exceptions import EndpointConnectionError

from emulator.cli import arguments
from emulator.cli.account import add_account_options
from emulator.cli.exit_codes import FAILED, print_status
from emulator.fmi.aws_session import EndpointUnreachableError, connect
from emulator.fmi.deployment.stack import DEFAULT_STACK
from emulator.fmi.payload import read_payload, required_code_folder
from emulator.fmi.sweep.figures import draw_axis, varied_axes, world_size_fit
from emulator.fmi.sweep.fit import in_words
from emulator.fmi.sweep.grid import Point, grid
from emulator.fmi.sweep.runs import Sweep, SweptProgram
from emulator.fmi.sweep.shown import ShownSweep, SweepStatus
from emulator.fmi.sweep.table import OK, Row, SweepError, summary, to_csv

if TYPE_CHECKING:
    from argparse import _SubParsersAction

_Value = TypeVar("_Value")
_MOST_POINTS = 10_000
_GIGABYTES = re.compile(r"(\d+(?:\.\d+)?)\s*(MB|GB|TB)", re.IGNORECASE)
_DESCRIPTION = """\
Run a program over a grid of world sizes, memories, batch sizes and data sets, one run after the other.

The table sweep.csv in the folder --out has one row per run and is written after each. The same command resumes: runs
that succeeded are not repeated. Lists are separated by commas; an axis that is not given is left as the command has it.
Without --world-sizes there is one rank for each partition of --partitions-mb.
"""
_EXAMPLES = """\
examples:
  fmi-emulator sweep --world-sizes 2,4,20,50 --out sweep examples/reduce.py
  fmi-emulator sweep --world-sizes 4 --memory 512,1024,1769 --repeat 3 --out sweep examples/reduce.py
  fmi-emulator sweep --partitions-mb 25,50,75,100 --total 1GB --batch-sizes 32,512 --preload torch --with-results \\
      --out sweep examples/cosmic_ai.py
  fmi-emulator sweep --world-sizes 2,4,8 --page http://127.0.0.1:4566 --out sweep examples/reduce.py
  fmi-emulator sweep --world-sizes 2,4 --payload examples/pipeline.json --out sweep
  fmi-emulator sweep --world-sizes 2,4 --memory 512,1769 --backend docker --out sweep examples/reduce.py
  fmi-emulator sweep --world-sizes 2,4,8 --backend aws --region us-east-1 --out sweep examples/reduce.py

exit status: 0 if every run succeeded, 1 if one failed, 2 if the sweep could not start, 130 after Ctrl-C
"""


def add_parser(commands: "_SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = commands.add_parser(
        "sweep",
        help="run a program over a grid of settings; table and figures",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the sweep")
    parser.add_argument("--world-sizes", type=_list(arguments.world_size), metavar="N,…", help="for example 2,4,20,50")
    parser.add_argument("--memory", type=_list(arguments.memory_mb), metavar="MB,…", help="for example 512,1024,1769")
    parser.add_argument("--batch-sizes", type=_list(arguments.positive), metavar="N,…", help="for example 32,128,512")
    parser.add_argument(
        "--partitions-mb",
        type=_list(arguments.positive),
        metavar="MB,…",
        help="size of the partitions, which are written by python -m inference.partition; for example 25,50,75,100",
    )
    parser.add_argument("--total", type=_list(_gigabytes), metavar="SIZE,…", help="sizes of the data set: 1GB,2GB")
    parser.add_argument("--repeat", type=arguments.positive, default=1, metavar="K", help="runs of each setting (1)")
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder of data files that all runs use")
    parser.add_argument(
        "--with-results",
        action="store_true",
        help="keep the ranks' results, RESULT_PATH/<rank>.json, which every rank must write; the table has their rates",
    )
    parser.add_argument(
        "--page",
        metavar="URL",
        help="a running local cloud whose page shows the sweep as it grows, for example http://127.0.0.1:4566",
    )
    parser.add_argument("--timeout", type=arguments.timeout_s, metavar="S", help="timeout of a rank in seconds")
    arguments.add_preload_option(parser)
    arguments.add_backend_option(parser, arguments.LOCAL, docker=True)
    arguments.add_image_options(parser)
    add_account_options(parser.add_argument_group("with --backend aws"), profile="--aws-profile")
    parser.add_argument("--payload", type=Path, metavar="FILE", help="run fmi-emulator pipeline with this payload")
    parser.add_argument("--script-folder", type=Path, metavar="DIR", help="folder of the payload's code")
    parser.add_argument("script", nargs="?", type=Path, metavar="SCRIPT", help="run fmirun with this program")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="arguments of the program")
    parser.set_defaults(run=_sweep)


def _sweep(options: argparse.Namespace) -> int:
    if importlib.util.find_spec("matplotlib") is None:
        raise SweepError("the figures need matplotlib: pip install 'fmi-emulator[inference]'")
    points = _points(options)
    sweep = Sweep(options.out, _program(options))
    sweep.open()
    missing = sweep.missing(points)
    shown = _shown(options)
    print_status(f"{len(points)} runs, {len(points) - len(missing)} of them done before, in {options.out}")
    failed = 0
    for number, point in enumerate(missing, start=len(points) - len(missing) + 1):
        print_status(f"{number}/{len(points)}: {point}")
        _draw(sweep, options.out, shown, SweepStatus(number - 1, len(points), str(point)))
        row = sweep.run(point, lambda line: print(line, flush=True))
        failed += row.status != OK
        print_status(f"{number}/{len(points)}: {_outcome(row)}")
    varied = len({row.ranks for row in sweep.rows if row.status == OK}) > 1
    words = in_words(world_size_fit(sweep.rows)) if varied else ""
    _draw(sweep, options.out, shown, SweepStatus(len(points), len(points), words=words))
    print_status(summary(sweep.rows))
    if words:
        print_status(words)
    print_status(f"table and figures in {options.out}")
    return FAILED if failed else 0


def _points(options: argparse.Namespace) -> list[Point]:
    if (options.partitions_mb is None) != (options.total is None):
        raise SweepError("--partitions-mb and --total belong together: give both, or neither")
    if options.partitions_mb is not None and options.data is not None:
        raise SweepError("--data cannot be used with --partitions-mb, which writes the data: give one of them")
    if options.world_sizes is None and options.partitions_mb is None:
        raise SweepError("missing --world-sizes: give it, or --partitions-mb and --total for one rank per partition")
    points = grid(
        world_sizes=options.world_sizes or [None],
        memories=options.memory or [None],
        batch_sizes=options.batch_sizes or [None],
        partition_mb=options.partitions_mb or [None],
        data_gb=options.total or [None],
        repeats=options.repeat,
    )
    if len(points) > _MOST_POINTS:
        raise SweepError(f"the grid has {len(points)} runs: expected at most {_MOST_POINTS}, shorten a list")
    return points


def _program(options: argparse.Namespace) -> SweptProgram:
    if (options.script is None) == (options.payload is None):
        raise SweepError("expected either a script, which fmirun runs, or --payload, which fmi-emulator pipeline runs")
    passed = [f"--preload={module}" for module in options.preload]
    passed += [f"--timeout={options.timeout}"] if options.timeout is not None else []
    account = {"--region": options.region, "--aws-profile": options.aws_profile, "--endpoint-url": options.endpoint_url}
    if options.backend == arguments.DOCKER:
        passed += _image_options(options)
    else:
        arguments.refuse_container_options(options)
    if options.backend != arguments.LOCAL:
        passed.append(f"--backend={options.backend}")
    if options.backend == arguments.AWS:
        passed.append(f"--stack-name={options.stack_name}")
        passed += [f"{name}={value}" for name, value in account.items() if value is not None]
    elif any(account.values()) or options.stack_name != DEFAULT_STACK:
        raise SweepError(f"{', '.join(account)} and --stack-name are for runs on a stack: give --backend aws, too")
    if options.payload is None:
        if not options.script.is_file():
            raise SweepError(f"script {str(options.script)!r} does not exist: expected the path of a Python file")
        if options.script_folder is not None:
            raise SweepError("--script-folder belongs to --payload: a script's own folder is uploaded")
        given = tuple(options.arguments)
        return SweptProgram(
            options.script, given, options=tuple(passed), data=options.data, has_results=options.with_results
        )
    payload = read_payload(options.payload)
    folder = required_code_folder(payload, options.script_folder, options.payload.parent)
    if options.with_results and not payload.result_path:
        raise SweepError(f"{options.payload}: missing result_path, which --with-results needs")
    return SweptProgram(
        None,
        payload=json.loads(json.dumps(payload.event)),
        script_folder=folder.resolve(),
        options=tuple(passed),
        data=options.data,
        has_results=True,
    )


def _image_options(options: argparse.Namespace) -> list[str]:
    """Return the options of containers as they are passed on to every run."""
    given = {"--image": options.image, "--base-image": options.base_image, "--requirements": options.requirements}
    passed = [f"{name}={value}" for name, value in given.items() if value is not None]
    return [*passed, *(["--ipc"] if options.ipc else [])]


def _shown(options: argparse.Namespace) -> ShownSweep | None:
    if options.page is None:
        return None
    name = re.sub(r"[^\w.-]+", "-", options.out.resolve().name) or "sweep"
    try:
        shown = ShownSweep(connect(options.page), name)
    except EndpointConnectionError:
        raise EndpointUnreachableError(options.page) from None
    print_status(f"shown at {options.page.rstrip('/')}/_emulator/sweeps/{name}")
    return shown


def _draw(sweep: Sweep, folder: Path, shown: ShownSweep | None, status: SweepStatus) -> None:
    figures = {axis: draw_axis(sweep.rows, axis) for axis in varied_axes(sweep.rows)}
    for axis, content in figures.items():
        unfinished = folder / f".{axis}.png"
        unfinished.write_bytes(content)
        unfinished.replace(folder / f"{axis}.png")
    if shown is not None:
        shown.publish(to_csv(sweep.rows), figures, status)


def _outcome(row: Row) -> str:
    if row.status != OK:
        return f"failed: {row.error}"
    return f"{row.seconds:.2f} s, {row.ranks} ranks, {row.max_memory_mb} MB used, {row.usd_total:.6f} USD on AWS" + (
        f", {row.samples_per_s:.0f} samples/s" if row.samples_per_s else ""
    )


def _list(parse: Callable[[str], _Value]) -> Callable[[str], list[_Value]]:
    """Return the parser of a list separated by commas, without repetitions."""

    def parse_list(text: str) -> list[_Value]:
        return list(dict.fromkeys(parse(entry.strip()) for entry in text.split(",")))

    return parse_list


def _gigabytes(text: str) -> float:
    match = _GIGABYTES.fullmatch(text.strip())
    if not match or not float(match[1]):
        raise argparse.ArgumentTypeError(f"expected a size such as 1GB or 500MB, got {text!r}")
    return float(match[1]) * {"MB": 1 / 1024, "GB": 1.0, "TB": 1024.0}[match[2].upper()]
