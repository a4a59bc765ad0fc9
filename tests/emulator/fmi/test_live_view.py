"""A pipeline on a terminal."""

import io

from rich.console import Console

from emulator.fmi.deploy import Role
from emulator.fmi.live_view import live_view, shown_ranks
from emulator.fmi.outcomes import FunctionFailure
from emulator.fmi.pipeline import Progress
from emulator.fmi.rank_log import RankLog, RankProgress, RankState


def shown(progress: Progress, now: float, height: int) -> list[str]:
    console = Console(width=100, height=height, file=io.StringIO(), force_terminal=False)
    with console.capture() as captured:
        console.print(live_view(progress, now, height))
    return [line.rstrip() for line in captured.get().splitlines()]


def ranks(**states: RankState) -> RankLog:
    log = RankLog(world_size=len(states))
    for rank, state in enumerate(states.values()):
        if state is not RankState.WAITING:
            log.ranks[rank] = RankProgress(f"r{rank}", state, 1_000_000)
    return log


def test_each_rank_has_a_line_with_its_latest_output() -> None:
    progress = Progress(began=999.0)
    progress.logs[Role.EXECUTE] = log = ranks(
        a=RankState.DONE, b=RankState.RUNNING, c=RankState.FAILED, d=RankState.WAITING
    )
    log.ranks[0].ended_ms = 1_001_500
    log.ranks[1].last_line, log.ranks[1].fraction = "step 5/10 \x1b[31mred", 0.5
    log.ranks[2].failure = FunctionFailure("ValueError", "broken")
    progress.logs[Role.INITIALIZE].unranked = RankProgress("i", RankState.DONE)
    head, _, *lines = shown(progress, 1002.0, 24)
    assert head == "initialize done   execute 1 waiting 1 running 1 done 1 failed   summarize waiting   3.0 s"
    assert lines[0].split()[:4] == ["0", "done", "1.5", "s"]
    assert lines[1].split()[:4] == ["1", "running", "2.0", "s"]
    assert lines[1].endswith("step 5/10  [31mred")
    assert lines[2].endswith("ValueError: broken")
    assert lines[3].split() == ["3", "waiting"]


def test_before_the_ranks_there_is_a_head_alone() -> None:
    assert shown(Progress(began=0.0), 0.5, 24) == ["initialize waiting   execute waiting   summarize waiting   0.5 s"]


def test_a_small_terminal_shows_the_most_relevant_ranks_and_counts_the_rest() -> None:
    states = {f"r{rank}": RankState.DONE for rank in range(200)}
    states |= {"r150": RankState.FAILED, "r7": RankState.RUNNING, "r199": RankState.WAITING}
    log = ranks(**states)
    assert shown_ranks(log, 4) == [0, 7, 150, 199]
    progress = Progress(began=0.0)
    progress.logs[Role.EXECUTE] = log
    lines = shown(progress, 2000.0, 12)
    assert len(lines) <= 12
    assert lines[-1] == "      and 193 more"
