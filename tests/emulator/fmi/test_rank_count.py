"""How many ranks a pipeline has, and whether they may be more than Lambda runs at once."""

from pathlib import Path
from typing import Any

import pytest

from emulator.fmi.bundle import UploadedFile
from emulator.fmi.payload import PipelinePayload, parse_payload
from emulator.fmi.rank_count import RankCountError, check_rank_count, rank_count


def payload(bucket: str, **settings: object) -> PipelinePayload:
    return parse_payload({"bucket": bucket, "S3_object_name": "my job", "script": "my job/in/main.py", **settings})


def test_there_is_a_rank_for_each_file_here_or_in_s3_up_to_the_limit(s3: Any, bucket: str, tmp_path: Path) -> None:
    files = {bucket: [UploadedFile(tmp_path / "x", f"data/{number}.pt") for number in range(3)]}
    one_each = payload(bucket, data_prefix="data/")
    assert rank_count(s3, one_each, files) == 3
    for key in ("data/", "data/2.pt", "data/9.pt", "other/1.pt"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    assert rank_count(s3, one_each, files) == 4
    assert rank_count(s3, payload(bucket, data_prefix="data/", file_limit="2"), files) == 2
    assert rank_count(s3, payload(bucket, data_prefix="data/", world_size="1001"), files) == 1001
    assert rank_count(s3, payload("does-not-exist", data_prefix="data/"), {}) == 0


def test_more_ranks_than_run_at_once_must_not_talk_to_each_other(s3: Any, bucket: str, tmp_path: Path) -> None:
    script = tmp_path / "main.py"
    script.write_text("import fmi")
    files = {bucket: [UploadedFile(script, "my job/in/main.py"), UploadedFile(tmp_path / "big.pt", "my job/big.pt")]}
    described = payload(bucket, world_size=1001)
    with pytest.raises(RankCountError, match=r"ranks 1001: expected at most 1000, .*\(in/main.py imports fmi\)"):
        check_rank_count(1001, s3, described, files)
    check_rank_count(1000, s3, described, files)
    s3.put_object(Bucket=bucket, Key="my job/in/main.py", Body=b"import torch.distributed as dist")
    with pytest.raises(RankCountError, match="imports torch"):
        check_rank_count(5000, s3, described, {})
    script.write_text("print('alone')")
    check_rank_count(5000, s3, described, files)
