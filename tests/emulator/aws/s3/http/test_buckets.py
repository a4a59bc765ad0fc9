"""Configurations of buckets, and what is not emulated, by S3's model."""

import hashlib
from contextlib import closing
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError

from emulator.cloud import LocalCloud
from tests.emulator.signing import signed

METADATA_TABLE = {
    "S3TablesDestination": {"TableBucketArn": "arn:aws:s3tables:us-east-1:123456789012:bucket/b", "TableName": "t"}
}


@pytest.mark.parametrize(
    ("query", "document", "code"),
    [
        ("versioning", "", "MissingRequestBodyError"),
        ("versioning", "<VersioningConfiguration>", "MalformedXML"),
        ("versioning", "<Other/>", "MalformedXML"),
        (
            "versioning",
            "<VersioningConfiguration><Status>On</Status></VersioningConfiguration>",
            "MalformedXML",
        ),
        ("versioning", "<VersioningConfiguration/>", "IllegalVersioningConfigurationException"),
        ("lifecycle", "", "MissingRequestBodyError"),
        (
            "lifecycle",
            "<LifecycleConfiguration><Rule><Status>Perhaps</Status></Rule></LifecycleConfiguration>",
            "MalformedXML",
        ),
        ("tagging", "<Tagging><TagSet><Tag><Value>v</Value></Tag></TagSet></Tagging>", "MalformedXML"),
        ("cors", "<CORSConfiguration/>", "MalformedXML"),
        ("acl", "", "MissingSecurityHeader"),
    ],
)
def test_documents_are_checked_by_the_model(
    cloud: LocalCloud, bucket: str, query: str, document: str, code: str
) -> None:
    path = f"/{bucket}?{query}"
    assert code_of(cloud, "PUT", path, document.encode()) == code


def test_operations_that_are_not_emulated_are_named(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="a/key", Body=b"x")
    for call, arguments in (
        (s3.get_object_torrent, {"Key": "a/key"}),
        (s3.get_object_retention, {"Key": "a/key"}),
        (s3.restore_object, {"Key": "a/key", "RestoreRequest": {"Days": 1}}),
        (s3.create_bucket_metadata_table_configuration, {"MetadataTableConfiguration": METADATA_TABLE}),
    ):
        with pytest.raises(ClientError) as raised:
            call(Bucket=bucket, **arguments)
        error: Any = raised.value.response["Error"]
        assert error["Code"] == "NotImplemented"
        assert f"the operation {raised.value.operation_name} is not emulated" in error["Message"]


def code_of(cloud: LocalCloud, method: str, path: str, body: bytes) -> str:
    """Return the code of the error that a request without an SDK gets."""
    headers = {"x-amz-content-sha256": hashlib.sha256(body).hexdigest()}
    with closing(HTTPConnection(urlsplit(cloud.endpoint_url).netloc, timeout=30)) as connection:
        connection.request(method, path, body, signed(cloud, method, path, headers, body))
        response = connection.getresponse()
        text = response.read().decode()
    assert response.headers["x-amz-request-id"]
    return text.partition("<Code>")[2].partition("</Code>")[0]
