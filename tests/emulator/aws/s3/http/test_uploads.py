"""Multipart uploads over HTTP."""

import io
from base64 import b64decode, b64encode
from hashlib import md5, sha256
from pathlib import Path
from typing import Any

import pytest
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

MIB = 1 << 20
BODY = b"".join(bytes([number % 251]) * 65536 for number in range(11 * 16))
PIECES = [BODY[: 5 * MIB], BODY[5 * MIB : 10 * MIB], BODY[10 * MIB :]]


def uploaded_parts(s3: Any, bucket: str, **settings: Any) -> tuple[str, list[dict[str, Any]]]:
    upload = s3.create_multipart_upload(Bucket=bucket, Key="key", **settings)["UploadId"]
    parts = []
    for number, piece in enumerate(PIECES, 1):
        given = {name: value for name, value in settings.items() if name == "ChecksumAlgorithm"}
        put = s3.upload_part(Bucket=bucket, Key="key", UploadId=upload, PartNumber=number, Body=piece, **given)
        checksums = {
            name: value for name, value in put.items() if name.startswith("Checksum") and name != "ChecksumType"
        }
        parts.append({"PartNumber": number, "ETag": put["ETag"], **checksums})
    return upload, parts


def test_boto3_transfers_large_files_in_parts(s3: Any, bucket: str, tmp_path: Path) -> None:
    config = TransferConfig(multipart_threshold=5 * MIB, multipart_chunksize=5 * MIB, max_concurrency=4)
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(BODY)
    s3.upload_file(str(source), bucket, "key", Config=config, ExtraArgs={"Metadata": {"own": "1"}})
    head = s3.head_object(Bucket=bucket, Key="key")
    assert (head["ContentLength"], head["Metadata"]) == (len(BODY), {"own": "1"})
    digests = b"".join(md5(piece).digest() for piece in PIECES)
    assert head["ETag"] == f'"{md5(digests).hexdigest()}-3"'
    s3.download_file(bucket, "key", str(target), Config=config)
    assert target.read_bytes() == BODY
    s3.copy({"Bucket": bucket, "Key": "key"}, bucket, "copy", Config=config)
    copied = io.BytesIO()
    s3.download_fileobj(bucket, "copy", copied)
    assert copied.getvalue() == BODY


@pytest.mark.parametrize(
    ("algorithm", "kind"),
    [("CRC32", "COMPOSITE"), ("CRC32", "FULL_OBJECT"), ("CRC64NVME", "FULL_OBJECT"), ("SHA256", "COMPOSITE")],
)
def test_the_checksum_of_an_object_is_combined_from_its_parts(s3: Any, bucket: str, algorithm: str, kind: str) -> None:
    upload, parts = uploaded_parts(s3, bucket, ChecksumAlgorithm=algorithm, ChecksumType=kind)
    done = s3.complete_multipart_upload(Bucket=bucket, Key="key", UploadId=upload, MultipartUpload={"Parts": parts})
    whole = s3.put_object(Bucket=bucket, Key="whole", Body=BODY, ChecksumAlgorithm=algorithm)
    found = s3.head_object(Bucket=bucket, Key="key", ChecksumMode="ENABLED")
    assert found[f"Checksum{algorithm}"] == done[f"Checksum{algorithm}"]
    assert found["ChecksumType"] == kind
    if kind == "FULL_OBJECT":
        assert found[f"Checksum{algorithm}"] == whole[f"Checksum{algorithm}"]
    else:
        assert found[f"Checksum{algorithm}"].endswith("-3")
    # boto3 verifies the whole as it reads it.
    assert s3.get_object(Bucket=bucket, Key="key")["Body"].read() == BODY


