import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmi_shim.pairing.handshake import HELLO_BYTES, Hello, NoHelloError, decode_hello

names = st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=24)
hellos = st.builds(Hello, names, st.integers(1, 2**31 - 1), st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1))


@given(hellos, st.integers(0, HELLO_BYTES - 1))
def test_a_hello_is_understood_once_it_is_whole(hello: Hello, cut: int) -> None:
    data = hello.encode()
    assert len(data) == HELLO_BYTES
    assert decode_hello(data[:cut]) is None
    assert decode_hello(data) == hello


@given(st.binary(max_size=2 * HELLO_BYTES))
def test_any_bytes_are_a_hello_or_none_or_an_error(data: bytes) -> None:
    try:
        decode_hello(data)
    except NoHelloError:
        assert data


def test_the_right_answer_raises_no_objection() -> None:
    hello = Hello("job", 4, 0, 1)
    assert hello.objection(Hello("job", 4, 1, 0)) is None


@pytest.mark.parametrize(
    ("answer", "objection"),
    [
        (Hello("job", 4, 0, 1), "two processes run as rank 0"),
        (Hello("job", 5, 1, 0), "rank 0 was started with 4 ranks, rank 1 with 5"),
        (Hello("job1", 4, 1, 0), "met rank 1 of 'job1', since FMI's pairing names run together"),
        (Hello("job", 4, 2, 0), "rank 0 expected rank 1 and met rank 2"),
    ],
)
def test_a_wrong_answer_is_explained(answer: Hello, objection: str) -> None:
    text = Hello("job", 4, 0, 1).objection(answer)
    assert text is not None
    assert objection in text
