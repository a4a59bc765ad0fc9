"""Checksums, and their combination from those of parts."""

import base64
import hashlib

import pytest

from emulator.aws.s3.core.checksums import ChecksumAlgorithm, ChecksumType, combine_checksums, new_checksum

PARTS = [b"first part", b"2", b"the third and last part"]
CRCS = [ChecksumAlgorithm.CRC32, ChecksumAlgorithm.CRC32C, ChecksumAlgorithm.CRC64NVME]


def digest(algorithm: ChecksumAlgorithm, *contents: bytes) -> str:
    checksum = new_checksum(algorithm)
    for content in contents:
        checksum.update(content)
    return base64.b64encode(checksum.digest()).decode()


@pytest.mark.parametrize(
    ("algorithm", "value"),
    # The catalogue's check values: https://reveng.sourceforge.io/crc-catalogue/
    [
        (ChecksumAlgorithm.CRC32, 0xCBF43926.to_bytes(4, "big")),
        (ChecksumAlgorithm.CRC32C, 0xE3069283.to_bytes(4, "big")),
        (ChecksumAlgorithm.CRC64NVME, 0xAE8B14860A799888.to_bytes(8, "big")),
        (ChecksumAlgorithm.SHA1, hashlib.sha1(b"123456789", usedforsecurity=False).digest()),
        (ChecksumAlgorithm.SHA256, hashlib.sha256(b"123456789").digest()),
    ],
)
def test_checksums_equal_the_published_check_values(algorithm: ChecksumAlgorithm, value: bytes) -> None:
    assert digest(algorithm, b"12345", b"6789") == base64.b64encode(value).decode()


@pytest.mark.parametrize("algorithm", CRCS)
def test_the_crc_of_an_object_is_combined_from_its_parts(algorithm: ChecksumAlgorithm) -> None:
    parts = [(digest(algorithm, part), len(part)) for part in PARTS]
    assert combine_checksums(algorithm, ChecksumType.FULL_OBJECT, parts).value == digest(algorithm, *PARTS)


def test_a_composite_checksum_covers_the_parts_checksums() -> None:
    parts = [(digest(ChecksumAlgorithm.SHA256, part), len(part)) for part in PARTS]
    of_digests = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in PARTS)).digest()
    found = combine_checksums(ChecksumAlgorithm.SHA256, ChecksumType.COMPOSITE, parts)
    assert found.value == f"{base64.b64encode(of_digests).decode()}-3"