@pytest.mark.parametrize(
    ("created", "kind"), [("CRC32", "FULL_OBJECT"), ("CRC64NVME", "FULL_OBJECT"), ("SHA256", "COMPOSITE"), (None, None)]
)
def test_a_checksum_given_to_complete_is_the_objects(
    s3: Any, bucket: str, created: str | None, kind: str | None
) -> None:
    settings = {"ChecksumAlgorithm": created, "ChecksumType": kind} if created else {}
    upload, parts = uploaded_parts(s3, bucket, **settings)
    whole = s3.put_object(Bucket=bucket, Key="whole", Body=BODY, ChecksumAlgorithm=created or "CRC32")
    name = f"Checksum{created or 'CRC32'}"
    right = whole[name]
    if kind == "COMPOSITE":
        digests = b"".join(sha256(piece).digest() for piece in PIECES)
        right = f"{b64encode(sha256(digests).digest()).decode()}-3"
    wrong = b64encode(bytes(len(b64decode(right.partition("-")[0])))).decode()
    given = {"Bucket": bucket, "Key": "key", "UploadId": upload, "MultipartUpload": {"Parts": parts}}
    with pytest.raises(ClientError, match="BadDigest"):
        s3.complete_multipart_upload(**given, **{name: wrong})
    with pytest.raises(ClientError, match="InvalidRequest"):
        s3.complete_multipart_upload(**given, MpuObjectSize=len(BODY) + 1)
    if kind:
        other = "COMPOSITE" if kind == "FULL_OBJECT" else "FULL_OBJECT"
        with pytest.raises(ClientError, match="InvalidRequest"):
            s3.complete_multipart_upload(**given, ChecksumType=other)
    done = s3.complete_multipart_upload(**given, MpuObjectSize=len(BODY), **{name: right})
    if created:
        assert done[name] == right
    assert s3.get_object(Bucket=bucket, Key="key")["Body"].read() == BODY


@pytest.mark.parametrize("wanted", ["bytes=0-99", "bytes=5-", "bytes=-5", "bytes=7-6", "0-5", "bytes=0-1,3-4", "all"])
def test_a_range_of_a_copied_part_that_is_not_in_its_source_is_refused(s3: Any, bucket: str, wanted: str) -> None:
    s3.put_object(Bucket=bucket, Key="source", Body=b"0123456789")
    upload = s3.create_multipart_upload(Bucket=bucket, Key="key")["UploadId"]
    with pytest.raises(ClientError, match="InvalidArgument"):
        s3.upload_part_copy(
            Bucket=bucket,
            Key="key",
            UploadId=upload,
            PartNumber=1,
            CopySource={"Bucket": bucket, "Key": "source"},
            CopySourceRange=wanted,
        )
    assert "Parts" not in s3.list_parts(Bucket=bucket, Key="key", UploadId=upload)


def test_a_part_with_a_different_checksum_algorithm_is_rejected(s3: Any, bucket: str) -> None:
    upload = s3.create_multipart_upload(Bucket=bucket, Key="key", ChecksumAlgorithm="SHA256")["UploadId"]
    with pytest.raises(ClientError, match="expected checksum Type: sha256, actual checksum Type: crc32"):
        s3.upload_part(Bucket=bucket, Key="key", UploadId=upload, PartNumber=1, Body=b"", ChecksumAlgorithm="CRC32")


def test_parts_are_read_and_listed_separately(s3: Any, bucket: str) -> None:
    upload, parts = uploaded_parts(s3, bucket)
    assert [found["UploadId"] for found in s3.list_multipart_uploads(Bucket=bucket)["Uploads"]] == [upload]
    page = s3.list_parts(Bucket=bucket, Key="key", UploadId=upload, MaxParts=2)
    assert [found["Size"] for found in page["Parts"]] == [5 * MIB, 5 * MIB]
    assert (page["IsTruncated"], page["NextPartNumberMarker"]) == (True, 2)
    s3.complete_multipart_upload(Bucket=bucket, Key="key", UploadId=upload, MultipartUpload={"Parts": parts})
    got = s3.get_object(Bucket=bucket, Key="key", PartNumber=3)
    assert (got["Body"].read(), got["PartsCount"]) == (PIECES[2], 3)
    across = s3.get_object(Bucket=bucket, Key="key", Range=f"bytes={5 * MIB - 3}-{10 * MIB + 2}")
    assert across["Body"].read() == BODY[5 * MIB - 3 : 10 * MIB + 3]


