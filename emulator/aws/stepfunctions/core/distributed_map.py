"""Distributed Map states: items from S3 or the input, a child execution for each, results to S3 or the output.

Shapes of the results: https://docs.aws.amazon.com/step-functions/latest/dg/input-output-resultwriter.html
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from emulator.aws.limits import DISTRIBUTED_MAP_CONCURRENCY
from emulator.aws.sdk_client import AwsClient
from emulator.aws.stepfunctions.asl.definition import Distribution, ItemBatcher, ItemReader, MapState, Transformation
from emulator.aws.stepfunctions.asl.failures import (
    EXCEED_TOLERATED_FAILURES,
    ITEM_READER_FAILED,
    RESULT_WRITER_FAILED,
    RUNTIME,
    StateFailure,
)
from emulator.aws.stepfunctions.asl.items import ItemsError, Tolerance, batches, read_items
from emulator.aws.stepfunctions.asl.json_values import Json, dumps
from emulator.aws.stepfunctions.core.arns import machine_arn
from emulator.aws.stepfunctions.core.concurrency import run_concurrently
from emulator.aws.stepfunctions.core.execution import Execution, MapRun, error_details, format_timestamp
from emulator.aws.stepfunctions.core.interpreter import Interpreter, StateExecution, Turns
from emulator.aws.stepfunctions.core.records import Status


def child_results(map_run: MapRun, children: Sequence[Execution], transformation: Transformation) -> list[Json]:
    """Return the results of child executions; for one that did not succeed, always its description."""
    entries: list[Json] = []
    for child in children:
        if child.status is not Status.SUCCEEDED or transformation is Transformation.NONE:
            entries.append(_description(map_run, child))
            continue
        output = json.loads(child.output_text or "null")
        if transformation is Transformation.FLATTEN and isinstance(output, list):
            entries.extend(output)
        else:
            entries.append(output)
    return entries


def _description(map_run: MapRun, child: Execution) -> Json:
    described: dict[str, Json] = {
        "ExecutionArn": child.arn,
        "Input": child.input_text,
        "InputDetails": {"Included": True},
        "Name": child.name,
        "RedriveCount": 0,
        "RedriveStatus": "NOT_REDRIVABLE",
        "RedriveStatusReason": "Redrive is not emulated",
        "StartDate": format_timestamp(child.started_at),
        "StateMachineArn": machine_arn(child.machine.account, child.machine.name, map_run.distribution.label),
        "Status": child.status,
    }
    if child.output_text is not None:
        described |= {"Output": child.output_text, "OutputDetails": {"Included": True}}
    if child.failure is not None:
        described |= child.failure.output()
    if child.stopped_at is not None:
        described["StopDate"] = format_timestamp(child.stopped_at)
    return described


def result_files(map_run: MapRun, prefix: str, bucket: str) -> tuple[str, dict[str, str]]:
    """Return the manifest's key, and the objects to write as texts by key.

    Parameters
    ----------
    map_run
        The map run that has the results.
    prefix, bucket
        Where the objects are written.
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
        entries = child_results(map_run, ordered, transformation)
        key = f"{folder}/{name}_0.{'jsonl' if lines else 'json'}"
        if entries:
            # Not as one value: no other thread runs while Python serializes one.
            texts = map(dumps, entries)
            files[key] = "\n".join(texts) if lines else f"[{','.join(texts)}]"
        listed[name] = [{"Key": key, "Size": len(files[key].encode())}] if entries else []
    manifest = {"DestinationBucket": bucket, "MapRunArn": map_run.arn, "ResultFiles": listed}
    return f"{folder}/manifest.json", {**files, f"{folder}/manifest.json": dumps(manifest)}


def _map_input(step: StateExecution[MapState], distribution: Distribution) -> tuple[Json, list[Json], int, Tolerance]:
    """Return the data of a Map, its items if no reader reads them, its concurrency and the tolerated failures."""
    scope = step.scope()
    data = step.input_data(scope)
    return (
        data,
        step.items(step.state.items_path, data) if distribution.reader is None else [],
        int(step.number(step.state.max_concurrency, "MaxConcurrency", data, scope)),
        Tolerance(
            step.number(distribution.tolerated_count, "ToleratedFailureCount", data, scope),
            step.number(distribution.tolerated_percentage, "ToleratedFailurePercentage", data, scope),
        ),
    )


def _batch_settings(
    step: StateExecution[MapState], data: Json, batcher: ItemBatcher
) -> tuple[int | None, int | None, Json]:
    scope = step.scope()
    return (
        step.number(batcher.max_items, "MaxItemsPerBatch", data, scope),
        step.number(batcher.max_bytes, "MaxInputBytesPerBatch", data, scope),
        None if batcher.batch_input is None else step.evaluate(batcher.batch_input, data, scope),
    )


# Runs a child execution to its end, given its index and its input.
RunChild = Callable[[MapRun, int, str], Awaitable[Execution]]


