"""Where code and data are looked for, and where they go."""

from pathlib import Path

import pytest

from emulator.fmi.bundle import UploadedFile
from emulator.fmi.payload import parse_payload
from emulator.fmi.pipeline_files import MissingCodeError, code_folder, uploads

PAYLOAD = parse_payload(
    {
        "bucket": "code",
        "S3_object_name": "scripts/my job",
        "script": "/tmp/scripts/my job/in/main.py",
        "data_bucket": "data",
        "data_prefix": "25MB",
    }
)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout" / "my job" / "in"
    folder.mkdir(parents=True)
    (folder / "main.py").touch()
    return folder.parent


def test_code_is_found_beside_the_payload_and_above_it(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    assert code_folder(PAYLOAD, None, checkout.parent) == checkout
    assert code_folder(PAYLOAD, None, checkout) == checkout
    assert code_folder(PAYLOAD, None, tmp_path) is None
    assert code_folder(PAYLOAD, checkout, tmp_path) == checkout
    with pytest.raises(MissingCodeError, match=r"the script 'in/main.py' that the payload names is not in"):
        code_folder(PAYLOAD, tmp_path, tmp_path)


def test_files_go_where_the_payload_says(checkout: Path, tmp_path: Path) -> None:
    data = tmp_path / "partitions"
    data.mkdir()
    (data / "1.pt").touch()
    assert uploads(PAYLOAD, checkout, data) == {
        "code": [UploadedFile(checkout / "in" / "main.py", "scripts/my job/in/main.py")],
        "data": [UploadedFile(data / "1.pt", "25MB/1.pt")],
    }
    assert uploads(PAYLOAD, None, None) == {}


def test_data_without_a_prefix_in_the_payload_has_nowhere_to_go(tmp_path: Path) -> None:
    first = parse_payload({"bucket": "code", "world_size": 1, "S3_object_name": "a", "script": "a/b.py"})
    with pytest.raises(MissingCodeError, match="names no data_prefix"):
        uploads(first, None, tmp_path)
