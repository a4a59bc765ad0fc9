"""Unpacking archives: valid, damaged and malicious ones."""

import contextlib
import io
import stat
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emulator.aws.lambda_.core import code_store
from emulator.aws.lambda_.core.code_store import unpack
from emulator.errors import ApiError


def zipped(*members: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


def link(name: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name)
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    return member


def test_an_archive_is_unpacked_into_the_folder(tmp_path: Path) -> None:
    unpack(zipped(("main.py", b"1"), ("package/part.py", b"2")), tmp_path)
    assert (tmp_path / "main.py").read_bytes() == b"1"
    assert (tmp_path / "package" / "part.py").read_bytes() == b"2"


@pytest.mark.parametrize(
    ("member", "expected"),
    [
        ("../outside.py", "outside the function's folder"),
        ("a/../../outside.py", "outside the function's folder"),
        ("/absolute.py", "outside the function's folder"),
        ("..\\outside.py", "outside the function's folder"),
        (link("link.py"), "is a link"),
    ],
)
def test_a_member_outside_the_folder_is_an_error_and_nothing_is_written(
    tmp_path: Path, member: str | zipfile.ZipInfo, expected: str
) -> None:
    with pytest.raises(ApiError, match=expected):
        unpack(zipped(("good.py", b"1"), (member, b"/etc/passwd")), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_bytes_that_are_not_an_archive_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ApiError, match="Could not unzip"):
        unpack(b"not a zip", tmp_path)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@given(damage=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_archive_is_unpacked_or_rejected(
    tmp_path: Path, method: int, damage: list[tuple[float, int]]
) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr("main.py", "def handler(event, context): return event\n" * 9)
        archive.writestr("pack\u00e4ge/part.py", "x = 1")
    content = bytearray(buffer.getvalue())
    for place, byte in damage:
        content[int(place * len(content))] = byte
    with contextlib.suppress(ApiError):
        unpack(bytes(content), tmp_path)
        assert (tmp_path / "main.py").is_file() or damage


def test_an_archive_above_the_unzipped_limit_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_store, "UNZIPPED_CODE_BYTES", 1_000_000)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(1_000_001))
    with pytest.raises(ApiError, match="Unzipped size"):
        unpack(buffer.getvalue(), tmp_path)
    assert list(tmp_path.iterdir()) == []
