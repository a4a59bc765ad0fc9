"""What is written of a distributed Map's child executions.

Shapes: https://docs.aws.amazon.com/step-functions/latest/dg/input-output-resultwriter.html
"""

import json
from collections.abc import Sequence

from emulator.aws.stepfunctions.asl.definition import Transformation
from emulator.aws.stepfunctions.asl.json_values import Json, dumps
from emulator.aws.stepfunctions.core.arns import machine_arn
from emulator.aws.stepfunctions.core.execution import Execution, iso
from emulator.aws.stepfunctions.core.map_run import MapRun
from emulator.aws.stepfunctions.core.records import Status


def results(map_run: MapRun, children: Sequence[Execution], transformation: Transformation) -> list[Json]:
    """Return what is said of child executions; of those that did not succeed, always all there is to say."""
    said: list[Json] = []
    for child in children:
        if child.status is not Status.SUCCEEDED or transformation is Transformation.NONE:
            said.append(_description(map_run, child))
            continue
        output = json.loads(child.output_text or "null")
        if transformation is Transformation.FLATTEN and isinstance(output, list):
            said.extend(output)
        else:
            said.append(output)
    return said


def _description(map_run: MapRun, child: Execution) -> Json:
    described: dict[str, Json] = {
        "ExecutionArn": child.arn,
        "Input": child.input_text,
        "InputDetails": {"Included": True},
        "Name": child.name,
        "RedriveCount": 0,
        "RedriveStatus": "NOT_REDRIVABLE",
        "RedriveStatusReason": "Redrive is not emulated",
        "StartDate": iso(child.started_at),
        "StateMachineArn": machine_arn(child.machine.name, map_run.distribution.label),
        "Status": child.status,
    }
    if child.output_text is not None:
        described |= {"Output": child.output_text, "OutputDetails": {"Included": True}}
    if child.failure is not None:
        described |= child.failure.output()
    if child.stopped_at is not None:
        described["StopDate"] = iso(child.stopped_at)
    return described


def result_files(map_run: MapRun, prefix: str, bucket: str) -> tuple[str, dict[str, str]]:
    """Return the manifest's key and the texts to write, by key.

    Parameters
    ----------
    map_run
        Whose results.
    prefix, bucket
        Where they go.
    """
    writer = map_run.distribution.writer
    transformation, lines = (writer.transformation, writer.lines) if writer else (Transformation.NONE, False)
    folder = "/".join(part for part in (prefix.rstrip("/"), map_run.arn.rpartition(":")[2]) if part)
    groups = {
        "SUCCEEDED": [child for child in map_run.children if child.status is Status.SUCCEEDED],
        "FAILED": [child for child in map_run.children if child.status in (Status.FAILED, Status.TIMED_OUT)],
        "PENDING": [child for child in map_run.children if child.status in (Status.RUNNING, Status.ABORTED)],
    }
    files: dict[str, str] = {}
    listed: dict[str, Json] = {}
    for name, children in groups.items():
        ordered = sorted(children, key=map_run.index_of)
        said = results(map_run, ordered, transformation)
        key = f"{folder}/{name}_0.{'jsonl' if lines else 'json'}"
        if said:
            files[key] = "\n".join(map(dumps, said)) if lines else dumps(said)
        listed[name] = [{"Key": key, "Size": len(files[key].encode())}] if said else []
    manifest = {"DestinationBucket": bucket, "MapRunArn": map_run.arn, "ResultFiles": listed}
    return f"{folder}/manifest.json", {**files, f"{folder}/manifest.json": dumps(manifest)}
