"""The real ``aws`` command against the endpoint, as a user runs it."""

import json
import os
import shutil
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from emulator.cloud import LocalCloud

pytestmark = pytest.mark.skipif(shutil.which("aws") is None, reason="needs the AWS CLI: Debian's awscli, or AWS's own")


@pytest.fixture
def aws(cloud: LocalCloud, tmp_path: Path) -> Any:
    def run(*arguments: str | Path) -> str:
        ended = subprocess.run(
            # Versions before 2.13 know the option alone, not the variable.
            ["aws", "--endpoint-url", cloud.endpoint_url, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=50,
            cwd=tmp_path,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(tmp_path),
                **cloud.credentials.environment(),
                "AWS_DEFAULT_REGION": "us-east-1",
                "AWS_PAGER": "",
            },
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    return run


def test_a_folder_goes_to_s3_and_back(aws: Any, tmp_path: Path) -> None:
    folder, back = tmp_path / "folder", tmp_path / "back"
    (folder / "sub").mkdir(parents=True)
    (folder / "a file.txt").write_text("text")
    # More than the command sends in one part.
    (folder / "sub" / "large").write_bytes(bytes(range(256)) * (9 * 4096))
    assert "make_bucket: cli-bucket" in aws("s3", "mb", "s3://cli-bucket")
    aws("s3", "cp", "--recursive", folder, "s3://cli-bucket/folder")
    listed = aws("s3", "ls", "--recursive", "s3://cli-bucket")
    assert [line.split(maxsplit=3)[2:] for line in listed.splitlines()] == [
        ["4", "folder/a file.txt"],
        ["9437184", "folder/sub/large"],
    ]
    aws("s3", "sync", "s3://cli-bucket/folder", back)
    assert (back / "a file.txt").read_text() == "text"
    assert (back / "sub" / "large").read_bytes() == (folder / "sub" / "large").read_bytes()
    url = aws("s3", "presign", "s3://cli-bucket/folder/a file.txt").strip()
    assert urllib.request.urlopen(url, timeout=20).read() == b"text"
    assert aws("s3", "rb", "--force", "s3://cli-bucket").endswith("remove_bucket: cli-bucket\n")


def test_a_functions_log_is_read(aws: Any, deploy: Any, functions: Any) -> None:
    name = deploy("def handler(event, context): print('said by', event)")
    functions.invoke(FunctionName=name, Payload=b'"me"')
    group = f"/aws/lambda/{name}"
    read = aws("logs", "filter-log-events", "--log-group-name", group, "--query", "events[].message")
    assert [line.split()[0] for line in json.loads(read)][-4:] == ["START", "said", "END", "REPORT"]
