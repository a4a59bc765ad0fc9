"""Distributed Map states: items from S3 or the input, a child execution each, results to S3 or the output."""

from collections.abc import Awaitable, Callable
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from emulator.aws.limits import DISTRIBUTED_MAP_CONCURRENCY
from emulator.aws.stepfunctions.asl.definition import Distribution, ItemBatcher, ItemReader, MapState, Transformation
from emulator.aws.stepfunctions.asl.failures import (
    EXCEED_TOLERATED_FAILURES,
    ITEM_READER_FAILED,
    RESULT_WRITER_FAILED,
    RUNTIME,
    StateFailure,
)
from emulator.aws.stepfunctions.asl.items import ItemsError, batches, read_items
from emulator.aws.stepfunctions.asl.json_values import Json, dumps
from emulator.aws.stepfunctions.asl.tolerance import Tolerance
from emulator.aws.stepfunctions.core.aws_calls import AwsCalls
from emulator.aws.stepfunctions.core.concurrency import for_each
from emulator.aws.stepfunctions.core.execution import Execution, error_details
from emulator.aws.stepfunctions.core.interpreter import Interpreter
from emulator.aws.stepfunctions.core.map_run import MapRun
from emulator.aws.stepfunctions.core.records import Status
from emulator.aws.stepfunctions.core.results import result_files, results
from emulator.aws.stepfunctions.core.state_execution import Visit

# Begins a child execution with its input and its number, and waits for its end.
RunChild = Callable[[MapRun, int, str], Awaitable[Execution]]


