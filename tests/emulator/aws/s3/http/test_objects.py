"""Objects over HTTP, through boto3 and plain HTTP clients."""

import gzip
import urllib.error
import urllib.parse
import urllib.request
from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import md5
from typing import Any

import boto3
import pytest
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.exceptions import ClientError

from emulator.cloud import LocalCloud
from tests.emulator.signing import signed

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
        **cloud.credentials.for_boto3(),
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
    s3.put_object_acl(Bucket=bucket, Key="key", ACL="private")
    error = refused("NotImplemented", s3.put_object_acl, Bucket=bucket, Key="key", ACL="public-read")
    assert "the access control list 'public-read' of an object is not emulated" in str(error)
    refused("NotImplemented", s3.get_object_retention, Bucket=bucket, Key="key")


def test_a_bucket_may_be_in_the_host_name(cloud: LocalCloud, s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="folder/a key", Body=SMALL)
    path = f"/{urllib.parse.quote('folder/a key')}"
    headers = signed(cloud, "GET", path, {"Host": f"{bucket}.s3.localhost:4566"})
    request = urllib.request.Request(f"{cloud.endpoint_url}{path}", headers=headers)
    assert urllib.request.urlopen(request, timeout=20).read() == SMALL


CUSTOMER_KEY = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": "0" * 32}
SOURCE_KEY = {"CopySourceSSECustomerAlgorithm": "AES256", "CopySourceSSECustomerKey": "0" * 32}
LOCK = {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": datetime(2099, 1, 1, tzinfo=UTC)}


@pytest.mark.parametrize(
    "settings",
    [
        {"ACL": "public-read"},
        {"ACL": "unknown"},
        {"GrantRead": "id=1"},
        CUSTOMER_KEY,
        LOCK,
        {"ObjectLockLegalHoldStatus": "ON"},
    ],
    ids=lambda settings: "-".join(settings),
)
def test_what_objects_cannot_have_is_refused_by_every_write(s3: Any, bucket: str, settings: dict[str, Any]) -> None:
    s3.put_object(Bucket=bucket, Key="source", Body=SMALL, ACL="bucket-owner-full-control")
    source = {"Bucket": bucket, "Key": "source"}
    refused("NotImplemented", s3.put_object, Bucket=bucket, Key="key", Body=SMALL, **settings)
    refused("NotImplemented", s3.create_multipart_upload, Bucket=bucket, Key="key", **settings)
    refused("NotImplemented", s3.copy_object, Bucket=bucket, Key="key", CopySource=source, **settings)
    assert [found["Key"] for found in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["source"]


def test_customer_keys_are_refused_by_reads_and_parts(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="key", Body=SMALL)
    upload = s3.create_multipart_upload(Bucket=bucket, Key="parts")["UploadId"]
    source = {"Bucket": bucket, "Key": "key"}
    part = {"Bucket": bucket, "Key": "parts", "UploadId": upload, "PartNumber": 1}
    refused("NotImplemented", s3.get_object, Bucket=bucket, Key="key", **CUSTOMER_KEY)
    refused("501", s3.head_object, Bucket=bucket, Key="key", **CUSTOMER_KEY)
    refused("NotImplemented", s3.upload_part, **part, Body=SMALL, **CUSTOMER_KEY)
    refused("NotImplemented", s3.upload_part_copy, **part, CopySource=source, **SOURCE_KEY)
    refused("NotImplemented", s3.copy_object, Bucket=bucket, Key="copy", CopySource=source, **SOURCE_KEY)


def test_object_lock_of_buckets_and_mfa_delete_are_refused(s3: Any, bucket: str) -> None:
    name = f"{bucket}-locked"
    refused("NotImplemented", s3.create_bucket, Bucket=name, ObjectLockEnabledForBucket=True)
    refused("404", s3.head_bucket, Bucket=name)
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    lock = {"ObjectLockEnabled": "Enabled"}
    refused("NotImplemented", s3.put_object_lock_configuration, Bucket=bucket, ObjectLockConfiguration=lock)
    refused("ObjectLockConfigurationNotFoundError", s3.get_object_lock_configuration, Bucket=bucket)
    mfa = {"Status": "Enabled", "MFADelete": "Enabled"}
    refused("NotImplemented", s3.put_bucket_versioning, Bucket=bucket, VersioningConfiguration=mfa)


def test_another_expected_owner_is_refused(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="key", Body=SMALL, ExpectedBucketOwner="123456789012")
    refused("AccessDenied", s3.put_object, Bucket=bucket, Key="key", Body=LARGE, ExpectedBucketOwner="210987654321")
    refused("403", s3.head_bucket, Bucket=bucket, ExpectedBucketOwner="210987654321")


def test_replication_requires_versioning_and_keeps_its_configuration(s3: Any, bucket: str) -> None:
    role, target = "arn:aws:iam::123456789012:role/r", f"arn:aws:s3:::{bucket}"
    rule = {"ID": "1", "Status": "Enabled", "Prefix": "", "Destination": {"Bucket": target}}
    given = {"Bucket": bucket, "ReplicationConfiguration": {"Role": role, "Rules": [rule]}}
    refused("InvalidRequest", s3.put_bucket_replication, **given)
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    s3.put_bucket_replication(**given)
    assert s3.get_bucket_replication(Bucket=bucket)["ReplicationConfiguration"]["Role"] == role


def test_default_encryption_is_shown(s3: Any, bucket: str) -> None:
    rules = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"]
    assert rules[0]["ApplyServerSideEncryptionByDefault"] == {"SSEAlgorithm": "AES256"}
    assert s3.put_object(Bucket=bucket, Key="key", Body=SMALL)["ServerSideEncryption"] == "AES256"
    assert s3.head_object(Bucket=bucket, Key="key")["ServerSideEncryption"] == "AES256"
    by_key = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": "arn:aws:kms:us-east-1:123456789012:key/1"}
    rule = {"ApplyServerSideEncryptionByDefault": by_key, "BucketKeyEnabled": True}
    s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": [rule]})
    assert s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"][0] == rule
    shown = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": by_key["KMSMasterKeyID"], "BucketKeyEnabled": True}
    source = {"Bucket": bucket, "Key": "key"}
    for answer in (
        s3.put_object(Bucket=bucket, Key="new", Body=SMALL),
        s3.copy_object(Bucket=bucket, Key="copy", CopySource=source),
        s3.create_multipart_upload(Bucket=bucket, Key="parts"),
        s3.get_object(Bucket=bucket, Key="new"),
        s3.head_object(Bucket=bucket, Key="copy"),
    ):
        assert {name: answer[name] for name in shown} == shown
    own = s3.put_object(Bucket=bucket, Key="own", Body=SMALL, ServerSideEncryption="AES256")
    assert (own["ServerSideEncryption"], "SSEKMSKeyId" in own) == ("AES256", False)
    assert s3.head_object(Bucket=bucket, Key="key")["ServerSideEncryption"] == "AES256"
    s3.delete_bucket_encryption(Bucket=bucket)
    assert s3.put_object(Bucket=bucket, Key="key", Body=SMALL)["ServerSideEncryption"] == "AES256"


def test_unknown_encryption_is_refused(s3: Any, bucket: str) -> None:
    refused(
        "InvalidEncryptionAlgorithmError", s3.put_object, Bucket=bucket, Key="key", Body=b"", ServerSideEncryption="x"
    )
    refused("InvalidArgument", s3.put_object, Bucket=bucket, Key="key", Body=b"", SSEKMSKeyId="key")
    rules = [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "x"}}]
    refused(
        "MalformedXML",
        s3.put_bucket_encryption,
        Bucket=bucket,
        ServerSideEncryptionConfiguration={"Rules": rules},
    )


