import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from rendezvous.protocol import ProtocolError
from rendezvous.registry import Pair, Registry


def test_the_second_client_of_a_name_is_paired_with_the_first() -> None:
    registry: Registry[str] = Registry()
    assert registry.receive("a", b"name") is None
    assert registry.receive("b", b"other") is None
    assert registry.receive("c", b"name") == Pair("a", "c")
    assert len(registry) == 1


def test_a_name_is_forgotten_once_it_is_paired() -> None:
    registry: Registry[str] = Registry()
    registry.receive("a", b"name")
    registry.receive("b", b"name")
    assert registry.receive("c", b"name") is None
    assert registry.receive("d", b"name") == Pair("c", "d")


def test_a_client_that_left_is_never_paired() -> None:
    registry: Registry[str] = Registry()
    registry.receive("a", b"name")
    registry.leave("a")
    registry.leave("a")
    assert registry.receive("b", b"name") is None


def test_a_name_in_pieces_grows_while_its_client_waits() -> None:
    registry: Registry[str] = Registry()
    assert registry.receive("a", b"job1_") is None
    assert registry.receive("b", b"job1_0") is None
    assert registry.receive("a", b"0") == Pair("b", "a")


def test_a_client_whose_name_grows_too_long_is_forgotten() -> None:
    registry: Registry[str] = Registry()
    registry.receive("a", b"x" * 60)
    with pytest.raises(ProtocolError):
        registry.receive("a", b"x" * 40)
    assert registry.receive("b", b"x" * 60) is None


class RegistryAgainstModel(RuleBasedStateMachine):
    """The model is a list of (client, name) in the order of coming; the first with the same name is the partner."""

    clients = Bundle("clients")

    def __init__(self) -> None:
        super().__init__()
        self.registry: Registry[int] = Registry()
        self.waiting: list[tuple[int, bytes]] = []
        self.born = 0

    @rule(target=clients, name=st.sampled_from([b"a", b"aa", b"b", b"x" * 99]))
    def come(self, name: bytes) -> int:
        self.born += 1
        self.hear(self.born, name)
        return self.born

    @rule(client=clients, more=st.sampled_from([b"a", b"b"]))
    def say_more(self, client: int, more: bytes) -> None:
        so_far = dict(self.waiting).get(client)
        if so_far is None:
            return  # paired or gone: the server passes nothing on
        if len(so_far + more) > 99:
            with pytest.raises(ProtocolError):
                self.registry.receive(client, more)
            self.waiting.remove((client, so_far))
            return
        self.waiting.remove((client, so_far))
        self.hear(client, more, so_far)

    @rule(client=consumes(clients))
    def go(self, client: int) -> None:
        self.registry.leave(client)
        self.waiting = [waiter for waiter in self.waiting if waiter[0] != client]

    def hear(self, client: int, data: bytes, so_far: bytes = b"") -> None:
        partner = next((waiter for waiter in self.waiting if waiter[1] == so_far + data), None)
        pair = self.registry.receive(client, data)
        if partner is None:
            assert pair is None
            self.waiting.append((client, so_far + data))
        else:
            assert pair == Pair(partner[0], client)
            self.waiting.remove(partner)

    @invariant()
    def nobody_alive_is_forgotten(self) -> None:
        assert len(self.registry) == len(self.waiting)


RegistryAgainstModel.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestRegistryAgainstModel = RegistryAgainstModel.TestCase
