"""Lambda's operations on event source mappings.

Operations: https://docs.aws.amazon.com/lambda/latest/api/API_CreateEventSourceMapping.html
"""

from collections.abc import Mapping
from typing import Any

from botocore.exceptions import ClientError

from emulator.aws.account import Account
from emulator.aws.lambda_.core.function_registry import FunctionRegistry
from emulator.aws.lambda_.core.references import Reference, conflict, invalid_parameter, resource_not_found
from emulator.aws.lambda_.http.requests import Operation, Parameters, page_of
from emulator.aws.sdk_client import AwsClient
from emulator.aws.triggers.event_filters import is_pattern
from emulator.aws.triggers.event_sources import EventSource, EventSources, new_id
from emulator.errors import ApiError

_PAGE = 100
_OF_ALL = frozenset(
    [
        "BatchSize",
        "FilterCriteria",
        "FunctionResponseTypes",
        "KMSKeyArn",
        "MaximumBatchingWindowInSeconds",
        "MetricsConfig",
        "Tags",
    ]
)
_OF_QUEUES = _OF_ALL | {"ScalingConfig"}
_OF_STREAMS = _OF_ALL | {
    "BisectBatchOnFunctionError",
    "DestinationConfig",
    "MaximumRecordAgeInSeconds",
    "MaximumRetryAttempts",
    "ParallelizationFactor",
    "StartingPosition",
    "StartingPositionTimestamp",
    "TumblingWindowInSeconds",
}
_OTHERS = frozenset(["Enabled", "EventSourceArn", "FunctionName", "UUID"])
# Sources of AWS that are not emulated, with the members that only they have.
_NOT_EMULATED = {
    "AmazonManagedKafkaEventSourceConfig": "Kafka is not emulated",
    "DocumentDBEventSourceConfig": "DocumentDB is not emulated",
    "LoggingConfig": "the log of an event source mapping is not emulated",
    "ProvisionedPollerConfig": "provisioned pollers are not emulated",
    "Queues": "Amazon MQ is not emulated",
    "SelfManagedEventSource": "Kafka is not emulated",
    "SelfManagedKafkaEventSourceConfig": "Kafka is not emulated",
    "SourceAccessConfigurations": "sources with access configurations are not emulated",
    "Topics": "Kafka is not emulated",
}
_BATCH_OF_FIFO = 10
_NOT_FOUND = "The resource you requested does not exist."


