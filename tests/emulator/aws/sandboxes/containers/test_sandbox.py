"""The daemon's stream of output."""

from hypothesis import given
from hypothesis import strategies as st

from emulator.aws.sandboxes.containers.sandbox import OutputFrames


@given(st.lists(st.binary(min_size=0, max_size=300), max_size=20), st.lists(st.integers(1, 40), min_size=1))
def test_frames_are_decoded_however_the_stream_is_cut(outputs: list[bytes], sizes: list[int]) -> None:
    stream = b"".join(bytes([1, 0, 0, 0]) + len(output).to_bytes(4) + output for output in outputs)
    frames, received, position, turn = OutputFrames(), b"", 0, 0
    while position < len(stream):
        size = sizes[turn % len(sizes)]
        received += b"".join(frames.feed(stream[position : position + size]))
        position, turn = position + size, turn + 1
    assert received == b"".join(outputs)
