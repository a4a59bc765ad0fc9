"""``python -m fmi_shim``: prints which channel is chosen for an operation, and why."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import replace

from fmi_shim.config import ChannelName, Formulas, Model, Sharing, load
from fmi_shim.errors import ConfigError
from fmi_shim.selection.model import Estimate, Pattern, Task
from fmi_shim.selection.policy import Hint, choose, estimates

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}

_DESCRIPTION = """\
Print the channel that is chosen for FMI operations, and why: the model's latency and price for each channel, for every
given operation, world size and payload. The chosen channel has an asterisk. Without --config, the parameters are those
that FMI was published with. Nothing is connected to and nothing is charged. Shared memory is chosen only for ranks on
one host, and with --hint fast."""

_EPILOG = """\
Models:
  corrected  the published formulas with their errors corrected: one unit, all ranks' time charged, the schedules'
             real messages, the limit of a function's network card, the price of polls (the default)
  compat     the published formulas exactly, which add milliseconds to seconds: the choice of the C++ library

Example: python -m fmi_shim -o allreduce bcast -n 2 16 128 -s 8 64KiB 16MiB --hint fast --memory 2048"""


def table(
    channels: tuple[ChannelName, ...], tasks: Sequence[Task], model: Model, memory_mib: int, hint: Hint
) -> list[str]:
    """Return the lines of the table, one for each of `tasks`; see `selection.policy.choose` for the parameters."""
    unit = "ms" if model.formulas is Formulas.corrected else "FMI's mixture of ms and s"
    lines = [
        f"{model.formulas.value} model, hint {hint.name}, {memory_mib} MiB a function; "
        f"latency in {unit}, price of 1000 operations in USD",
        f"{'operation':<10}{'N':>6}{'bytes':>13}"
        + "".join(f"  {name.value + ' latency':>20}{'price':>12} " for name in channels)
        + "  choice",
    ]
    for task in tasks:
        estimated = estimates(channels, task, model, memory_mib)
        chosen = choose(channels, task, model, memory_mib, hint)
        cells = "".join(_cell(estimated[name], model, name is chosen) for name in channels)
        left = f"{task.pattern.name:<10}{task.ranks:>6}{task.size_bytes:>13}"
        lines.append(f"{left}{cells}  {chosen.value}: {_reason(estimated, chosen, hint)}")
    return lines


def _cell(estimate: Estimate, model: Model, chosen: bool) -> str:
    latency = estimate.latency * 1000 if model.formulas is Formulas.corrected else estimate.latency
    return f"  {latency:>20.3f} {estimate.price * 1000:>11.5f}{'*' if chosen else ' '}"


def _reason(estimated: dict[ChannelName, Estimate], chosen: ChannelName, hint: Hint) -> str:
    value = {name: each.latency if hint is Hint.fast else each.price for name, each in estimated.items()}
    others = [name for name in value if name is not chosen]
    if not others:
        return "the only channel"
    second = min(others, key=lambda name: value[name])
    comparison = "faster" if hint is Hint.fast else "cheaper"
    mostly = "its time" if estimated[chosen].function_usd >= estimated[chosen].channel_usd else "requests and servers"
    why = "" if hint is Hint.fast else f", paid mostly for {mostly}"
    return f"{value[second] / value[chosen]:.1f} times {comparison} than {second.value}{why}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; return the exit status."""
    options = _parser().parse_args(arguments)
    channels, model = tuple(ChannelName), Model()
    if options.config is not None:
        try:
            config = load(options.config)
        except ConfigError as error:
            print(f"fmi_shim: {error}", file=sys.stderr)
            return 2
        enabled = {
            ChannelName.Direct: config.direct is not None,
            ChannelName.Redis: config.redis is not None,
            ChannelName.S3: config.s3 is not None,
            ChannelName.SharedMemory: config.sharing is not Sharing.never,
        }
        channels, model = tuple(name for name in channels if enabled[name]), config.model
    if options.model is not None:
        model = replace(model, formulas=Formulas[options.model])
    tasks = [
        Task(Pattern[operation], size, ranks, options.left_to_right)
        for operation in options.operations
        for ranks in options.ranks
        for size in options.sizes
    ]
    print("\n".join(table(channels, tasks, model, options.memory, Hint[options.hint])))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m fmi_shim",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    patterns = [pattern.name for pattern in Pattern]
    add = parser.add_argument
    add("-o", "--operations", nargs="+", choices=patterns, default=["allreduce"], metavar="OPERATION",
        help=f"{', '.join(patterns)} (default: allreduce)")  # fmt: skip
    add("-n", "--ranks", nargs="+", type=_ranks, default=[2, 4, 16, 128], metavar="N",
        help="world sizes (default: 2 4 16 128)")  # fmt: skip
    add("-s", "--sizes", nargs="+", type=_size, default=[8, 2**16, 2**20, 2**24], metavar="SIZE",
        help="bytes of one rank's payload: 8, 64KiB, 1M (default: 8 64KiB 1MiB 16MiB)")  # fmt: skip
    add(
        "--hint",
        choices=[hint.name for hint in Hint],
        default="cheap",
        help="choose by latency (fast) or by price (default: cheap)",
    )
    add("--memory", type=_ranks, default=128, metavar="MIB", help="memory of a function (default: 128)")
    add("--model", choices=[known.value for known in Formulas], help="which formulas (default: the configuration's)")
    add("--config", metavar="FMI_JSON", help="take enabled channels and parameters from this file")
    add("--left-to-right", action="store_true", help="the function is evaluated strictly in rank order")
    return parser


def _ranks(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 < int(text) < 2**31:
        raise argparse.ArgumentTypeError(f"invalid number {text!r}: expected a whole number from 2 on")
    return int(text)


def _size(text: str) -> int:
    match = re.fullmatch(r"(\d{1,12})\s*([KMG]?)(?:i?B)?", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"invalid size {text!r}: expected for example 8, 64KiB or 1M")
    return int(match[1]) * _UNITS[match[2]]


if __name__ == "__main__":
    sys.exit(main())