class EventSourcesApi:
    """The operations on event source mappings, and their tags.

    Parameters
    ----------
    sources
        The mappings.
    functions
        The functions that they invoke.
    aws
        Finds queues and streams.
    """

    def __init__(self, sources: EventSources, functions: FunctionRegistry, aws: AwsClient) -> None:
        self._sources = sources
        self._functions = functions
        self._aws = aws

    def operations(self) -> dict[str, Operation]:
        """Return the operations by their names in the model."""
        return {
            "CreateEventSourceMapping": self._create,
            "DeleteEventSourceMapping": self._delete,
            "GetEventSourceMapping": lambda p, a: self._find(p, a).described(),
            "ListEventSourceMappings": self._list,
            "UpdateEventSourceMapping": self._update,
        }

    def tags(self, arn: str, account: Account) -> Mapping[str, str] | None:
        """Return the tags of a mapping; None if it does not exist."""
        mapping = self._sources.get(arn.rpartition(":")[2])
        return None if mapping is None or mapping.region != account.region else mapping.settings.get("Tags", {})

    def set_tags(self, arn: str, _: Account, tags: Mapping[str, str]) -> None:
        """Replace the tags of a mapping."""
        mapping = self._sources.get(arn.rpartition(":")[2])
        if mapping is not None:
            mapping.settings["Tags"] = dict(tags)
            self._sources.store(mapping)

    async def _create(self, parameters: Parameters, account: Account) -> Mapping[str, Any]:
        _check_destination(parameters)
        for name, reason in _NOT_EMULATED.items():
            if parameters.get(name):
                raise invalid_parameter(f"{name}: {reason}")
        if "EventSourceArn" not in parameters:
            raise invalid_parameter("Unrecognized event source.")
        mapping_id = new_id()
        mapping = EventSource(
            mapping_id,
            account.arn("lambda", f"event-source-mapping:{mapping_id}"),
            account.region,
            parameters["EventSourceArn"],
            "",
            {name: parameters[name] for name in _OF_QUEUES | _OF_STREAMS if name in parameters},
            is_enabled=parameters.get("Enabled", True),
        )
        _check_settings(mapping, parameters)
        reference = self._function(parameters["FunctionName"], account)
        mapping.function = reference.qualified_arn
        if mapping.is_stream:
            await self._check_stream(mapping.source)
        else:
            await self._check_queue(mapping.source, self._functions.get(reference).spec.timeout_s)
        self._check_new(mapping, reference)
        self._sources.add(mapping)
        described = mapping.described()
        mapping.state = "Enabled" if mapping.is_enabled else "Disabled"
        return described

    def _list(self, parameters: Parameters, account: Account) -> Mapping[str, Any]:
        source, name = parameters.get("EventSourceArn"), parameters.get("FunctionName")
        function = Reference.parse(name, account=account).qualified_arn if name else None
        found = [
            mapping.described()
            for mapping in self._sources.all(account.region)
            if source in (None, mapping.source) and function in (None, mapping.function)
        ]
        return page_of(parameters, "EventSourceMappings", found, _PAGE)

    def _update(self, parameters: Parameters, account: Account) -> Mapping[str, Any]:
        mapping = self._find(parameters, account)
        _check_destination(parameters)
        changes = {name: value for name, value in parameters.items() if name not in _OTHERS}
        changed = EventSource(
            mapping.id, mapping.arn, mapping.region, mapping.source, mapping.function, {**mapping.settings, **changes}
        )
        _check_settings(changed, parameters)
        if "FunctionName" in parameters:
            mapping.function = self._function(parameters["FunctionName"], account).qualified_arn
        mapping.settings = changed.settings
        before = mapping.is_enabled
        mapping.is_enabled = parameters.get("Enabled", before)
        self._sources.apply(mapping)
        mapping.state = (
            "Updating" if mapping.is_enabled == before else "Enabling" if mapping.is_enabled else "Disabling"
        )
        described = mapping.described()
        mapping.state = "Enabled" if mapping.is_enabled else "Disabled"
        return described

    def _delete(self, parameters: Parameters, account: Account) -> Mapping[str, Any]:
        mapping = self._find(parameters, account)
        self._sources.remove(mapping)
        mapping.state = "Deleting"
        return mapping.described()

    def _find(self, parameters: Parameters, account: Account) -> EventSource:
        mapping = self._sources.get(parameters["UUID"])
        if mapping is None or mapping.region != account.region:
            raise resource_not_found(_NOT_FOUND)
        return mapping

    def _function(self, name: str, account: Account) -> Reference:
        """Return the function, version or alias that a mapping invokes.

        Raises
        ------
        ApiError
            InvalidParameterValueException when it does not exist.
        """
        reference = Reference.parse(name, account=account)
        try:
            self._functions.get(reference)
        except ApiError:
            raise invalid_parameter("Function does not exist") from None
        return reference

    async def _check_queue(self, arn: str, timeout_s: int) -> None:
        """Check that a queue exists, and hides messages for as long as the function may run."""
        region, name = arn.split(":")[3], arn.rpartition(":")[2]
        try:
            url = (await self._aws.call("sqs", "GetQueueUrl", {"QueueName": name}, region))["QueueUrl"]
        except ClientError:
            raise invalid_parameter(
                f"Error occurred while ReceiveMessage. SQS Error Code: AWS.SimpleQueueService.NonExistentQueue. "
                f"SQS Error Message: The specified queue does not exist: {arn}"
            ) from None
        wanted = {"QueueUrl": url, "AttributeNames": ["VisibilityTimeout"]}
        found = (await self._aws.call("sqs", "GetQueueAttributes", wanted, region))["Attributes"]
        if int(found["VisibilityTimeout"]) < timeout_s:
            raise invalid_parameter(
                f"Queue visibility timeout: {found['VisibilityTimeout']} seconds is less than Function timeout: "
                f"{timeout_s} seconds"
            )

    async def _check_stream(self, arn: str) -> None:
        region, service = arn.split(":")[3], arn.split(":")[2]
        try:
            if service == "kinesis":
                await self._aws.call("kinesis", "DescribeStreamSummary", {"StreamARN": arn}, region)
            else:
                await self._aws.call("dynamodbstreams", "DescribeStream", {"StreamArn": arn}, region)
        except ClientError as error:
            raise invalid_parameter(f"Stream not found: {arn}: {error.response['Error']['Message']}") from None

    def _check_new(self, mapping: EventSource, reference: Reference) -> None:
        for other in self._sources.all(mapping.region):
            if (other.source, other.function) != (mapping.source, mapping.function):
                continue
            place = (
                f'The event source arn (" {mapping.source} ") and function (" {reference.name} ") provided mapping'
                if mapping.is_stream
                else f'An event source mapping with SQS arn (" {mapping.source} ") and function (" {reference.name} ")'
            )
            raise conflict(f"{place} already exists. Please update or delete the existing mapping with UUID {other.id}")


