"""The checksums that S3 stores with an object.

Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html
"""

import base64
import hashlib
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import reduce
from typing import Protocol

from awscrt import checksums as crt


class ChecksumAlgorithm(Enum):
    """S3's checksum algorithms.

    Attributes
    ----------
    header
        The header for a checksum of the algorithm.
    field
        The XML element for one.
    """

    CRC32 = "CRC32"
    CRC32C = "CRC32C"
    CRC64NVME = "CRC64NVME"
    SHA1 = "SHA1"
    SHA256 = "SHA256"

    def __init__(self, name: str) -> None:
        self.header = f"x-amz-checksum-{name.lower()}"
        self.field = f"Checksum{name}"


class ChecksumType(Enum):
    """What a multipart object's checksum covers: all its bytes, or its parts' checksums."""

    FULL_OBJECT = "FULL_OBJECT"
    COMPOSITE = "COMPOSITE"


@dataclass(frozen=True)
class Checksum:
    """A checksum as S3 returns it.

    Parameters
    ----------
    algorithm, kind
        How it was computed.
    value
        Base64; a composite checksum is followed by ``-N``, the number of parts.
    """

    algorithm: ChecksumAlgorithm
    value: str
    kind: ChecksumType = ChecksumType.FULL_OBJECT


class RunningChecksum(Protocol):
    """An incremental checksum."""

    def update(self, data: bytes | bytearray, /) -> None:
        """Add bytes."""

    def digest(self) -> bytes:
        """Return the checksum, most significant byte first."""


class _Crc:
    """An incremental cyclic redundancy check."""

    def __init__(self, algorithm: ChecksumAlgorithm) -> None:
        self._algorithm = algorithm
        self._value = 0

    def update(self, data: bytes | bytearray, /) -> None:
        match self._algorithm:
            case ChecksumAlgorithm.CRC32:
                self._value = zlib.crc32(data, self._value)
            case ChecksumAlgorithm.CRC32C:
                self._value = crt.crc32c(data, self._value)
            case _:
                self._value = crt.crc64nvme(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(_crc_bytes(self._algorithm), "big")


def new_checksum(algorithm: ChecksumAlgorithm) -> RunningChecksum:
    """Return an incremental checksum of no bytes."""
    match algorithm:
        case ChecksumAlgorithm.SHA1:
            return hashlib.sha1(usedforsecurity=False)
        case ChecksumAlgorithm.SHA256:
            return hashlib.sha256(usedforsecurity=False)
        case _:
            return _Crc(algorithm)


class Digests:
    """Incremental MD5 and checksums of a body.

    Parameters
    ----------
    algorithms
        Checksums to compute.
    """

    def __init__(self, algorithms: Iterable[ChecksumAlgorithm]) -> None:
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._checksums = {algorithm: new_checksum(algorithm) for algorithm in algorithms}
        self.size = 0

    def update(self, data: bytes | bytearray) -> None:
        """Add content."""
        self._md5.update(data)
        for checksum in self._checksums.values():
            checksum.update(data)
        self.size += len(data)

    def md5(self) -> bytes:
        """Return the MD5 so far."""
        return self._md5.digest()

    def checksum(self, algorithm: ChecksumAlgorithm) -> Checksum:
        """Return a checksum so far; `algorithm` must be one of those given to the constructor."""
        return Checksum(algorithm, base64.b64encode(self._checksums[algorithm].digest()).decode())


def is_digest(algorithm: ChecksumAlgorithm, value: str) -> bool:
    """Return whether a text is a checksum of this algorithm, base64."""
    try:
        return len(base64.b64decode(value, validate=True)) == len(new_checksum(algorithm).digest())
    except ValueError:
        return False


def combine_checksums(algorithm: ChecksumAlgorithm, kind: ChecksumType, parts: Sequence[tuple[str, int]]) -> Checksum:
    """Compute a multipart object's checksum from its parts' checksums.

    Parameters
    ----------
    algorithm, kind
        What to compute; a checksum of the full object must be a CRC.
    parts
        Each part's checksum, base64, and size, bytes.
    """
    digests = [(base64.b64decode(value), size) for value, size in parts]
    if kind is ChecksumType.COMPOSITE:
        whole = new_checksum(algorithm)
        for digest, _ in digests:
            whole.update(digest)
        return Checksum(algorithm, f"{base64.b64encode(whole.digest()).decode()}-{len(parts)}", kind)
    combine = {
        ChecksumAlgorithm.CRC32: crt.combine_crc32,
        ChecksumAlgorithm.CRC32C: crt.combine_crc32c,
        ChecksumAlgorithm.CRC64NVME: crt.combine_crc64nvme,
    }[algorithm]
    values = [(int.from_bytes(digest, "big"), size) for digest, size in digests]
    value, _ = reduce(lambda one, two: (combine(one[0], two[0], two[1]), two[1]), values)
    return Checksum(algorithm, base64.b64encode(value.to_bytes(_crc_bytes(algorithm), "big")).decode(), kind)


def _crc_bytes(algorithm: ChecksumAlgorithm) -> int:
    return 8 if algorithm is ChecksumAlgorithm.CRC64NVME else 4
