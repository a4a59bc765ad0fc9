"""The last function of a run: merges the ranks' result files into one."""

import json
import re
from typing import Any

import boto3

COMBINED = "combined_data.json"
_RANK_FILE = re.compile(r"(\d+)\.json")
_MOST_NAMED = 20


class MissingResultError(Exception):
    """A rank wrote no result."""


class DamagedResultError(Exception):
    """A rank's result is not valid JSON."""


class RanksFailedError(Exception):
    """Ranks of the run failed."""


class RanksStillRunningError(Exception):
    """Ranks of the run have neither succeeded nor failed. The state machine tries again."""


def handler(event: dict[str, Any], context: object = None) -> dict[str, Any]:
    """Merge ``<result_path>/<rank>.json`` of all ranks into ``<result_path>/combined_data.json``, by rank.

    Parameters
    ----------
    event
        ``bucket``, ``result_path`` and, if known, ``world_size``. Payloads of the first generation have no result
        path; then nothing is merged. Or the answer of *initialize*, whose ``body`` gives the location in S3 of the
        ranks' payloads, which contain the same. With ``run_prefix``, all ranks of that run must have succeeded.
    context
        Not used.

    Returns
    -------
    dict
        ``statusCode`` 200, ``key`` of the combined file and the number of ``ranks`` in it.

    Raises
    ------
    MissingResultError
        If a rank below ``world_size`` has no file; no file is written in this case.
    DamagedResultError
        If a file is not valid JSON; no file is written in this case.
    RanksFailedError, RanksStillRunningError
        If ranks of the run have failed, or not yet ended.
    """
    s3 = boto3.client("s3")
    if "body" in event:
        event = _of_first_rank(s3, event["body"])
    if event.get("run_prefix"):
        _check_ranks(s3, event["bucket"], event["run_prefix"], int(event["world_size"]))
    if not event["result_path"]:
        return {"statusCode": 200, "key": "", "ranks": 0}
    bucket, prefix = event["bucket"], event["result_path"].rstrip("/") + "/"
    by_rank: dict[int, str] = {}
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for found in page.get("Contents", []):
            if match := _RANK_FILE.fullmatch(found["Key"].removeprefix(prefix)):
                by_rank[int(match[1])] = found["Key"]
    missing = sorted(set(range(int(event.get("world_size") or 0))) - by_rank.keys())
    if missing:
        raise MissingResultError(
            f"no result of rank {', '.join(map(str, missing))} in s3://{bucket}/{prefix}: "
            "expected <rank>.json of every rank"
        )
    combined = [_result(s3, bucket, by_rank[rank], rank) for rank in sorted(by_rank)]
    s3.put_object(
        Bucket=bucket,
        Key=prefix + COMBINED,
        Body=json.dumps(combined, indent=2).encode(),
        ContentType="application/json",
    )
    return {"statusCode": 200, "key": prefix + COMBINED, "ranks": len(combined)}


def _check_ranks(s3: Any, bucket: str, prefix: str, world_size: int) -> None:
    """Check that each rank has recorded its success, which counts even if a repeated event of the rank failed."""
    done = _recorded(s3, bucket, f"{prefix}done/")
    open_ranks = set(range(world_size)) - done
    failed = _recorded(s3, bucket, f"{prefix}failures/") & open_ranks
    if running := open_ranks - failed:
        raise RanksStillRunningError(f"{len(running)} ranks have not ended: {_listed(running)}")
    if failed:
        raise RanksFailedError(f"{len(failed)} of {world_size} ranks failed: {_listed(failed)}")


def _recorded(s3: Any, bucket: str, prefix: str) -> set[int]:
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    names = (
        found["Key"].removeprefix(prefix).removesuffix(".json") for page in pages for found in page.get("Contents", [])
    )
    return {int(name) for name in names if name.isdigit()}


def _listed(ranks: set[int]) -> str:
    return ", ".join(map(str, sorted(ranks)[:_MOST_NAMED])) + (" and more" if len(ranks) > _MOST_NAMED else "")


def _result(s3: Any, bucket: str, key: str, rank: int) -> Any:
    content = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DamagedResultError(f"result of rank {rank} at s3://{bucket}/{key} is not valid JSON: {error}") from None


def _of_first_rank(s3: Any, body: dict[str, str]) -> dict[str, Any]:
    """Return the location of the results from the first rank's payload; all payloads contain the same."""
    first = json.loads(s3.get_object(Bucket=body["S3_BUCKET"], Key=body["S3_KEY"])["Body"].read())[0]
    return {"bucket": first["S3_BUCKET"], "result_path": first["RESULT_PATH"], "world_size": first["WORLD_SIZE"]}
