"""TimerQueue against the obvious: a dictionary."""

from hypothesis import given
from hypothesis import strategies as st

from rendezvous.timer_queue import TimerQueue

steps = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.integers(0, 9), st.floats(0, 100)),
        st.tuples(st.just("drop"), st.integers(0, 9), st.just(0.0)),
        st.tuples(st.just("reached"), st.just(0), st.floats(0, 100)),
    ),
    max_size=300,
)


@given(steps)
def test_every_item_expires_when_its_last_deadline_is_reached(steps: list[tuple[str, int, float]]) -> None:
    deadlines: TimerQueue[int] = TimerQueue()
    model: dict[int, float] = {}
    for what, item, at in steps:
        if what == "set":
            deadlines.set(item, at)
            model[item] = at
        elif what == "drop":
            deadlines.drop(item)
            model.pop(item, None)
        else:
            due = {item for item, deadline in model.items() if deadline <= at}
            reached = deadlines.reached(at)
            assert set(reached) == due
            assert [model[item] for item in reached] == sorted(model[item] for item in due)
            model = {item: deadline for item, deadline in model.items() if item not in due}
        assert len(deadlines) == len(model)
        assert deadlines.next() == min(model.values(), default=None)


def test_removed_items_use_no_memory() -> None:
    deadlines: TimerQueue[int] = TimerQueue()
    for item in range(100_000):
        deadlines.set(item, 900.0 + item)
        deadlines.drop(item)
    assert len(deadlines._heap) < 1000
