"""Where ranks wait, in words."""

from emulator.fmi.telemetry.history import History
from emulator.fmi.telemetry.live import STALL_S, Live, live_text
from emulator.fmi.telemetry.wait_graph import named, waiting_text
from tests.emulator.fmi.telemetry.made_histories import EPOCH, MS, Made, answered, closed, made_history, now_in

PAIRS = [
    [Made("recv", 0, 1, peer=1), Made("barrier", 1, 2)],
    [Made("recv", 0, 1, peer=2), Made("barrier", 1, 2)],
    [Made("recv", 0, 1, peer=0), Made("barrier", 1, 2)],
    [Made("recv", 0, 1, peer=0), Made("barrier", 1, 2)],
]
RECV, BARRIER = 0, 1
NOW = EPOCH + 2000 * MS


def test_a_chain_of_waits_leads_to_a_rank_that_is_in_no_call() -> None:
    history = made_history(*PAIRS)
    now_in(history, 0, RECV, 1, 500, 1900)
    now_in(history, 1, RECV, 2, 600, 1900)
    now_in(history, 2, None, None, 700, 1900)
    closed(history, 3, 100)
    assert waiting_text(history, NOW).splitlines() == [
        "rank 0 waits for rank 1 in recv, call 0, for 1.5 s, at program.py:0 in main",
        "rank 1 waits for rank 2 in recv, call 0, for 1.4 s, at program.py:1 in main",
        "rank 2 is in no call, for 1.3 s, at program.py:2 in main",
        "rank 3 has closed the communicator",
        "ranks 0 and 1 wait, directly or through others, for rank 2, which is in no call",
    ]


def test_a_circle_is_a_deadlock_that_others_wait_for() -> None:
    history = made_history(*PAIRS)
    for rank, awaited in enumerate((1, 2, 0, 0)):
        now_in(history, rank, RECV, awaited, 500, 1900)
    assert waiting_text(history, NOW).splitlines()[-2:] == [
        "deadlock: rank 0 waits for rank 1, which waits for rank 2, which waits for rank 0",
        "rank 3 waits for that circle",
    ]


def test_a_rank_that_has_not_begun_a_collective_is_awaited_even_if_no_channel_says_so() -> None:
    history = made_history(*PAIRS)
    for rank in (0, 1, 3):
        now_in(history, rank, BARRIER, None, 500, 1900)
    now_in(history, 2, None, None, 700, 1900)
    text = waiting_text(history, NOW)
    assert "rank 3 waits for rank 2 in barrier" in text
    assert text.splitlines()[-1] == (
        "ranks 0, 1 and 3 wait, directly or through others, for rank 2, which is in no call"
    )


def test_stacks_show_the_lines_of_the_program_alone() -> None:
    history = made_history(*PAIRS)
    now_in(history, 0, RECV, 1, 500, 1900)
    library = waiting_text.__globals__["_LIBRARY"]
    answered(
        history,
        0,
        1950,
        "/var/task/execute.py:9 in _run",
        "<frozen runpy>:88 in _run_code",
        "main.py:9 in <module>",
        "main.py:5 in step",
        f"{library}/communicator.py:120 in Communicator.recv",
    )
    assert "at main.py:5 in step, called from main.py:9 in <module>\n" in waiting_text(history, NOW)


def test_a_rank_that_reports_nothing_any_more_is_named() -> None:
    history = made_history(*PAIRS)
    for rank in range(4):
        now_in(history, rank, BARRIER, None, 500, 1900 if rank else 20_000)
    lines = waiting_text(history, EPOCH + 20_000 * MS).splitlines()
    assert "reported nothing" not in lines[0]
    assert "it has reported nothing for 18 s: its process has ended, is stopped or is in C code" in lines[1]


def test_ranks_that_have_not_begun_are_named() -> None:
    assert waiting_text(History(), NOW) == "no rank has opened a communicator"
    history = made_history(*PAIRS)
    del history.ranks[2]
    assert "rank 2 has not opened a communicator" in waiting_text(history, NOW)


def test_many_ranks_are_counted() -> None:
    assert named([3]) == "rank 3"
    assert named(list(range(20))) == "ranks 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 8 more"


def test_a_run_in_which_no_call_ends_is_reported_once_until_one_does() -> None:
    history, live = made_history(*PAIRS), Live()
    minute = round(STALL_S * 1e9)
    now_in(history, 0, BARRIER, None, 500, 1900)
    assert not live.has_stalled(history, NOW)
    assert not live.has_stalled(history, NOW + minute - 1)
    assert live.has_stalled(history, NOW + minute)
    assert not live.has_stalled(history, NOW + 2 * minute)
    history.ranks[1].operations["barrier"] += 1
    assert not live.has_stalled(history, NOW + 3 * minute)
    assert live.has_stalled(history, NOW + 4 * minute)


def test_a_run_whose_ranks_compute_has_not_stalled() -> None:
    history, live = made_history(*PAIRS), Live()
    now_in(history, 0, None, None, 500, 1900)
    assert not live.has_stalled(history, NOW)
    assert not live.has_stalled(history, NOW + round(10 * STALL_S * 1e9))


def test_the_live_view_has_a_line_for_each_rank_with_its_rates() -> None:
    history, live = made_history(*PAIRS), Live()
    now_in(history, 0, RECV, 1, 500, 1900)
    now_in(history, 1, None, None, 600, 1900)
    live.ranks(history, NOW)
    history.ranks[0].operations["recv"] += 3000
    history.ranks[0].bytes["recv"] += 6_000_000
    shown = live.ranks(history, NOW + 2_000 * MS)
    assert (shown[0].call_rate, shown[0].byte_rate, shown[0].calls) == (1500, 3_000_000, 3002)
    header, *lines = live_text(shown).splitlines()
    assert header.split() == ["rank", "calls", "calls/s", "MB/s", "memory", "MB", "for", "s", "state"]
    assert lines[0].split("  ")[-1] == "in recv 0 of 'world', waits for rank 1, at program.py:0 in main"
    assert lines[1].endswith("in no call, at program.py:1 in main")
    assert len(lines) == 4


def test_a_small_terminal_shows_the_ranks_that_wait_longest() -> None:
    history, live = made_history(*PAIRS), Live()
    for rank in range(4):
        now_in(history, rank, RECV, 1, 1000 - rank * 100, 1900)
    lines = live_text(live.ranks(history, NOW), 5).splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["2", "3", "and"]