def test_completing_twice_succeeds_and_other_operations_fail(s3: Any, bucket: str) -> None:
    upload, parts = uploaded_parts(s3, bucket)
    whole = {"Bucket": bucket, "Key": "key", "UploadId": upload, "MultipartUpload": {"Parts": parts}}
    assert s3.complete_multipart_upload(**whole)["ETag"] == s3.complete_multipart_upload(**whole)["ETag"]
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)
    with pytest.raises(ClientError, match="NoSuchUpload"):
        s3.upload_part(Bucket=bucket, Key="key", UploadId=upload, PartNumber=4, Body=b"")


@pytest.mark.parametrize(
    ("numbers", "code"), [([2, 1], "InvalidPartOrder"), ([1, 2, 4], "InvalidPart"), ([], "MalformedXML")]
)
def test_rejected_lists_of_parts(s3: Any, bucket: str, numbers: list[int], code: str) -> None:
    upload, parts = uploaded_parts(s3, bucket)
    etags = {part["PartNumber"]: part["ETag"] for part in parts}
    listed = [{"PartNumber": number, "ETag": etags.get(number, '"0"')} for number in numbers]
    with pytest.raises(ClientError) as raised:
        s3.complete_multipart_upload(Bucket=bucket, Key="key", UploadId=upload, MultipartUpload={"Parts": listed})
    assert raised.value.response["Error"]["Code"] == code
    s3.abort_multipart_upload(Bucket=bucket, Key="key", UploadId=upload)
    with pytest.raises(ClientError, match="NoSuchUpload"):
        s3.list_parts(Bucket=bucket, Key="key", UploadId=upload)


def test_all_parts_but_the_last_need_five_mebibytes(s3: Any, bucket: str) -> None:
    upload = s3.create_multipart_upload(Bucket=bucket, Key="key")["UploadId"]
    parts = []
    for number in (1, 2):
        put = s3.upload_part(Bucket=bucket, Key="key", UploadId=upload, PartNumber=number, Body=b"small")
        parts.append({"PartNumber": number, "ETag": put["ETag"]})
    with pytest.raises(ClientError, match="EntityTooSmall"):
        s3.complete_multipart_upload(Bucket=bucket, Key="key", UploadId=upload, MultipartUpload={"Parts": parts})
    s3.complete_multipart_upload(Bucket=bucket, Key="key", UploadId=upload, MultipartUpload={"Parts": parts[1:]})
    assert s3.get_object(Bucket=bucket, Key="key")["Body"].read() == b"small"


def test_a_part_may_be_a_range_of_another_object(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="large", Body=BODY)
    s3.put_object(Bucket=bucket, Key="small", Body=b"0123456789")
    upload = s3.create_multipart_upload(Bucket=bucket, Key="key")["UploadId"]
    parts = []
    for number, (source, last) in enumerate((("large", 6 * MIB), ("small", 4)), 1):
        copied = s3.upload_part_copy(
            Bucket=bucket,
            Key="key",
            UploadId=upload,
            PartNumber=number,
            CopySource={"Bucket": bucket, "Key": source},
            CopySourceRange=f"bytes=1-{last}",
        )
        parts.append({"PartNumber": number, "ETag": copied["CopyPartResult"]["ETag"]})
    assert parts[1]["ETag"] == f'"{md5(b"1234").hexdigest()}"'
    s3.delete_object(Bucket=bucket, Key="large")
    s3.complete_multipart_upload(Bucket=bucket, Key="key", UploadId=upload, MultipartUpload={"Parts": parts})
    assert s3.get_object(Bucket=bucket, Key="key")["Body"].read() == BODY[1 : 6 * MIB + 1] + b"1234"
