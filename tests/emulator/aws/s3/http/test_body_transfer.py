"""Bodies between network and disk: the aws-chunked encoding, and the checks before an object is written."""

import base64
import http.client
import zlib
from hashlib import md5
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.aws.s3.http.chunked_encoding import ChunkedDecoder
from emulator.cloud import LocalCloud
from emulator.errors import ApiError
from tests.emulator.aws.s3.http.test_objects import LARGE, SMALL, refused
from tests.emulator.signing import signed


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
def test_content_and_trailers_are_decoded_from_any_split(
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
def test_a_body_truncated_before_its_last_chunk_is_incomplete(chunks: list[bytes], data: st.DataObject) -> None:
    wire = encoded(chunks, {})
    decoder = ChunkedDecoder()
    decoder.feed(wire[: data.draw(st.integers(0, len(wire) - len(b"0\r\n\r\n")))])
    with pytest.raises(ApiError) as refused:
        decoder.finish()
    assert refused.value.code == "IncompleteBody"


@pytest.mark.parametrize(
    "wire", [b"no hex\r\n", b"-5\r\nabc", b"f" * 5000, b"0\r\nno colon\r\n", b"0\r\n" + b"a:b\r\n" * 40]
)
def test_invalid_chunks_are_rejected(wire: bytes) -> None:
    with pytest.raises(ApiError, match="invalid aws-chunked encoding"):
        ChunkedDecoder().feed(wire)


@given(st.binary(max_size=200))
def test_any_bytes_are_decoded_or_rejected(wire: bytes) -> None:
    decoder = ChunkedDecoder()
    try:
        decoder.feed(wire)
        decoder.finish()
    except ApiError as refused:
        assert refused.code in ("InvalidRequest", "IncompleteBody")


def test_a_wrong_md5_is_rejected_and_nothing_is_written(s3: Any, bucket: str) -> None:
    wrong = base64.b64encode(md5(b"other").digest()).decode()
    refused("BadDigest", s3.put_object, Bucket=bucket, Key="key", Body=LARGE, ContentMD5=wrong)
    refused("InvalidDigest", s3.put_object, Bucket=bucket, Key="key", Body=LARGE, ContentMD5="no base64")
    refused("NoSuchKey", s3.get_object, Bucket=bucket, Key="key")
    right = base64.b64encode(md5(LARGE).digest()).decode()
    s3.put_object(Bucket=bucket, Key="key", Body=LARGE, ContentMD5=right)


@pytest.mark.parametrize("algorithm", ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"])
def test_checksums_are_verified_stored_and_returned(s3: Any, bucket: str, algorithm: str) -> None:
    put = s3.put_object(Bucket=bucket, Key="key", Body=LARGE, ChecksumAlgorithm=algorithm)
    got = s3.get_object(Bucket=bucket, Key="key", ChecksumMode="ENABLED")
    assert got["Body"].read() == LARGE
    assert got[f"Checksum{algorithm}"] == put[f"Checksum{algorithm}"]
    assert got["ChecksumType"] == "FULL_OBJECT"
    wrong = {f"Checksum{algorithm}": put[f"Checksum{algorithm}"]}
    refused("BadDigest", s3.put_object, Bucket=bucket, Key="key", Body=SMALL, **wrong)
    attributes = s3.get_object_attributes(Bucket=bucket, Key="key", ObjectAttributes=["Checksum", "ObjectSize"])
    assert attributes["Checksum"][f"Checksum{algorithm}"] == put[f"Checksum{algorithm}"]
    assert attributes["ObjectSize"] == len(LARGE)


def test_a_checksum_may_be_a_trailer(cloud: LocalCloud, s3: Any, bucket: str) -> None:
    def put(checksum: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(cloud.endpoint_url.removeprefix("http://"), timeout=20)
        wire = b"".join(b"%x\r\n%s\r\n" % (len(LARGE) // 2, half) for half in (LARGE[:256000], LARGE[256000:]))
        headers = {
            "Content-Encoding": "aws-chunked",
            "x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
            "x-amz-decoded-content-length": str(len(LARGE)),
            "x-amz-trailer": "x-amz-checksum-crc32",
        }
        path = f"/{bucket}/key"
        wire += f"0\r\nx-amz-checksum-crc32:{checksum}\r\n\r\n".encode()
        connection.request("PUT", path, wire, signed(cloud, "PUT", path, headers))
        answer = connection.getresponse()
        return answer.status, answer.read()

    crc = base64.b64encode(zlib.crc32(LARGE).to_bytes(4, "big")).decode()
    assert put(crc)[0] == 200
    got = s3.get_object(Bucket=bucket, Key="key", ChecksumMode="ENABLED")
    assert (got["Body"].read(), got["ChecksumCRC32"]) == (LARGE, crc)
    assert "ContentEncoding" not in got
    status, answer = put("AAAAAA==")
    assert (status, b"<Code>BadDigest</Code>" in answer) == (400, True)


def test_a_truncated_body_creates_no_object(cloud: LocalCloud, s3: Any, bucket: str) -> None:
    connection = http.client.HTTPConnection(cloud.endpoint_url.removeprefix("http://"), timeout=20)
    path = f"/{bucket}/key"
    connection.putrequest("PUT", path)
    headers = {"Content-Length": "1000000", "x-amz-content-sha256": "UNSIGNED-PAYLOAD"}
    for name, value in signed(cloud, "PUT", path, headers).items():
        connection.putheader(name, value)
    connection.endheaders()
    connection.send(LARGE[:500000])
    connection.close()
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
    s3.put_object(Bucket=bucket, Key="key", Body=SMALL)
    assert s3.get_object(Bucket=bucket, Key="key")["Body"].read() == SMALL
