"""The download of results from S3 to a local folder."""

from pathlib import Path
from typing import Any

import pytest

from emulator.fmi.results import ResultsError, check_folder, fetch_results


def put(s3: Any, bucket: str, **objects: str) -> None:
    for key, text in objects.items():
        s3.put_object(Bucket=bucket, Key=key, Body=text.encode())


def test_files_are_downloaded_and_the_ranks_objects_are_parsed(s3: Any, bucket: str, tmp_path: Path) -> None:
    objects = {"0.json": '{"a": 1}', "2.json": "[3]", "3.json": "no json", "sub/1.json": "{}", "sub/": "", "x.png": "p"}
    put(s3, bucket, **{f"results/{name}": text for name, text in objects.items()})
    assert fetch_results(s3, bucket, "results", tmp_path / "new") == {0: {"a": 1}}
    found = {str(path.relative_to(tmp_path / "new")) for path in (tmp_path / "new").rglob("*") if path.is_file()}
    assert found == {"0.json", "2.json", "3.json", "sub/1.json", "x.png"}


@pytest.mark.parametrize("key", ["results/../outside", "results/sub/../../outside", "results/0.json/file"])
def test_what_is_no_file_below_the_folder_is_named_and_nothing_written(
    s3: Any, bucket: str, tmp_path: Path, key: str
) -> None:
    put(s3, bucket, **{"results/0.json": "{}", key: "x"})
    with pytest.raises(ResultsError, match=key):
        fetch_results(s3, bucket, "results", tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_to_is_named_and_nothing_half_written_stays(
    s3: Any, bucket: str, tmp_path: Path
) -> None:
    put(s3, bucket, **{"results/0.json": "{}"})
    (tmp_path / "0.json").mkdir()
    with pytest.raises(ResultsError, match=f"cannot write results to '{tmp_path}': Is a directory"):
        fetch_results(s3, bucket, "results", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["0.json"]


def test_a_path_that_is_not_a_folder_is_an_error_before_the_run(tmp_path: Path) -> None:
    check_folder(None)
    check_folder(tmp_path / "to" / "be" / "made")
    (tmp_path / "file").write_text("")
    for inner in ("file", "file/within"):
        with pytest.raises(ResultsError, match=rf"'{tmp_path}/file' is not a folder"):
            check_folder(tmp_path / inner)