class DistributedMaps:
    """Runs distributed Map states.

    Parameters
    ----------
    aws
        Reads items from S3, and writes results there.
    run_child
        Runs child executions.
    """

    def __init__(self, aws: AwsCalls, run_child: RunChild) -> None:
        self._aws = aws
        self._run_child = run_child

    async def run(self, interpreter: Interpreter, visit: Visit[MapState], distribution: Distribution) -> Json:
        """Run a Map once; return its result."""
        execution, scope = interpreter.execution, visit.scope()
        data = visit.seen(scope)
        given = visit.items(visit.state.items_path, data) if distribution.reader is None else []
        map_run = MapRun(
            execution,
            visit.state,
            int(visit.number(visit.state.max_concurrency, "MaxConcurrency", data, scope)),
            Tolerance(
                visit.number(distribution.tolerated_count, "ToleratedFailureCount", data, scope),
                visit.number(distribution.tolerated_percentage, "ToleratedFailurePercentage", data, scope),
            ),
        )
        # How many a reader will find is not known yet; AWS says 0, too.
        visit.event("MapStateStarted", {"length": len(given)})
        visit.event("MapRunStarted", {"mapRunArn": map_run.arn})
        execution.map_runs.append(map_run)
        try:
            items = given if distribution.reader is None else await self._read(visit, data, distribution.reader)
            inputs = self._inputs(visit, data, items, distribution.batcher)
            await self._run_children(map_run, inputs)
            result = await self._result(visit, map_run, data, distribution)
        except StateFailure as failure:
            map_run.end(Status.FAILED)
            visit.event("MapRunFailed", error_details(failure))
            visit.event("MapStateFailed")
            raise
        except BaseException:
            # Cancelled, or by a mistake of ours: either way it is over, and whoever did it is told.
            map_run.end(Status.ABORTED)
            visit.aborted("MapRunAborted")
            raise
        visit.event("MapRunSucceeded")
        visit.event("MapStateSucceeded")
        return result

    def _inputs(
        self, visit: Visit[MapState], data: Json, items: list[Json], batcher: ItemBatcher | None
    ) -> list[tuple[Json, int]]:
        """Return every child execution's input, with the number of items in it."""
        selector = visit.state.item_selector
        if selector is not None:
            items = [
                visit.evaluated(selector, data, visit.scope_with(Map={"Item": {"Index": index, "Value": item}}))
                for index, item in enumerate(items)
            ]
        if batcher is None:
            return [(item, 1) for item in items]
        scope = visit.scope()
        most = visit.number(batcher.max_items, "MaxItemsPerBatch", data, scope)
        most_bytes = visit.number(batcher.max_bytes, "MaxInputBytesPerBatch", data, scope)
        extra = None if batcher.batch_input is None else visit.evaluated(batcher.batch_input, data, scope)
        try:
            return [(batch, len(batch["Items"])) for batch in batches(items, most, most_bytes, extra)]
        except ItemsError as error:
            raise visit.failing(RUNTIME, f"ItemBatcher: {error}") from None

    async def _read(self, visit: Visit[MapState], data: Json, reader: ItemReader) -> list[Json]:
        scope = visit.scope()
        parameters = visit.evaluated(reader.parameters, data, scope)
        most = visit.number(reader.max_items, "MaxItems", data, scope)
        try:
            if reader.action == "listObjectsV2":
                items = await self._list_objects(parameters)
            else:
                answer = await self._aws.call("s3", "GetObject", parameters)
                items = read_items(answer["Body"], reader)
        except (BotoCoreError, ClientError, ItemsError) as error:
            raise StateFailure(ITEM_READER_FAILED, f"{error} ({dumps(parameters)})") from None
        return items if not most else items[: int(most)]

    async def _list_objects(self, parameters: dict[str, Any]) -> list[Json]:
        items: list[Json] = []
        more: dict[str, str] | None = {}
        while more is not None:
            answer = await self._aws.call("s3", "ListObjectsV2", {**parameters, **more})
            items += [
                {
                    "Etag": found["ETag"],
                    "Key": found["Key"],
                    "LastModified": int(found["LastModified"].timestamp()),
                    "Size": found["Size"],
                    "StorageClass": found.get("StorageClass", "STANDARD"),
                }
                for found in answer.get("Contents", [])
            ]
            token = answer.get("NextContinuationToken")
            more = {"ContinuationToken": token} if token else None
        return items

    async def _run_children(self, map_run: MapRun, inputs: list[tuple[Json, int]]) -> None:
        map_run.plan([size for _, size in inputs])
        limit = min(map_run.max_concurrency or DISTRIBUTED_MAP_CONCURRENCY, len(inputs))

        async def run_one(index: int) -> None:
            child = await self._run_child(map_run, index, dumps(inputs[index][0]))
            if child.status is not Status.SUCCEEDED and map_run.failed_too_often():
                raise StateFailure(
                    EXCEED_TOLERATED_FAILURES,
                    "The specified tolerated failure threshold was exceeded"
                    + (f": {child.failure.error}: {child.failure.cause}" if child.failure else ""),
                )

        await for_each(range(len(inputs)), limit, run_one)

    async def _result(self, visit: Visit[MapState], map_run: MapRun, data: Json, distribution: Distribution) -> Json:
        """Return the result, written to S3 where the Map wants it so; the map run is over then."""
        writer = distribution.writer
        if writer is None or writer.parameters is None:
            map_run.end(Status.SUCCEEDED)
            children = sorted(map_run.children, key=map_run.index_of)
            return results(map_run, children, writer.transformation if writer else Transformation.COMPACT)
        place = visit.evaluated(writer.parameters, data, visit.scope())
        key, files = result_files(map_run, str(place.get("Prefix", "")), place["Bucket"])
        try:
            for name, text in files.items():
                await self._aws.call("s3", "PutObject", {"Bucket": place["Bucket"], "Key": name, "Body": text.encode()})
        except (BotoCoreError, ClientError) as error:
            raise StateFailure(RESULT_WRITER_FAILED, f"{error} ({dumps(place)})") from None
        map_run.end(Status.SUCCEEDED, results_written=True)
        return {"MapRunArn": map_run.arn, "ResultWriterDetails": {"Bucket": place["Bucket"], "Key": key}}