def test_every_response_has_a_request_id(s3: Any, bucket: str) -> None:
    upload = s3.create_multipart_upload(Bucket=bucket, Key="key")
    answers = [
        upload,
        s3.abort_multipart_upload(Bucket=bucket, Key="key", UploadId=upload["UploadId"]),
        s3.put_object(Bucket=bucket, Key="key", Body=LARGE),
        s3.get_object(Bucket=bucket, Key="key"),
        s3.head_object(Bucket=bucket, Key="key"),
        s3.list_objects_v2(Bucket=bucket),
        s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": []}),
        s3.get_bucket_encryption(Bucket=bucket),
        s3.list_buckets(),
        s3.delete_object(Bucket=bucket, Key="key"),
        refused("NoSuchKey", s3.get_object, Bucket=bucket, Key="key").response,
        s3.delete_bucket(Bucket=bucket),
    ]
    ids = [answer["ResponseMetadata"]["HTTPHeaders"]["x-amz-request-id"] for answer in answers]
    assert len(set(ids)) == len(answers)
    assert all(len(request_id) == 16 for request_id in ids)


@pytest.mark.parametrize(
    "name",
    [
        "ab",
        "Upper",
        "under_score",
        "two..dots",
        "-begin",
        "end-",
        "end.",
        "192.168.1.1",
        "xn--a",
        "sthree-a",
        "a-s3alias",
    ],
)
def test_names_that_aws_refuses_are_refused(s3: Any, name: str) -> None:
    refused("InvalidBucketName", s3.create_bucket, Bucket=name)


