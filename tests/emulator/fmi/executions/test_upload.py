"""Content-addressed uploads: only what is missing, and what S3 will not delete soon."""

import datetime
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from emulator.fmi.bundle import UploadedFile
from emulator.fmi.executions import upload
from emulator.fmi.executions.upload import upload_data, upload_program
from emulator.fmi.functions.initialize import PROGRAMS, build_program


def counted(client: Any) -> Counter[str]:
    found: Counter[str] = Counter()
    client.meta.events.register("before-call.s3.*", lambda model, **_: found.update([model.name]))
    return found


def program(folder: Path, count: int) -> list[UploadedFile]:
    for number in range(count):
        (folder / f"{number}.py").write_text(f"print({number})")
    return [UploadedFile(path, f"prog/{path.name}") for path in sorted(folder.iterdir())]


def test_an_unchanged_program_takes_one_request(client: Callable[[str], Any], bucket: str, tmp_path: Path) -> None:
    s3 = client("s3")
    requests = counted(s3)
    files = program(tmp_path, 100)
    first = upload_program(s3, bucket, files)
    assert (first.count, requests["PutObject"]) == (100, 101)
    requests.clear()
    assert upload_program(s3, bucket, files) == upload.Uploaded(first.digest, 0, 0)
    assert requests == {"HeadObject": 1}


def test_only_what_changed_is_uploaded(client: Callable[[str], Any], bucket: str, tmp_path: Path) -> None:
    s3 = client("s3")
    files = program(tmp_path, 20)
    first = upload_program(s3, bucket, files)
    requests = counted(s3)
    (tmp_path / "3.py").write_text("print('changed')")
    second = upload_program(s3, bucket, files)
    assert (second.count, second.size) == (1, 16)
    assert second.digest != first.digest
    # One request a file, and the changed file and the manifest.
    assert requests == {"HeadObject": 21, "PutObject": 2}


def test_an_old_blob_is_uploaded_again_before_it_expires(
    client: Callable[[str], Any], bucket: str, tmp_path: Path, monkeypatch: Any
) -> None:
    s3 = client("s3")
    files = program(tmp_path, 2)
    upload_program(s3, bucket, files)
    monkeypatch.setattr(upload, "_FRESH", datetime.timedelta(0))
    (tmp_path / "1.py").write_text("other")
    assert upload_program(s3, bucket, files).count == 2


def test_the_archive_is_built_once_from_the_blobs(client: Callable[[str], Any], bucket: str, tmp_path: Path) -> None:
    s3 = client("s3")
    digest = upload_program(s3, bucket, program(tmp_path, 3)).digest
    build_program(s3, bucket, digest)
    first = s3.head_object(Bucket=bucket, Key=f"{PROGRAMS}{digest}.zip")
    requests = counted(s3)
    build_program(s3, bucket, digest)
    assert requests == {"ListObjectsV2": 1}
    assert first["ContentLength"] > 100


def test_data_is_uploaded_once(client: Callable[[str], Any], bucket: str, tmp_path: Path) -> None:
    s3 = client("s3")
    files = [UploadedFile(file.path, f"data/{file.path.name}") for file in program(tmp_path, 3)]
    first = upload_data(s3, bucket, files)
    keys = [found["Key"] for found in s3.list_objects_v2(Bucket=bucket, Prefix="cache/data/")["Contents"]]
    names = [f"{first.digest}.complete", *(f"{first.digest}/{number}.py" for number in range(3))]
    assert keys == [f"cache/data/{name}" for name in names]
    assert (first.count, upload_data(s3, bucket, files).count) == (3, 0)
