"""The classes of a parsed definition: states, data flow, Map settings, the state machine."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import ClassVar

from emulator.aws.stepfunctions.asl.choices import Choice
from emulator.aws.stepfunctions.asl.expressions import ROOT_PATH, ROOT_REFERENCE, Expression, Path, ReferencePath
from emulator.aws.stepfunctions.asl.json_values import Json
from emulator.aws.stepfunctions.asl.resources import Resource
from emulator.aws.stepfunctions.asl.retrying import Catcher, Retrier


class MachineType(StrEnum):
    """The type of a state machine and its executions."""

    STANDARD = "STANDARD"
    EXPRESS = "EXPRESS"


class Missing(Enum):
    """The type of MISSING, which marks an absent value where None is a valid one."""

    MISSING = "missing"


MISSING = Missing.MISSING


@dataclass(frozen=True)
class DataFlow:
    """How a state processes its input and output.

    Parameters
    ----------
    input_path, output_path
        Paths that select a part of the input and of the output; None for ``{}``.
    parameters
        Payload template that replaces the input, or None.
    result_selector
        Payload template that replaces the result, or None.
    result_path
        The path in the input at which the result is inserted; None discards the result.
    assign
        Payload template of variables, evaluated on the result, or None.
    """

    input_path: Path | None = ROOT_PATH
    parameters: Expression | None = None
    result_selector: Expression | None = None
    result_path: ReferencePath | None = ROOT_REFERENCE
    output_path: Path | None = ROOT_PATH
    assign: Expression | None = None


@dataclass(frozen=True)
class State:
    """The fields of all states.

    Parameters
    ----------
    name
        The state's name.
    next
        The next state's name; None for the last one.
    flow
        The processing of input and output.

    Attributes
    ----------
    kind
        The state's Type.
    """

    kind: ClassVar[str]
    name: str
    next: str | None = None
    flow: DataFlow = field(default_factory=DataFlow)


@dataclass(frozen=True)
class PassState(State):
    """Passes its input, or a fixed result, to its output."""

    kind: ClassVar[str] = "Pass"
    result: Json | Missing = MISSING


@dataclass(frozen=True)
class SucceedState(State):
    """Ends its branch successfully."""

    kind: ClassVar[str] = "Succeed"


@dataclass(frozen=True)
class FailState(State):
    """Ends the execution with an error."""

    kind: ClassVar[str] = "Fail"
    error: Expression | None = None
    cause: Expression | None = None


@dataclass(frozen=True)
class WaitState(State):
    """Waits for a number of seconds or until a time, each a literal or a path."""

    kind: ClassVar[str] = "Wait"
    seconds: int | Path | None = None
    until: str | Path | None = None


@dataclass(frozen=True)
class ChoiceState(State):
    """Continues with the next state of the first rule that is true."""

    kind: ClassVar[str] = "Choice"
    choices: tuple[Choice, ...] = field(kw_only=True)
    default: str | None = None


@dataclass(frozen=True)
class WorkState(State):
    """The fields of states that can fail: Task, Parallel and Map."""

    retriers: tuple[Retrier, ...] = ()
    catchers: tuple[Catcher, ...] = ()


@dataclass(frozen=True)
class TaskState(WorkState):
    """Calls a resource. Timeouts are in seconds, each a literal or a path."""

    kind: ClassVar[str] = "Task"
    resource: Resource = field(kw_only=True)
    timeout_s: int | Path | None = None
    heartbeat_s: int | Path | None = None


@dataclass(frozen=True)
class ParallelState(WorkState):
    """Runs several branches concurrently."""

    kind: ClassVar[str] = "Parallel"
    branches: tuple["Program", ...] = field(kw_only=True)


@dataclass(frozen=True)
class ItemReader:
    """The source of a distributed Map's items.

    Parameters
    ----------
    action
        ``getObject`` or ``listObjectsV2``.
    parameters
        The action's parameters.
    input_type
        ``JSON``, ``JSONL`` or ``CSV``.
    headers
        The column names of a CSV without a header row, or None.
    delimiter
        The separator between the columns of a CSV.
    items_pointer
        JSON pointer to the array in a JSON document.
    max_items
        Maximum number of items, or None.
    """

    action: str
    parameters: Expression
    input_type: str = "JSON"
    headers: tuple[str, ...] | None = None
    delimiter: str = ","
    items_pointer: str = ""
    max_items: int | Path | None = None


@dataclass(frozen=True)
class ItemBatcher:
    """How a distributed Map groups its items into batches, one for each child execution."""

    max_items: int | Path | None = None
    max_bytes: int | Path | None = None
    batch_input: Expression | None = None


class Transformation(StrEnum):
    """The result of a child execution: its description, its output, or the items of its output."""

    NONE = "NONE"
    COMPACT = "COMPACT"
    FLATTEN = "FLATTEN"


@dataclass(frozen=True)
class ResultWriter:
    """The destination of a distributed Map's results.

    Parameters
    ----------
    parameters
        Bucket and Prefix; None if nothing is written to S3.
    transformation
        The form of each child execution's result.
    lines
        Whether to write JSON Lines instead of an array.
    """

    parameters: Expression | None
    transformation: Transformation
    lines: bool = False


@dataclass(frozen=True)
class Distribution:
    """The settings of a distributed Map that an inline Map does not have.

    Parameters
    ----------
    child_type
        The type of the child executions.
    label
        The label in the map run's ARN.
    reader, batcher, writer
        The source of the items, their batches and the destination of the results, or None.
    tolerated_count, tolerated_percentage
        The number and the percentage of items that may fail, or None.
    """

    child_type: MachineType
    label: str
    reader: ItemReader | None = None
    batcher: ItemBatcher | None = None
    writer: ResultWriter | None = None
    tolerated_count: int | Path | None = None
    tolerated_percentage: float | Path | None = None


@dataclass(frozen=True)
class MapState(WorkState):
    """Runs the same states for each item of an array.

    Parameters
    ----------
    processor
        The states.
    items_path
        The path to the items.
    item_selector
        Payload template of each iteration's input, or None.
    max_concurrency
        Maximum number of concurrent iterations; 0 for no limit.
    distribution
        The settings of a distributed Map; None for an inline Map.
    """

    kind: ClassVar[str] = "Map"
    processor: "Program" = field(kw_only=True)
    items_path: Path = ROOT_PATH
    item_selector: Expression | None = None
    max_concurrency: int | Path = 0
    distribution: Distribution | None = None


@dataclass(frozen=True)
class Program:
    """States and the first of them: of a state machine, a branch of a Parallel state, or a Map's processor."""

    start_at: str
    states: Mapping[str, State]


@dataclass(frozen=True)
class Definition:
    """The definition of a state machine.

    Parameters
    ----------
    program
        The states.
    timeout_s
        Timeout of an execution, seconds, or None.
    comment
        The Comment.
    """

    program: Program
    timeout_s: int | None = None
    comment: str = ""