def _check_destination(parameters: Parameters) -> None:
    if "OnSuccess" in parameters.get("DestinationConfig", {}):
        raise invalid_parameter("Unsupported DestinationConfig parameter for given event source mapping type.")


def _check_settings(mapping: EventSource, parameters: Parameters) -> None:
    """Check the settings of a mapping, and that a request has none that its source does not have.

    Raises
    ------
    ApiError
        InvalidParameterValueException.
    """
    if not (mapping.is_queue or mapping.is_stream):
        raise invalid_parameter(
            f"event source {mapping.source} is not emulated: expected the ARN of an SQS queue, a Kinesis stream or a "
            "DynamoDB stream"
        )
    known = _OTHERS | (_OF_STREAMS if mapping.is_stream else _OF_QUEUES)
    unsupported = next((name for name in parameters if name not in known), None)
    if unsupported is not None:
        raise invalid_parameter(f"Unsupported {unsupported} parameter for given event source mapping type.")
    if mapping.settings.get("TumblingWindowInSeconds"):
        raise invalid_parameter("TumblingWindowInSeconds: tumbling windows are not emulated")
    if mapping.is_stream:
        _check_position(mapping)
    else:
        _check_batch(mapping)
    for item in mapping.settings.get("FilterCriteria", {}).get("Filters") or []:
        if not is_pattern(item.get("Pattern", "")):
            raise invalid_parameter("Invalid filter pattern definition.")


def _check_position(mapping: EventSource) -> None:
    position = mapping.settings.get("StartingPosition")
    if position is None:
        raise invalid_parameter(
            "1 validation error detected: Value null at 'startingPosition' failed to satisfy constraint: Member must "
            "not be null."
        )
    if position == "AT_TIMESTAMP":
        if ":dynamodb:" in mapping.source:
            raise invalid_parameter(f"Unsupported starting position for arn type: {mapping.source}")
        if "StartingPositionTimestamp" not in mapping.settings:
            raise invalid_parameter("StartingPositionTimestamp is required for the starting position AT_TIMESTAMP.")


def _check_batch(mapping: EventSource) -> None:
    if mapping.source.endswith(".fifo"):
        if mapping.batch_size > _BATCH_OF_FIFO:
            raise invalid_parameter(
                f"BatchSize must be less than or equal to {_BATCH_OF_FIFO} for SQS FIFO event source mappings"
            )
        if mapping.window_s:
            raise invalid_parameter("Batching window is not supported for FIFO queues")
    if mapping.batch_size > 10 and not mapping.window_s:
        raise invalid_parameter(
            "Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10"
        )
