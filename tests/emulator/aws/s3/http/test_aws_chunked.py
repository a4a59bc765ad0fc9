"""The aws-chunked encoding, however the network cuts it up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.aws.s3.http.aws_chunked import ChunkedDecoder
from emulator.errors import ApiError


def encoded(chunks: list[bytes], trailers: dict[str, str], extension: str = "") -> bytes:
    lines = b"".join(b"%x%s\r\n%s\r\n" % (len(chunk), extension.encode(), chunk) for chunk in chunks)
    ends = "".join(f"{name}:{value}\r\n" for name, value in trailers.items()).encode()
    return lines + b"0" + extension.encode() + b"\r\n" + ends + b"\r\n"


@given(
    st.lists(st.binary(min_size=1, max_size=50), max_size=5),
    st.dictionaries(
        st.from_regex(r"x-amz-[a-z0-9]{1,9}", fullmatch=True),
        st.from_regex(r"[A-Za-z0-9=+/]{1,9}", fullmatch=True),
        max_size=32,
    ),
    st.sampled_from(["", ";chunk-signature=0123abcd"]),
    st.data(),
)
def test_content_and_trailers_come_out_of_any_pieces(
    chunks: list[bytes], trailers: dict[str, str], extension: str, data: st.DataObject
) -> None:
    wire = encoded(chunks, trailers, extension)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=8)))
    decoder = ChunkedDecoder()
    content = [
        piece
        for start, end in zip([0, *cuts], [*cuts, len(wire)], strict=True)
        for piece in decoder.feed(wire[start:end])
    ]
    decoder.finish()
    assert b"".join(content) == b"".join(chunks)
    assert decoder.trailers == trailers


@given(st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=3), st.data())
def test_a_body_cut_off_before_its_last_chunk_is_incomplete(chunks: list[bytes], data: st.DataObject) -> None:
    wire = encoded(chunks, {})
    decoder = ChunkedDecoder()
    decoder.feed(wire[: data.draw(st.integers(0, len(wire) - len(b"0\r\n\r\n")))])
    with pytest.raises(ApiError) as refused:
        decoder.finish()
    assert refused.value.code == "IncompleteBody"


@pytest.mark.parametrize(
    "wire", [b"no hex\r\n", b"-5\r\nabc", b"f" * 5000, b"0\r\nno colon\r\n", b"0\r\n" + b"a:b\r\n" * 40]
)
def test_what_is_no_chunk_is_refused(wire: bytes) -> None:
    with pytest.raises(ApiError, match="not in the aws-chunked encoding"):
        ChunkedDecoder().feed(wire)


@given(st.binary(max_size=200))
def test_any_bytes_are_taken_or_refused(wire: bytes) -> None:
    decoder = ChunkedDecoder()
    try:
        decoder.feed(wire)
        decoder.finish()
    except ApiError as refused:
        assert refused.code in ("InvalidRequest", "IncompleteBody")
