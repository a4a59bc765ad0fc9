"""The channel that each call takes, and when channels are opened and closed. The transports record their calls."""

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest

from fmi_shim.channel import Channel
from fmi_shim.config import ChannelName, Config, Model, Sharing
from fmi_shim.errors import ConfigError
from fmi_shim.frames import Call, Operation
from fmi_shim.selection import selector
from fmi_shim.selection.model import Pattern, Task
from fmi_shim.selection.policy import Hint
from fmi_shim.selection.selector import ChannelSelector
from fmi_shim.transports.catalog import Place, Transport

DOUBLE = np.dtype(np.float64)


class RecordingChannel:
    """Records that it failed or was closed."""

    def __init__(self, name: ChannelName, closing_raises: bool = False) -> None:
        self.name = name
        self.events: list[str] = []
        self.completed = 0
        self._closing_raises = closing_raises

    def complete_posted(self) -> None:
        self.completed += 1

    def fail(self, error: BaseException) -> None:
        self.events.append(str(error))

    def close(self) -> None:
        self.events.append("close")
        if self._closing_raises:
            raise OSError("the connection is gone")


class Transports:
    """Replaces the transports by ones that record what they open."""

    def __init__(self, *names: ChannelName, refused: ChannelName | None = None) -> None:
        self.opened: list[RecordingChannel] = []
        self.refused = refused
        self.table = {name: Transport(name, lambda _: True, self._opener(name)) for name in names}

    def _opener(self, name: ChannelName) -> Callable[[Place], Channel]:
        def open_channel(place: Place) -> Channel:
            if name is self.refused:
                raise ConfigError("rank 1 has no shared memory")
            self.opened.append(RecordingChannel(name, closing_raises=not self.opened))
            return cast("Channel", self.opened[-1])

        return open_channel

    @property
    def names(self) -> list[ChannelName]:
        return [channel.name for channel in self.opened]


def selector_of(
    monkeypatch: pytest.MonkeyPatch, transports: Transports, size: int = 4, sharing: Sharing = Sharing.if_fast
) -> ChannelSelector:
    monkeypatch.setattr(selector, "TRANSPORTS", transports.table)
    return ChannelSelector(0, size, "world", Config(None, None, None, Model(), True, sharing, None), 128)


def call(operation: Operation, **more: Any) -> Call:
    return Call(operation, 0, DOUBLE, 10, **more)


def test_a_channel_is_opened_once_when_it_is_first_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    transports = Transports(ChannelName.Direct)
    chosen = selector_of(monkeypatch, transports)
    assert chosen.names == (ChannelName.Direct,)
    assert chosen.hint is Hint.cheap
    assert transports.names == []
    first = chosen.choose(call(Operation.bcast))
    assert chosen.choose(call(Operation.reduce)) is first
    assert transports.names == [ChannelName.Direct]


def test_shared_memory_is_tried_in_the_first_fast_collective_only(monkeypatch: pytest.MonkeyPatch) -> None:
    transports = Transports(ChannelName.Direct, ChannelName.SharedMemory)
    chosen = selector_of(monkeypatch, transports)
    chosen.choose(call(Operation.bcast))
    chosen.hint = Hint.fast
    chosen.choose(call(Operation.send), 1)
    assert transports.names == [ChannelName.Direct]
    assert chosen.names == (ChannelName.Direct,)
    assert transports.opened[0].completed == 0
    chosen.choose(call(Operation.allreduce))
    assert transports.opened[0].completed == 1
    assert transports.names == [ChannelName.Direct, ChannelName.SharedMemory]
    assert chosen.names == (ChannelName.Direct, ChannelName.SharedMemory)
    assert cast("Any", chosen.choose(call(Operation.bcast))).name is ChannelName.SharedMemory
    assert len(transports.opened) == 2


def test_ranks_that_cannot_share_memory_use_the_network_and_try_once(monkeypatch: pytest.MonkeyPatch) -> None:
    transports = Transports(ChannelName.Direct, ChannelName.SharedMemory, refused=ChannelName.SharedMemory)
    chosen = selector_of(monkeypatch, transports)
    chosen.hint = Hint.fast
    assert cast("Any", chosen.choose(call(Operation.bcast))).name is ChannelName.Direct
    transports.refused = None
    chosen.choose(call(Operation.bcast))
    assert transports.names == [ChannelName.Direct]


def test_a_lone_rank_does_not_try_to_share_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    transports = Transports(ChannelName.Direct, ChannelName.SharedMemory)
    chosen = selector_of(monkeypatch, transports, size=1)
    chosen.hint = Hint.fast
    chosen.choose(call(Operation.bcast))
    assert transports.names == [ChannelName.Direct]
    two = Transports(ChannelName.Direct, ChannelName.SharedMemory)
    pair = selector_of(monkeypatch, two, size=2)
    pair.hint = Hint.fast
    pair.choose(call(Operation.bcast))
    assert two.names == [ChannelName.SharedMemory]


def test_required_shared_memory_is_the_only_channel_from_the_first_collective_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    transports = Transports(ChannelName.Direct, ChannelName.Redis, ChannelName.SharedMemory)
    chosen = selector_of(monkeypatch, transports, sharing=Sharing.always)
    assert cast("Any", chosen.choose(call(Operation.send), 1)).name is ChannelName.Direct
    for hint in (Hint.cheap, Hint.fast):
        chosen.hint = hint
        assert cast("Any", chosen.choose(call(Operation.bcast))).name is ChannelName.SharedMemory
        assert cast("Any", chosen.choose(call(Operation.send), 1)).name is ChannelName.SharedMemory
    assert transports.names == [ChannelName.Direct, ChannelName.SharedMemory]


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (call(Operation.bcast), 80),
        (call(Operation.bcast, shape=(10,)), 0),
        (call(Operation.send, shape=(10,)), 0),
        (call(Operation.scatter, shape=(10,)), 0),
        (call(Operation.gather, shape=(10,)), 80),
        (call(Operation.reduce, shape=(10,)), 80),
        (Call(Operation.bcast, 0, None, 10), 0),
    ],
)
def test_the_choice_goes_by_the_size_that_all_ranks_know(
    made: Call, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[tuple[ChannelName, ...], Task, int, Hint]] = []

    def choose(names: tuple[ChannelName, ...], task: Task, _: Model, memory_mib: int, hint: Hint) -> ChannelName:
        asked.append((names, task, memory_mib, hint))
        return ChannelName.S3

    monkeypatch.setattr(selector, "choose", choose)
    transports = Transports(ChannelName.Direct, ChannelName.S3)
    chosen = selector_of(monkeypatch, transports)
    assert cast("Any", chosen.choose(made)).name is ChannelName.S3
    [(names, task, memory_mib, hint)] = asked
    assert names == (ChannelName.Direct, ChannelName.S3)
    assert (task.pattern, task.size_bytes, task.ranks) == (Pattern.of(made.operation), expected, 4)
    assert (memory_mib, hint) == (128, Hint.cheap)


def test_all_channels_fail_and_close_even_if_closing_one_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    transports = Transports(ChannelName.Direct, ChannelName.SharedMemory)
    chosen = selector_of(monkeypatch, transports)
    chosen.choose(call(Operation.bcast))
    chosen.hint = Hint.fast
    chosen.choose(call(Operation.bcast))
    chosen.fail(ValueError("stop"))
    assert [channel.events for channel in transports.opened] == [["stop"], ["stop"]]
    with pytest.raises(OSError, match="the connection is gone"):
        chosen.close()
    assert [channel.events for channel in transports.opened] == [["stop", "close"], ["stop", "close"]]
