"""The download of results from S3 to a local folder."""

from collections.abc import Callable
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


def test_a_result_that_is_replaced_meanwhile_is_read_again_and_as_a_whole(
    s3: Any, bucket: str, tmp_path: Path, client: Callable[[str], Any]
) -> None:
    """Its tag is compared, so that no file has the one writer's listing and the other writer's content."""
    put(s3, bucket, **{"results/0.json": "{}", "results/1.json": "{}"})
    reader = client("s3")
    replaced: list[str] = []

    def replace(params: dict[str, Any], **_: object) -> None:
        if params["Key"].endswith("1.json") and len(replaced) < fewest[0]:
            replaced.append(f'{{"a": {len(replaced) + 1}}}')
            put(s3, bucket, **{"results/1.json": replaced[-1]})

    reader.meta.events.register("before-parameter-build.s3.GetObject", replace)
    fewest = [2]
    assert fetch_results(reader, bucket, "results", tmp_path) == {0: {}, 1: {"a": 2}}
    fewest[0] = 5
    with pytest.raises(ResultsError, match="are still being written: wait, and download them again"):
        fetch_results(reader, bucket, "results", tmp_path)
    assert (tmp_path / "1.json").read_text() == '{"a": 2}'


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