@pytest.mark.parametrize("name", ["abc", "a.b-c.1", "1.2.3.4.5", "x" * 63])
def test_other_names_are_valid(s3: Any, name: str) -> None:
    s3.create_bucket(Bucket=name)
    s3.delete_bucket(Bucket=name)


@pytest.mark.parametrize("given", ["ContentMD5", "ChecksumSHA256", "ChecksumCRC32"])
def test_the_checksums_of_documents_are_verified(s3: Any, bucket: str, given: str) -> None:
    wrong = {"ContentMD5": md5(b"").digest(), "ChecksumSHA256": bytes(32), "ChecksumCRC32": bytes(4)}[given]
    headers = {
        "ContentMD5": "Content-MD5",
        "ChecksumSHA256": "x-amz-checksum-sha256",
        "ChecksumCRC32": "x-amz-checksum-crc32",
    }

    def spoil(request: Any, **_: Any) -> None:
        for name in list(request.headers):
            if "checksum" in name.lower() or name.lower() == "content-md5":
                del request.headers[name]
        request.headers[headers[given]] = b64encode(wrong).decode()

    s3.meta.events.register_first("before-sign.s3.*", spoil)
    try:
        tags = {"TagSet": [{"Key": "a", "Value": "b"}]}
        refused("BadDigest", s3.put_bucket_tagging, Bucket=bucket, Tagging=tags)
        refused("BadDigest", s3.delete_objects, Bucket=bucket, Delete={"Objects": [{"Key": "a"}]})
    finally:
        s3.meta.events.unregister("before-sign.s3.*", spoil)
    refused("NoSuchTagSet", s3.get_bucket_tagging, Bucket=bucket)


def refused_put(s3: Any, bucket: str, headers: dict[str, str]) -> tuple[int, bytes]:
    """Put an object by a signed request without an SDK, which is refused; return status and body of the response."""
    url = f"{s3.meta.endpoint_url}/{bucket}/key"
    signed = AWSRequest("PUT", url, headers=headers, data=SMALL)
    S3SigV4Auth(s3._request_signer._credentials, "s3", "us-east-1").add_auth(signed)
    request = urllib.request.Request(url, data=SMALL, method="PUT", headers=dict(signed.headers.items()))
    with pytest.raises(urllib.error.HTTPError) as raised:
        urllib.request.urlopen(request, timeout=20)
    return raised.value.code, raised.value.read()


def test_the_checksum_in_a_presigned_url_is_ignored(s3: Any, bucket: str) -> None:
    """The JavaScript SDK signs the checksum of an empty body into its URLs for uploads."""
    query = "x-amz-checksum-crc32=AAAAAA%3D%3D&x-amz-sdk-checksum-algorithm=CRC32&x-amz-meta-own=1"
    signed = AWSRequest("PUT", f"{s3.meta.endpoint_url}/{bucket}/key?{query}")
    S3SigV4QueryAuth(s3._request_signer._credentials, "s3", "us-east-1", expires=60).add_auth(signed)
    request = urllib.request.Request(signed.url, data=SMALL, method="PUT")
    assert urllib.request.urlopen(request, timeout=20).status == 200
    got = s3.get_object(Bucket=bucket, Key="key", ChecksumMode="ENABLED")
    assert (got["Body"].read(), got["Metadata"]) == (SMALL, {"own": "1"})
    assert "ChecksumCRC32" not in got


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"x-amz-checksum-crc32": "AAAAAA=="}, b"BadDigest"),
        ({"x-amz-checksum-crc32": "AAAA"}, b"InvalidRequest"),
        ({"x-amz-checksum-crc32": "no base64!"}, b"InvalidRequest"),
        ({"x-amz-checksum-crc32": "AAAAAA==", "x-amz-checksum-crc32c": "AAAAAA=="}, b"InvalidRequest"),
        ({"x-amz-checksum-md9": "AAAAAA=="}, b"InvalidRequest"),
        ({"x-amz-checksum-crc32": "AAAAAA==", "x-amz-sdk-checksum-algorithm": "SHA256"}, b"InvalidRequest"),
        ({"x-amz-trailer": "x-amz-checksum-crc32"}, b"MalformedTrailerError"),
        ({"x-amz-trailer": "x-amz-checksum-md9"}, b"InvalidRequest"),
    ],
)
def test_checksums_that_cannot_be_verified_are_refused(
    s3: Any, bucket: str, headers: dict[str, str], code: bytes
) -> None:
    status, answer = refused_put(s3, bucket, headers)
    assert status == 400
    assert b"<Code>" + code + b"</Code>" in answer
