"""Objects over HTTP, through boto3 and plain HTTP clients."""

import gzip
import urllib.parse
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import md5
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from emulator.cloud import LocalCloud

SMALL, LARGE = b"small body", bytes(range(256)) * 2000


def refused(code: str, call: Callable[..., Any], **arguments: Any) -> ClientError:
    with pytest.raises(ClientError) as raised:
        call(**arguments)
    assert raised.value.response["Error"]["Code"] == code
    return raised.value


@pytest.mark.parametrize("body", [b"", SMALL, LARGE])
def test_get_returns_the_body_and_metadata_that_were_put(s3: Any, bucket: str, body: bytes) -> None:
    metadata = {
        "CacheControl": "no-cache",
        "ContentDisposition": "attachment",
        "ContentEncoding": "identity",
        "ContentLanguage": "en",
        "ContentType": "text/plain",
        "Metadata": {"mixed-case": "Value", "empty": ""},
        "StorageClass": "STANDARD_IA",
    }
    etag = f'"{md5(body).hexdigest()}"'
    assert s3.put_object(Bucket=bucket, Key="key", Body=body, Tagging="a=1&b=two", **metadata)["ETag"] == etag
    got = s3.get_object(Bucket=bucket, Key="key")
    assert got["Body"].read() == body
    head = s3.head_object(Bucket=bucket, Key="key")
    for answer in (got, head):
        assert {name: answer[name] for name in metadata} == metadata
        assert (answer["ETag"], answer["ContentLength"], answer["TagCount"]) == (etag, len(body), 2)
        assert abs(answer["LastModified"] - datetime.now(UTC)) < timedelta(seconds=60)
    assert "VersionId" not in got


@pytest.mark.parametrize(
    "key",
    [
        "../../outside",
        "/absolute//double/",
        "a/./b/../c",
        "spaces and+plus%20percent?query#fragment",
        "quotes\"'<&>\r\n\t",
        "umlaut-ä-Ω-\U0001f600",
        "\x01\x7f",
        "x" * 1024,
    ],
)
def test_keys_are_names_not_paths(s3: Any, bucket: str, key: str) -> None:
    s3.put_object(Bucket=bucket, Key=key, Body=LARGE)
    assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == LARGE
    assert [found["Key"] for found in s3.list_objects_v2(Bucket=bucket)["Contents"]] == [key]
    s3.delete_object(Bucket=bucket, Key=key)
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_a_key_of_more_than_1024_bytes_is_rejected(s3: Any, bucket: str) -> None:
    refused("KeyTooLongError", s3.put_object, Bucket=bucket, Key="ä" * 513, Body=b"")


def test_a_compressed_body_stays_compressed(s3: Any, bucket: str) -> None:
    body = gzip.compress(LARGE)
    s3.put_object(Bucket=bucket, Key="key", Body=body, ContentEncoding="gzip")
    got = s3.get_object(Bucket=bucket, Key="key")
    assert (got["Body"].read(), got["ContentEncoding"]) == (body, "gzip")
    # Not gzip at all: S3 does not look.
    s3.put_object(Bucket=bucket, Key="key", Body=SMALL, ContentEncoding="gzip")
    assert s3.get_object(Bucket=bucket, Key="key")["Body"].read() == SMALL


@pytest.mark.parametrize("body", [SMALL, LARGE])
@pytest.mark.parametrize("wanted", ["bytes=2-5", "bytes=-4", "bytes=5-", "bytes=0-999999999"])
def test_ranges(s3: Any, bucket: str, body: bytes, wanted: str) -> None:
    s3.put_object(Bucket=bucket, Key="key", Body=body)
    first, _, last = wanted.removeprefix("bytes=").partition("-")
    expected = body[int(first) : int(last) + 1 if last else None] if first else body[-int(last) :]
    got = s3.get_object(Bucket=bucket, Key="key", Range=wanted)
    assert (got["Body"].read(), got["ResponseMetadata"]["HTTPStatusCode"]) == (expected, 206)
    start = int(first) if first else len(body) - int(last)
    assert got["ContentRange"] == f"bytes {start}-{start + len(expected) - 1}/{len(body)}"
    assert s3.head_object(Bucket=bucket, Key="key", Range=wanted)["ContentLength"] == len(expected)


def test_a_range_after_the_end_is_rejected(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="key", Body=SMALL)
    error = refused("InvalidRange", s3.get_object, Bucket=bucket, Key="key", Range="bytes=10-")
    assert error.response["Error"]["ActualObjectSize"] == "10"


