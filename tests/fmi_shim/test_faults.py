"""The language of faults, the model of a slow link and what a link's faults are at each instant."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmi_shim.errors import ConfigError
from fmi_shim.faults import Action, Fault, FaultError, Moment, bits_per_second, of_link, parse_faults, seconds, share
from fmi_shim.injection import LinkFaults, RankFaults, start_faults
from fmi_shim.link_model import LinkConditions, LinkModel
from fmi_shim.network_presets import NETWORK_PRESETS, network_faults

EXAMPLES = {
    "kill rank 2 at allreduce 3": Fault(Action.KILL, (2,), Moment(None, "allreduce", 3)),
    "kill rank 0": Fault(Action.KILL, (0,), Moment(None, "call", 1)),
    "stop rank 1 at 0.5s for 2s": Fault(Action.STOP, (1,), Moment(0.5), 2.0),
    "delay  rank 0 by 20ms": Fault(Action.DELAY, (0,), amount=0.02),
    "slow link 1-0 by 5ms jitter 500us": Fault(Action.SLOW, (0, 1), amount=0.005, jitter=0.0005),
    "limit link all to 600mbit": Fault(Action.LIMIT, (), amount=6e8),
    "lose link 0-2 0.1%": Fault(Action.LOSE, (0, 2), amount=0.001),
    "cut link 0-1 at send 2 for 1s": Fault(Action.CUT, (0, 1), Moment(None, "send", 2), 1.0),
    "drop server at 1min": Fault(Action.DROP_SERVER, (), Moment(60.0)),
    "hang rank 1 at barrier 2": Fault(Action.HANG, (1,), Moment(None, "barrier", 2)),
    "exhaust rank 1": Fault(Action.EXHAUST, (1,), Moment(None, "call", 1)),
    "fail s3 at put 3": Fault(Action.FAIL_S3, (), Moment(None, "put", 3)),
    "fail s3 20%": Fault(Action.FAIL_S3, (), amount=0.2),
    "slow s3 by 100ms": Fault(Action.SLOW_S3, (), amount=0.1),
    "tear s3 at get 2": Fault(Action.TEAR_S3, (), Moment(None, "get", 2)),
    "throttle lambda at invoke 3": Fault(Action.THROTTLE, (), Moment(None, "invoke", 3)),
    "duplicate lambda at invoke 2": Fault(Action.DUPLICATE, (), Moment(None, "invoke", 2)),
    "restart server at 1s after 0.5s": Fault(Action.RESTART_SERVER, (), Moment(1.0), 0.5),
}


@pytest.mark.parametrize(("text", "fault"), EXAMPLES.items())
def test_each_form_is_parsed_and_shown_in_the_same_language(text: str, fault: Fault) -> None:
    assert parse_faults(text, 3, 0) == (fault,)
    assert parse_faults(str(fault), 3, 0) == (fault,)


def test_several_faults_are_separated_by_semicolons() -> None:
    assert parse_faults("; ".join(EXAMPLES) + ";", 3, 0) == tuple(EXAMPLES.values())
    assert parse_faults(" ", 3, 0) == ()


@given(st.integers(2, 9), st.integers(0, 2**31), st.sampled_from(["12", "2s"]))
def test_chance_is_decided_by_the_seed_alone(size: int, seed: int, bound: str) -> None:
    text = f"kill rank any at random {bound}; cut link any-any; slow link 1-any by 1ms; stop rank any at random 3"
    faults = parse_faults(text, size, seed)
    assert faults == parse_faults(text, size, seed)
    assert all(0 <= rank < size for fault in faults for rank in fault.ranks)
    assert len(faults[1].ranks) == len(faults[2].ranks) == 2
    assert 1 in faults[2].ranks
    assert parse_faults("; ".join(map(str, faults)), size, 0)[1:] == faults[1:]
    server, s3, function = parse_faults(
        "restart server at random 2s; fail s3 at random 9; throttle lambda at random 4", size, seed
    )
    assert server.moment is not None
    assert 0 <= (server.moment.seconds or 0) <= 2
    assert s3.moment is not None
    assert (s3.moment.operation, 1 <= s3.moment.number <= 9) == ("request", True)
    assert function.moment is not None
    assert (function.moment.operation, 1 <= function.moment.number <= 4) == ("invoke", True)
    moment = faults[0].moment
    assert moment is not None
    assert 1 <= moment.number <= 12 if moment.seconds is None else 0 <= moment.seconds <= 2


def test_seeds_differ() -> None:
    drawn = {parse_faults("kill rank any at random 50", 4, seed) for seed in range(50)}
    assert len(drawn) > 25


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kill rank 4", "there is no rank 4: expected 0 to 3"),
        ("cut link 1-9", "there is no rank 9"),
        ("slow link 2-2 by 1ms", "expected a link between two different ranks"),
        ("kill rank 1 at foo 3", "unknown operation foo: expected one of call, send"),
        ("fail s3 at send 1", "unknown operation send: expected one of request, get, put"),
        ("kill rank 1 at send 0", "calls are counted from 1"),
        ("kill rank any at random 0", "calls are counted from 1"),
        ("throttle lambda at random 0", "calls are counted from 1"),
        ("kill rank 1 in 3s", "expected the form of 'kill rank 2 at allreduce 3'"),
        ("limit link all to 0mbit", "invalid bandwidth '0mbit'"),
        ("lose link all 101%", "invalid share '101%'"),
        ("explode", "expected one that begins with 'kill rank'"),
    ],
)
def test_what_is_not_in_the_language_is_refused(text: str, message: str) -> None:
    with pytest.raises(FaultError, match=message):
        parse_faults(text, 4, 0)


def test_durations_rates_and_shares() -> None:
    assert (seconds("20ms"), seconds("2min"), seconds(0.5), seconds("3")) == (0.02, 120.0, 0.5, 3.0)
    assert (bits_per_second("1.5gbit"), share("0.1%")) == (1.5e9, 0.001)
    for wrong in ("1h", -1, True, float("inf"), ""):
        with pytest.raises(ValueError, match="invalid duration"):
            seconds(wrong)


def test_faults_of_a_link() -> None:
    faults = parse_faults("slow link all by 1ms; cut link 0-1; cut link 1-2; kill rank 0", 3, 0)
    assert of_link(faults, 1, 0) == faults[:2]


def test_messages_queue_behind_each_other_and_arrive_after_the_delay() -> None:
    link = LinkModel(random.Random(0))
    slow = LinkConditions(delay=0.01, rate=8e6)
    assert link.arrival(5.0, 1000, slow) == pytest.approx(5.011)
    assert link.arrival(5.0, 1000, slow) == pytest.approx(5.012)
    assert link.arrival(6.0, 1000, slow) == pytest.approx(6.011)


@given(
    st.integers(0, 99),
    st.lists(st.tuples(st.floats(0, 1), st.integers(1, 10**6)), min_size=1, max_size=30),
    st.builds(LinkConditions, st.floats(0, 1), st.floats(0, 1), st.floats(1e3, 1e10), st.floats(0, 1)),
)
def test_nothing_overtakes_or_arrives_early(
    seed: int, messages: list[tuple[float, int]], conditions: LinkConditions
) -> None:
    link, now, last = LinkModel(random.Random(seed)), 0.0, 0.0
    for pause, size in messages:
        now += pause
        arrival = link.arrival(now, size, conditions)
        assert arrival >= max(last, now + conditions.delay + 8 * size / conditions.rate - 1e-9)
        last = arrival


def test_a_loss_stalls_as_tcp_does() -> None:
    lossy = LinkConditions(delay=0.01, loss=1.0)
    assert LinkModel(random.Random(0)).arrival(0.0, 100, lossy) == pytest.approx(0.21)
    assert LinkModel(random.Random(0)).arrival(0.0, 10_000, lossy) == pytest.approx(0.03)


def test_a_link_is_as_slow_as_all_its_active_faults() -> None:
    slow, other, cut = parse_faults("slow link all by 1ms; limit link 0-1 to 1mbit for 5s; cut link 0-1 for 2s", 2, 0)
    link = LinkFaults((slow, other, cut), {slow: 0.0, other: 1.0, cut: 3.0}, random.Random(0))
    assert link.conditions(0.5) == LinkConditions(delay=0.001)
    assert link.conditions(2.0) == LinkConditions(delay=0.001, rate=1e6)
    assert [link.is_cut(now) for now in (2.9, 3.0, 4.9, 5.0)] == [False, True, True, False]
    assert not link.is_cut_for_ever(4.0)


def test_a_communicator_made_by_split_has_the_faults_of_all_links() -> None:
    faults = RankFaults(0, 4, "slow link 0-1 by 1ms; limit link all to 1mbit", 0)
    faults.start()
    world, part = faults.link(0, 4, 1), faults.link(0, 2, 1)
    assert world is not None
    assert part is not None
    assert world.conditions(1e12) == LinkConditions(delay=0.001, rate=1e6)
    assert part.conditions(1e12) == LinkConditions(rate=1e6)
    assert RankFaults(0, 4, "cut link 2-3", 0).link(0, 4, 1) is None


def test_an_invalid_seed_is_refused() -> None:
    with pytest.raises(ConfigError, match="invalid FMI_FAULTS_SEED 'x': expected a whole number"):
        start_faults(0, 2, {"FMI_FAULTS": "kill rank 0 at 1s", "FMI_FAULTS_SEED": "x"})


def test_a_network_becomes_faults_of_all_links() -> None:
    found = parse_faults("; ".join(network_faults(LinkConditions(0.002, 0.0005, 6e8, 0.001))), 2, 0)
    link = LinkFaults(found, dict.fromkeys(found, 0.0), random.Random(0))
    assert link.conditions(1.0) == LinkConditions(0.002, 0.0005, 6e8, 0.001)
    assert network_faults(LinkConditions()) == ()
    assert all(network_faults(preset.conditions) for preset in NETWORK_PRESETS.values())
