"""The terminal view of a running pipeline: one line per rank with its state, progress and latest output."""

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from emulator.fmi.deploy import Role
from emulator.fmi.pipeline import Progress
from emulator.fmi.rank_log import RankLog, RankProgress, RankState, state_counts
from emulator.fmi.report import sanitize

_STYLES = {
    RankState.WAITING: "dim",
    RankState.RUNNING: "cyan",
    RankState.DONE: "green",
    RankState.FAILED: "bold red",
}
# If the terminal is too small for all ranks, the most relevant states are shown first.
_INTEREST = {RankState.FAILED: 0, RankState.RUNNING: 1, RankState.WAITING: 2, RankState.DONE: 3}
_BAR_WIDTH = 20
# Lines that show no rank: the head, the column names, and the count of ranks not shown.
_OTHER_LINES = 5


def live_view(progress: Progress, now: float, height: int) -> RenderableType:
    """Return the view of a pipeline.

    Parameters
    ----------
    progress
        Its progress.
    now
        The time, seconds since 1970.
    height
        Height of the terminal, lines.
    """
    log = progress.logs[Role.EXECUTE]
    shown = shown_ranks(log, max(1, height - _OTHER_LINES))
    parts: list[RenderableType] = [_head(progress, now)]
    if shown:
        parts.append(_ranks(log.ranks, shown, now))
    left_out = max(log.world_size, len(log.ranks)) - len(shown)
    if shown and left_out:
        parts.append(Text(f"      and {left_out} more", style="dim"))
    return Group(*parts)


def shown_ranks(log: RankLog, room: int) -> list[int]:
    """Return the ranks to show, in order: all, or failed, running and waiting ranks before those that are done.

    Parameters
    ----------
    log
        State of the ranks.
    room
        Maximum number of ranks.
    """
    everyone = range(max(log.world_size, max(log.ranks, default=-1) + 1))
    waiting = RankProgress()
    chosen = sorted(everyone, key=lambda rank: (_INTEREST[log.ranks.get(rank, waiting).state], rank))[:room]
    return sorted(chosen)


def _head(progress: Progress, now: float) -> Text:
    """Return the first line: the state of each function, and the number of ranks in each state."""
    text = Text()
    for role in Role:
        log = progress.logs[role]
        text.append(f"{role.value} ", style="bold")
        if role is Role.EXECUTE and log.world_size:
            numbers = state_counts(log.ranks, log.world_size)
            for state in (state for state in RankState if numbers[state]):
                text.append(f"{numbers[state]} {state.value} ", style=_STYLES[state])
        elif log.unranked is not None:
            text.append(f"{log.unranked.state.value} ", style=_STYLES[log.unranked.state])
        else:
            text.append("waiting ", style="dim")
        text.append("  ")
    text.append(f"{now - progress.began:.1f} s", style="dim")
    return text


def _ranks(ranks: Mapping[int, RankProgress], shown: Sequence[int], now: float) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), expand=True)
    for name, settings in (
        ("rank", {"justify": "right", "width": 4}),
        ("state", {"width": 7}),
        ("time", {"justify": "right", "width": 8}),
        ("done", {"width": _BAR_WIDTH}),
        ("latest output", {"ratio": 1, "no_wrap": True, "overflow": "ellipsis"}),
    ):
        table.add_column(name, header_style="dim", **settings)
    for rank in shown:
        progress = ranks.get(rank, RankProgress())
        ended = progress.ended_ms / 1000 if progress.ended_ms is not None else now
        elapsed = "" if progress.began_ms is None else f"{max(0.0, ended - progress.began_ms / 1000):.1f} s"
        latest = str(progress.failure) if progress.failure else progress.last_line
        table.add_row(
            str(rank),
            Text(progress.state.value, style=_STYLES[progress.state]),
            elapsed,
            _bar(progress),
            Text(sanitize(latest.partition("\n")[0]), style="red" if progress.failure else "dim"),
        )
    return table


def _bar(progress: RankProgress) -> RenderableType:
    done = 1.0 if progress.state is RankState.DONE else progress.fraction
    if done is None:
        return Text("")
    return ProgressBar(total=1.0, completed=done, width=_BAR_WIDTH)