def test_conditional_reads(s3: Any, bucket: str) -> None:
    etag = s3.put_object(Bucket=bucket, Key="key", Body=SMALL)["ETag"]
    before, after = datetime.now(UTC) - timedelta(hours=1), datetime.now(UTC) + timedelta(hours=1)
    for condition in ({"IfMatch": etag}, {"IfNoneMatch": '"other"'}, {"IfModifiedSince": before}):
        assert s3.get_object(Bucket=bucket, Key="key", **condition)["Body"].read() == SMALL
    refused("304", s3.get_object, Bucket=bucket, Key="key", IfNoneMatch=etag)
    refused("304", s3.head_object, Bucket=bucket, Key="key", IfModifiedSince=after)
    refused("PreconditionFailed", s3.get_object, Bucket=bucket, Key="key", IfMatch='"other"')
    refused("412", s3.head_object, Bucket=bucket, Key="key", IfUnmodifiedSince=before)


def test_conditional_writes(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="key", Body=SMALL, IfNoneMatch="*")
    refused("PreconditionFailed", s3.put_object, Bucket=bucket, Key="key", Body=LARGE, IfNoneMatch="*")
    refused("PreconditionFailed", s3.put_object, Bucket=bucket, Key="key", Body=LARGE, IfMatch='"other"')
    refused("NoSuchKey", s3.put_object, Bucket=bucket, Key="none", Body=LARGE, IfMatch='"other"')
    etag = s3.head_object(Bucket=bucket, Key="key")["ETag"]
    s3.put_object(Bucket=bucket, Key="key", Body=LARGE, IfMatch=etag)
    refused("PreconditionFailed", s3.delete_object, Bucket=bucket, Key="key", IfMatch=etag)
    assert s3.get_object(Bucket=bucket, Key="key")["Body"].read() == LARGE


@pytest.mark.parametrize("version", ["s3", "s3v4"])
def test_presigned_urls(cloud: LocalCloud, bucket: str, version: str) -> None:
    signer = boto3.client(
        "s3",
        endpoint_url=cloud.endpoint_url,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(signature_version=version),
    )
    put = signer.generate_presigned_url("put_object", {"Bucket": bucket, "Key": "a key", "ContentType": "text/plain"})
    request = urllib.request.Request(put, data=SMALL, method="PUT", headers={"Content-Type": "text/plain"})
    assert urllib.request.urlopen(request, timeout=20).status == 200
    get = signer.generate_presigned_url(
        "get_object", {"Bucket": bucket, "Key": "a key", "ResponseContentType": "application/x-other"}
    )
    with urllib.request.urlopen(get, timeout=20) as got:
        assert (got.read(), got.headers["Content-Type"]) == (SMALL, "application/x-other")


def test_requests_are_counted_by_method(cloud: LocalCloud, s3: Any, bucket: str) -> None:
    before = cloud.s3_requests()
    s3.put_object(Bucket=bucket, Key="key", Body=SMALL)
    s3.get_object(Bucket=bucket, Key="key")
    s3.head_object(Bucket=bucket, Key="key")
    after = cloud.s3_requests()
    assert {method: after[method] - before.get(method, 0) for method in ("PUT", "GET", "HEAD")} == {
        "PUT": 1,
        "GET": 1,
        "HEAD": 1,
    }


def test_a_copy_keeps_or_replaces_metadata_and_tags(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="a b", Body=LARGE, Metadata={"own": "1"}, ContentType="text/plain", Tagging="a=1")
    s3.copy_object(Bucket=bucket, Key="kept", CopySource={"Bucket": bucket, "Key": "a b"})
    kept = s3.get_object(Bucket=bucket, Key="kept")
    assert (kept["Body"].read(), kept["Metadata"], kept["ContentType"]) == (LARGE, {"own": "1"}, "text/plain")
    assert kept["TagCount"] == 1
    s3.copy_object(
        Bucket=bucket,
        Key="kept",
        CopySource={"Bucket": bucket, "Key": "kept"},
        Metadata={"other": "2"},
        MetadataDirective="REPLACE",
        TaggingDirective="REPLACE",
        Tagging="b=2",
    )
    replaced = s3.head_object(Bucket=bucket, Key="kept")
    assert (replaced["Metadata"], replaced["ContentType"]) == ({"other": "2"}, "binary/octet-stream")
    assert s3.get_object_tagging(Bucket=bucket, Key="kept")["TagSet"] == [{"Key": "b", "Value": "2"}]


def test_rejected_copies(s3: Any, bucket: str) -> None:
    etag = s3.put_object(Bucket=bucket, Key="key", Body=SMALL)["ETag"]
    source = {"Bucket": bucket, "Key": "key"}
    refused("InvalidRequest", s3.copy_object, Bucket=bucket, Key="key", CopySource=source)
    none = {"Bucket": bucket, "Key": "none"}
    refused("NoSuchKey", s3.copy_object, Bucket=bucket, Key="key", CopySource=none)
    refused(
        "PreconditionFailed",
        s3.copy_object,
        Bucket=bucket,
        Key="copy",
        CopySource=source,
        CopySourceIfNoneMatch=etag,
    )


