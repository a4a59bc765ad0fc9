import uuid

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


def test_a_name_is_removed_once_it_is_paired() -> None:
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


def test_a_client_whose_name_grows_too_long_is_removed() -> None:
    registry: Registry[str] = Registry()
    registry.receive("a", b"x" * 60)
    with pytest.raises(ProtocolError):
        registry.receive("a", b"x" * 40)
    assert registry.receive("b", b"x" * 60) is None


def test_the_oldest_wait_of_the_address_with_most_is_evicted() -> None:
    registry: Registry[str] = Registry()
    for number, address in enumerate(["modest", "greedy", "greedy", "greedy"]):
        registry.request(str(number), b"name%d" % number, None, uuid.UUID(int=number), 0.0)
        registry.leave(str(number), address)
    assert [registry.remembered_of(address) for address in ("modest", "greedy", "none")] == [1, 3, 0]
    assert registry.evict()
    assert registry.evict("greedy")
    assert not registry.evict("none")
    assert [registry.remembered_of(address) for address in ("modest", "greedy")] == [1, 1]
    fresh = uuid.UUID(int=9)
    assert registry.request("back", b"name3", uuid.UUID(int=3), fresh, 1.0).token == uuid.UUID(int=3)
    assert registry.request("gone", b"name1", uuid.UUID(int=1), fresh, 1.0).token == fresh
    assert registry.remembered == 1
    assert registry.evict()
    assert not registry.evict()


class RegistryAgainstModel(RuleBasedStateMachine):
    """The model is a list of (client, name) of those alive, in the order of coming: the first of a name is the partner.

    Tokens of waits are kept beside it: what a client of version 2 that comes back may resume.
    """

    clients = Bundle("clients")
    names = st.sampled_from([b"a", b"aa", b"b", b"x" * 99])

    def __init__(self) -> None:
        super().__init__()
        self.registry: Registry[int] = Registry()
        self.waiting: list[tuple[int, bytes]] = []
        self.tokens: dict[uuid.UUID, tuple[int | None, bytes, float]] = {}
        self.born = 0
        self.left: dict[uuid.UUID, str] = {}

    def newborn(self) -> int:
        self.born += 1
        return self.born

    @rule(target=clients, name=names)
    def come(self, name: bytes) -> int:
        client = self.newborn()
        self.settle(client, name, self.registry.receive(client, name))
        return client

    @rule(target=clients, name=names, draw=st.data(), resume=st.booleans())
    def request(self, name: bytes, draw: st.DataObject, resume: bool) -> int:
        client, now = self.newborn(), float(self.born)
        token = draw.draw(st.sampled_from(sorted(self.tokens))) if resume and self.tokens else None
        fresh = uuid.UUID(int=client)
        live = token is not None and self.tokens[token][1] == name
        before = self.tokens[token] if token is not None and live else (None, name, now)
        admission = self.registry.request(client, name, token, fresh, now)
        assert admission.token == (token if live else fresh)
        assert admission.since == before[2]
        assert admission.replaced == before[0]
        self.waiting = [waiter for waiter in self.waiting if waiter[0] != admission.replaced]
        self.tokens[admission.token] = (client, name, admission.since)
        self.settle(client, name, admission.pair)
        return client

    @rule(client=clients, more=st.sampled_from([b"a", b"b"]))
    def say_more(self, client: int, more: bytes) -> None:
        so_far = dict(self.waiting).get(client)
        if so_far is None or any(owner == client for owner, _, _ in self.tokens.values()):
            return  # paired, gone or of version 2: the server passes nothing on
        self.waiting.remove((client, so_far))
        if len(so_far + more) > 99:
            with pytest.raises(ProtocolError):
                self.registry.receive(client, more)
        else:
            self.settle(client, so_far + more, self.registry.receive(client, more))

    @rule(client=consumes(clients), address=st.sampled_from(["1.1.1.1", "2.2.2.2"]))
    def go(self, client: int, address: str) -> None:
        token = self.registry.leave(client, address)
        owned = [found for found, (owner, _, _) in self.tokens.items() if owner == client]
        assert owned == ([] if token is None else [token])
        if token is not None:
            self.tokens[token] = (None, *self.tokens[token][1:])
            self.left.pop(token, None)
            self.left[token] = address
        self.waiting = [waiter for waiter in self.waiting if waiter[0] != client]

    @rule(draw=st.data())
    def forget(self, draw: st.DataObject) -> None:
        if self.tokens:
            token = draw.draw(st.sampled_from(sorted(self.tokens)))
            self.registry.forget(token)
            if self.tokens[token][0] is None:
                del self.tokens[token]

    @rule(address=st.sampled_from(["1.1.1.1", "2.2.2.2"]))
    def evict(self, address: str) -> None:
        known = self.tokens
        broken = [token for token, place in self.left.items() if place == address and known.get(token, [0])[0] is None]
        assert self.registry.remembered_of(address) == len(broken)
        assert self.registry.evict(address) == bool(broken)
        if broken:
            del self.tokens[broken[0]]

    def settle(self, client: int, name: bytes, pair: Pair[int] | None) -> None:
        """Compare what came of an arrival with the model, whose five lines these are."""
        partner = next((waiter for waiter in self.waiting if waiter[1] == name), None)
        assert pair == (None if partner is None else Pair(partner[0], client))
        self.waiting = [waiter for waiter in self.waiting if waiter != partner] + [(client, name)] * (partner is None)
        done = set() if pair is None else {pair.first, pair.second}
        self.tokens = {token: wait for token, wait in self.tokens.items() if wait[0] not in done}

    @invariant()
    def nobody_alive_is_forgotten_and_nobody_else_remembered(self) -> None:
        assert len(self.registry) == len(self.waiting)
        assert all(name in self.registry for _, name in self.waiting)
        assert self.registry.remembered == sum(owner is None for owner, _, _ in self.tokens.values())


RegistryAgainstModel.TestCase.settings = settings(max_examples=80, stateful_step_count=30)
TestRegistryAgainstModel = RegistryAgainstModel.TestCase