class DistributedMaps:
    """Runs distributed Map states.

    Parameters
    ----------
    aws
        Reads items from S3 and writes results to S3.
    run_child
        Runs child executions.
    """

    def __init__(self, aws: AwsClient, run_child: RunChild) -> None:
        self._aws = aws
        self._run_child = run_child

    async def run(self, interpreter: Interpreter, step: StateExecution[MapState], distribution: Distribution) -> Json:
        """Run a Map once, without retries; return its result."""
        execution, turns = interpreter.execution, interpreter.turns
        data, input_items, concurrency, tolerance = await turns.evaluate(_map_input, step, distribution)
        map_run = MapRun(execution, step.state, concurrency, tolerance)
        # The number of items of a reader is not known yet. AWS reports 0, too.
        step.add_event("MapStateStarted", {"length": len(input_items)})
        step.add_event("MapRunStarted", {"mapRunArn": map_run.arn})
        execution.map_runs.append(map_run)
        try:
            items = input_items
            if distribution.reader is not None:
                items = await self._read_items(step, data, distribution.reader, turns)
            inputs = await self._inputs(step, data, items, distribution.batcher, turns)
            await self._run_children(map_run, inputs, turns)
            result = await self._result(step, map_run, data, distribution, turns)
        except StateFailure as failure:
            map_run.end(Status.FAILED)
            step.add_event("MapRunFailed", error_details(failure))
            step.add_event("MapStateFailed")
            raise
        except BaseException:
            # Cancelled, or an error in the emulator.
            map_run.end(Status.ABORTED)
            step.add_abort_event("MapRunAborted")
            raise
        step.add_event("MapRunSucceeded")
        step.add_event("MapStateSucceeded")
        return result

    async def _inputs(
        self, step: StateExecution[MapState], data: Json, items: list[Json], batcher: ItemBatcher | None, turns: Turns
    ) -> list[tuple[Json, int]]:
        """Return the input of every child execution, each with its number of items."""
        selector = step.state.item_selector
        if selector is not None:
            selected = []
            for index, item in enumerate(items):
                await turns.wait()
                scope = step.scope_with(Map={"Item": {"Index": index, "Value": item}})
                selected.append(await turns.evaluate(step.evaluate, selector, data, scope))
            items = selected
        if batcher is None:
            return [(item, 1) for item in items]
        max_items, max_bytes, extra = await turns.evaluate(_batch_settings, step, data, batcher)
        grouped = []
        try:
            for batch in batches(items, max_items, max_bytes, extra):
                await turns.wait()
                grouped.append((batch, len(batch["Items"])))
        except ItemsError as error:
            raise step.state_failure(RUNTIME, f"ItemBatcher: {error}") from None
        return grouped

    async def _read_items(
        self, step: StateExecution[MapState], data: Json, reader: ItemReader, turns: Turns
    ) -> list[Json]:
        scope = step.scope()
        parameters = await turns.evaluate(step.evaluate, reader.parameters, data, scope)
        max_items = await turns.evaluate(step.number, reader.max_items, "MaxItems", data, scope)
        try:
            if reader.action == "listObjectsV2":
                items = await self._list_objects(parameters)
            else:
                response = await self._aws.call("s3", "GetObject", parameters)
                items = await asyncio.to_thread(read_items, response["Body"], reader)
        except (BotoCoreError, ClientError, ItemsError) as error:
            raise StateFailure(ITEM_READER_FAILED, f"{error} ({dumps(parameters)})") from None
        return items if not max_items else items[: int(max_items)]

    async def _list_objects(self, parameters: dict[str, Any]) -> list[Json]:
        items: list[Json] = []
        page: dict[str, str] | None = {}
        while page is not None:
            response = await self._aws.call("s3", "ListObjectsV2", {**parameters, **page})
            items += [
                {
                    "Etag": found["ETag"],
                    "Key": found["Key"],
                    "LastModified": int(found["LastModified"].timestamp()),
                    "Size": found["Size"],
                    "StorageClass": found.get("StorageClass", "STANDARD"),
                }
                for found in response.get("Contents", [])
            ]
            token = response.get("NextContinuationToken")
            page = {"ContinuationToken": token} if token else None
        return items

    async def _run_children(self, map_run: MapRun, inputs: list[tuple[Json, int]], turns: Turns) -> None:
        map_run.set_sizes([size for _, size in inputs])
        limit = min(map_run.max_concurrency or DISTRIBUTED_MAP_CONCURRENCY, len(inputs))

        async def run_one(index: int) -> None:
            child = await self._run_child(map_run, index, dumps(inputs[index][0]))
            if child.status is not Status.SUCCEEDED and map_run.tolerance_exceeded():
                raise StateFailure(
                    EXCEED_TOLERATED_FAILURES,
                    "The specified tolerated failure threshold was exceeded"
                    + (f": {child.failure.error}: {child.failure.cause}" if child.failure else ""),
                )

        await run_concurrently(range(len(inputs)), limit, run_one, turns)

    async def _result(
        self, step: StateExecution[MapState], map_run: MapRun, data: Json, distribution: Distribution, turns: Turns
    ) -> Json:
        """End the map run and return its result, or the S3 location of the result if the Map has a ResultWriter."""
        writer = distribution.writer
        if writer is None or writer.parameters is None:
            map_run.end(Status.SUCCEEDED)
            children = sorted(map_run.children, key=map_run.index_of)
            transformation = writer.transformation if writer else Transformation.COMPACT
            return await asyncio.to_thread(child_results, map_run, children, transformation)
        destination = await turns.evaluate(step.evaluate, writer.parameters, data, step.scope())
        prefix = str(destination.get("Prefix", ""))
        key, files = await asyncio.to_thread(result_files, map_run, prefix, destination["Bucket"])
        try:
            for name, text in files.items():
                await self._aws.call(
                    "s3", "PutObject", {"Bucket": destination["Bucket"], "Key": name, "Body": text.encode()}
                )
        except (BotoCoreError, ClientError) as error:
            raise StateFailure(RESULT_WRITER_FAILED, f"{error} ({dumps(destination)})") from None
        map_run.end(Status.SUCCEEDED, results_written=True)
        return {"MapRunArn": map_run.arn, "ResultWriterDetails": {"Bucket": destination["Bucket"], "Key": key}}