def test_tags(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="key", Body=SMALL)
    tags = [{"Key": f"k{number}", "Value": "<&>"} for number in range(10)]
    s3.put_object_tagging(Bucket=bucket, Key="key", Tagging={"TagSet": tags})
    assert s3.get_object_tagging(Bucket=bucket, Key="key")["TagSet"] == tags
    too_many = {"TagSet": [*tags, {"Key": "eleventh", "Value": ""}]}
    refused("BadRequest", s3.put_object_tagging, Bucket=bucket, Key="key", Tagging=too_many)
    s3.delete_object_tagging(Bucket=bucket, Key="key")
    assert s3.get_object_tagging(Bucket=bucket, Key="key")["TagSet"] == []


def test_versions(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="key", Body=b"before")
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    first, second = (s3.put_object(Bucket=bucket, Key="key", Body=body)["VersionId"] for body in (b"1", b"2"))
    marker = s3.delete_object(Bucket=bucket, Key="key")
    assert marker["DeleteMarker"] is True
    error = refused("NoSuchKey", s3.get_object, Bucket=bucket, Key="key")
    assert error.response["ResponseMetadata"]["HTTPHeaders"]["x-amz-delete-marker"] == "true"
    refused("MethodNotAllowed", s3.get_object, Bucket=bucket, Key="key", VersionId=marker["VersionId"])
    for version_id, body in (("null", b"before"), (first, b"1"), (second, b"2")):
        assert s3.get_object(Bucket=bucket, Key="key", VersionId=version_id)["Body"].read() == body
    listed = s3.list_object_versions(Bucket=bucket)
    assert [found["VersionId"] for found in listed["Versions"]] == [second, first, "null"]
    assert [(found["VersionId"], found["IsLatest"]) for found in listed["DeleteMarkers"]] == [
        (marker["VersionId"], True)
    ]
    s3.delete_object(Bucket=bucket, Key="key", VersionId=marker["VersionId"])
    assert s3.get_object(Bucket=bucket, Key="key")["Body"].read() == b"2"
    refused("NoSuchVersion", s3.get_object, Bucket=bucket, Key="key", VersionId="none")
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})
    s3.put_object(Bucket=bucket, Key="key", Body=b"suspended")
    listed = s3.list_object_versions(Bucket=bucket)
    assert [found["VersionId"] for found in listed["Versions"]] == ["null", second, first]
    assert s3.get_object(Bucket=bucket, Key="key", VersionId="null")["Body"].read() == b"suspended"


def test_delete_objects(s3: Any, bucket: str) -> None:
    for key in "abc":
        s3.put_object(Bucket=bucket, Key=key, Body=SMALL)
    deleted = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "a"}, {"Key": "none"}]})["Deleted"]
    assert [found["Key"] for found in deleted] == ["a", "none"]
    assert "Deleted" not in s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "b"}], "Quiet": True})
    assert [found["Key"] for found in s3.list_objects(Bucket=bucket)["Contents"]] == ["c"]


def test_buckets(s3: Any, bucket: str) -> None:
    assert bucket in [found["Name"] for found in s3.list_buckets()["Buckets"]]
    assert s3.head_bucket(Bucket=bucket)["BucketRegion"] == "us-east-1"
    s3.put_object(Bucket=bucket, Key="key", Body=SMALL)
    refused("BucketNotEmpty", s3.delete_bucket, Bucket=bucket)
    s3.delete_object(Bucket=bucket, Key="key")
    s3.delete_bucket(Bucket=bucket)
    refused("NoSuchBucket", s3.put_object, Bucket=bucket, Key="key", Body=SMALL)
    refused("NoSuchBucket", s3.get_object, Bucket=bucket, Key="key")
    refused("404", s3.head_bucket, Bucket=bucket)


def test_moto_handles_the_configuration_of_a_bucket(s3: Any, bucket: str) -> None:
    tags = [{"Key": "team", "Value": "fmi"}]
    s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": tags})
    assert s3.get_bucket_tagging(Bucket=bucket)["TagSet"] == tags
    s3.delete_bucket_tagging(Bucket=bucket)
    refused("NoSuchTagSet", s3.get_bucket_tagging, Bucket=bucket)


def test_unsupported_operations_return_not_implemented(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="key", Body=SMALL)
    error = refused("NotImplemented", s3.put_object_acl, Bucket=bucket, Key="key", ACL="public-read")
    assert "access control lists of objects is not emulated" in str(error)
    refused("NotImplemented", s3.get_object_retention, Bucket=bucket, Key="key")


def test_a_bucket_may_be_in_the_host_name(cloud: LocalCloud, s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="folder/a key", Body=SMALL)
    request = urllib.request.Request(
        f"{cloud.endpoint_url}/{urllib.parse.quote('folder/a key')}", headers={"Host": f"{bucket}.s3.localhost:4566"}
    )
    assert urllib.request.urlopen(request, timeout=20).read() == SMALL
