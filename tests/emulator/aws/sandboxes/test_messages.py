"""The messages on the zygote's socket, in any fragmentation."""

from hypothesis import given
from hypothesis import strategies as st

from emulator.aws.sandboxes.messages import (
    Exited,
    InitDone,
    Kill,
    Message,
    MessageDecoder,
    Spawn,
    Started,
    StartFailed,
    encode,
)

names = st.text(max_size=10)
messages = st.one_of(
    st.builds(
        Spawn,
        names,
        st.dictionaries(names, names, max_size=3),
        names,
        st.integers(0),
        st.integers(0),
        st.floats(0, 6),
        st.lists(names, max_size=3),
    ),
    st.builds(InitDone, names),
    st.builds(Kill, names),
    st.builds(Started, names, st.integers(1)),
    st.builds(StartFailed, names, names),
    st.builds(
        Exited, names, st.none() | st.integers(0, 255), st.none() | st.integers(1, 64), st.booleans(), st.integers(0)
    ),
)


@given(st.lists(messages, max_size=5), st.data())
def test_messages_in_any_pieces_are_decoded(sent: list[Message], data: st.DataObject) -> None:
    stream = b"".join(encode(message) for message in sent)
    decoder = MessageDecoder()
    received: list[Message] = []
    while stream:
        cut = data.draw(st.integers(1, len(stream)))
        received += decoder.feed(stream[:cut])
        stream = stream[cut:]
    assert received == sent
