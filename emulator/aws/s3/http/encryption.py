"""Server-side encryption: what requests and buckets ask for, which is shown but not done.

Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/default-bucket-encryption.html
"""

import functools
from collections.abc import Mapping
from dataclasses import replace

from emulator.aws.s3.core.errors import bad_request
from emulator.aws.s3.core.tables import ObjectMetadata
from emulator.aws.s3.http import xml

ENCRYPTION = "x-amz-server-side-encryption"
_KEY_ID, _BUCKET_KEY = f"{ENCRYPTION}-aws-kms-key-id", f"{ENCRYPTION}-bucket-key-enabled"
_ALGORITHMS = ("AES256", "aws:kms", "aws:kms:dsse")


def check_encryption(headers: Mapping[str, str]) -> None:
    """Check what a request asks for.

    Raises
    ------
    ApiError
        InvalidEncryptionAlgorithmError or InvalidArgument.
    """
    algorithm = headers.get(ENCRYPTION)
    if algorithm not in (None, *_ALGORITHMS):
        message = (
            "The encryption request that you specified is not valid: expected one of "
            f"{', '.join(_ALGORITHMS)}, got {algorithm!r:.80}"
        )
        raise bad_request("InvalidEncryptionAlgorithmError", message)
    if _KEY_ID in headers and algorithm in (None, "AES256"):
        message = "Server Side Encryption with AWS KMS managed key requires HTTP header x-amz-server-side-encryption : "
        raise bad_request("InvalidArgument", f"{message}aws:kms")


def encrypted(metadata: ObjectMetadata, document: bytes | None) -> ObjectMetadata:
    """Return an object's metadata with the encryption that its bucket's configuration prescribes, if it has none."""
    if ENCRYPTION in metadata.headers:
        return metadata
    return replace(metadata, headers={**metadata.headers, **default_encryption(document)})


@functools.lru_cache(maxsize=256)
def default_encryption(document: bytes | None) -> Mapping[str, str]:
    """Return the headers of objects in a bucket with an encryption configuration.

    Raises
    ------
    ApiError
        MalformedXML, InvalidEncryptionAlgorithmError or InvalidArgument.
    """
    if document is None:
        return {ENCRYPTION: "AES256"}
    rules = xml.read("PutBucketEncryption", document)["Rules"]
    if len(rules) != 1:
        raise bad_request("MalformedXML", f"The XML you provided did not validate: expected one Rule, got {len(rules)}")
    default = rules[0].get("ApplyServerSideEncryptionByDefault", {})
    found = {ENCRYPTION: default.get("SSEAlgorithm", "AES256")}
    if default.get("KMSMasterKeyID"):
        found[_KEY_ID] = default["KMSMasterKeyID"]
    if rules[0].get("BucketKeyEnabled") and found[ENCRYPTION] != "AES256":
        found[_BUCKET_KEY] = "true"
    check_encryption(found)
    return found


def encryption_headers(metadata: ObjectMetadata) -> dict[str, str]:
    """Return the response headers that state an object's encryption."""
    return {name: value for name, value in metadata.headers.items() if name.startswith(ENCRYPTION)}
