"""A state machine's definition as values."""

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
    """How executions are run and kept."""

    STANDARD = "STANDARD"
    EXPRESS = "EXPRESS"


class Missing(Enum):
    """The absence of a value where null is one."""

    MISSING = "missing"


MISSING = Missing.MISSING


@dataclass(frozen=True)
class DataFlow:
    """What a state does with what it gets, and what it hands on.

    Parameters
    ----------
    input_path, output_path
        The part of the input that the state sees, and of its output that the next one gets; None for ``{}``.
    parameters
        What the state works with instead, or None.
    result_selector
        What is taken of the result, or None.
    result_path
        Where the result goes in the input; None when it is dropped.
    assign
        Sets variables from the result, or None.
    """

    input_path: Path | None = ROOT_PATH
    parameters: Expression | None = None
    result_selector: Expression | None = None
    result_path: ReferencePath | None = ROOT_REFERENCE
    output_path: Path | None = ROOT_PATH
    assign: Expression | None = None


@dataclass(frozen=True)
class State:
    """What all states have.

    Parameters
    ----------
    name
        The state's name.
    next
        The state that follows; None after the last one.
    flow
        What it does with its data.

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
    """Hands its input on, or a fixed result."""

    kind: ClassVar[str] = "Pass"
    result: Json | Missing = MISSING


@dataclass(frozen=True)
class SucceedState(State):
    """Ends its branch well."""

    kind: ClassVar[str] = "Succeed"


@dataclass(frozen=True)
class FailState(State):
    """Ends the execution with an error."""

    kind: ClassVar[str] = "Fail"
    error: Expression | None = None
    cause: Expression | None = None


@dataclass(frozen=True)
class WaitState(State):
    """Waits for a number of seconds, or until a time; each written out or at a path."""

    kind: ClassVar[str] = "Wait"
    seconds: int | Path | None = None
    until: str | Path | None = None


@dataclass(frozen=True)
class ChoiceState(State):
    """Goes on with the first rule that holds."""

    kind: ClassVar[str] = "Choice"
    choices: tuple[Choice, ...] = field(kw_only=True)
    default: str | None = None


@dataclass(frozen=True)
class WorkState(State):
    """What the states that may fail have in common."""

    retriers: tuple[Retrier, ...] = ()
    catchers: tuple[Catcher, ...] = ()


@dataclass(frozen=True)
class TaskState(WorkState):
    """Calls a resource; its times are in seconds, written out or at a path."""

    kind: ClassVar[str] = "Task"
    resource: Resource = field(kw_only=True)
    timeout_s: int | Path | None = None
    heartbeat_s: int | Path | None = None


@dataclass(frozen=True)
class ParallelState(WorkState):
    """Runs several branches at once."""

    kind: ClassVar[str] = "Parallel"
    branches: tuple["Program", ...] = field(kw_only=True)


@dataclass(frozen=True)
class ItemReader:
    """Where a distributed Map's items come from.

    Parameters
    ----------
    action
        ``getObject`` or ``listObjectsV2``.
    parameters
        For the action.
    input_type
        ``JSON``, ``JSONL`` or ``CSV``.
    headers
        The columns' names of a CSV without a header row, or None.
    delimiter
        Between the columns of a CSV.
    items_pointer
        JSON pointer to the array within a JSON document.
    max_items
        The most items to take, or None.
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
    """How a distributed Map's items are put together for one child execution each."""

    max_items: int | Path | None = None
    max_bytes: int | Path | None = None
    batch_input: Expression | None = None


class Transformation(StrEnum):
    """What is written of a child execution: all there is to say, its output, or its output's items."""

    NONE = "NONE"
    COMPACT = "COMPACT"
    FLATTEN = "FLATTEN"


@dataclass(frozen=True)
class ResultWriter:
    """Where a distributed Map's results go.

    Parameters
    ----------
    parameters
        Bucket and Prefix; None when nothing is written.
    transformation
        What of a child execution.
    lines
        Whether as JSON Lines instead of an array.
    """

    parameters: Expression | None
    transformation: Transformation
    lines: bool = False


@dataclass(frozen=True)
class Distribution:
    """What a distributed Map has and an inline one has not.

    Parameters
    ----------
    child_type
        The type of its child executions.
    label
        For the map run's ARN.
    reader, batcher, writer
        Where items come from and results go, or None.
    tolerated_count, tolerated_percentage
        How many children may fail; None where nothing is said.
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
    """Runs the same states for every item.

    Parameters
    ----------
    processor
        The states.
    items_path
        Where the items lie.
    item_selector
        Makes each iteration's input, or None.
    max_concurrency
        How many iterations run at once; 0 for no limit.
    distribution
        For a distributed Map; None for an inline one.
    """

    kind: ClassVar[str] = "Map"
    processor: "Program" = field(kw_only=True)
    items_path: Path = ROOT_PATH
    item_selector: Expression | None = None
    max_concurrency: int | Path = 0
    distribution: Distribution | None = None


@dataclass(frozen=True)
class Program:
    """States and where to begin: a state machine, a branch of a Parallel, or a Map's processor."""

    start_at: str
    states: Mapping[str, State]


@dataclass(frozen=True)
class Definition:
    """A whole state machine.

    Parameters
    ----------
    program
        Its states.
    timeout_s
        Longest time of an execution, seconds, or None.
    comment
        Its Comment.
    """

    program: Program
    timeout_s: int | None = None
    comment: str = ""
