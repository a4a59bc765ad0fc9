"""A run's results, brought from S3 to a local folder."""

import json
import os
import tempfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from emulator.functions.summarize import COMBINED

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client


def fetch_results(s3: "S3Client", bucket: str, result_path: str, folder: Path) -> tuple[dict[str, object], ...]:
    """Download all results; each file appears under its name only when it is whole.

    Parameters
    ----------
    s3
        boto3 client of S3.
    bucket, result_path
        Where the results lie.
    folder
        Where they go; made where there is none.

    Returns
    -------
    tuple of dict
        The content of the combined file: one result a rank, in the order of the ranks.

    Raises
    ------
    ValueError
        When a key leads outside of the folder.
    """
    prefix = result_path.rstrip("/") + "/"
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for found in page.get("Contents", []):
            relative = PurePosixPath(found["Key"].removeprefix(prefix))
            if relative.is_absolute() or ".." in relative.parts:
                raise ValueError(f"the result {found['Key']!r} would be written outside of {folder}")
            content = s3.get_object(Bucket=bucket, Key=found["Key"])["Body"].read()
            _write_whole(folder / relative, content)
    combined: list[dict[str, object]] = json.loads((folder / COMBINED).read_bytes())
    return tuple(combined)


def _write_whole(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}-", delete=False) as partial:
        partial.write(content)
    Path(partial.name).chmod(0o666 & ~_umask())
    Path(partial.name).replace(path)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
