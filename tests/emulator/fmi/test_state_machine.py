"""The roles of the functions of a state machine."""

import json
from pathlib import Path
from typing import Any

import pytest

import emulator.fmi.functions
from emulator.fmi.state_machine import (
    StateMachineError,
    parse_state_machine,
    published_state_machine,
    read_state_machine,
)

DEFINITIONS = Path(emulator.fmi.functions.__file__).parent


def task(function: str, **more: Any) -> dict[str, Any]:
    return {
        "Type": "Task",
        "Resource": "arn:aws:states:::lambda:invoke",
        "Parameters": {"FunctionName": f"arn:aws:lambda:us-east-1:448324707516:function:{function}:$LATEST"},
        **more,
    }


def chain(**states: Any) -> str:
    return json.dumps({"StartAt": "One", "States": states})


def test_the_published_forms_name_their_functions() -> None:
    inline, distributed = published_state_machine(), read_state_machine(DEFINITIONS / "distributed.asl.json")
    for machine in (inline, distributed):
        assert (machine.initialize, machine.execute, machine.summarize) == (
            *("fmi-initialize", "fmi-execute", "fmi-summarize"),
        )
    assert (inline.is_express, distributed.is_express) == (False, True)
    assert not inline.reads_ranks
    assert distributed.reads_ranks
    assert (published_state_machine(500), published_state_machine(501)) == (inline, distributed)


def test_roles_depend_on_the_position_not_on_the_name() -> None:
    machine = parse_state_machine(
        chain(
            Three=task("resultSummary", End=True),
            Two={
                "Type": "Map",
                "Iterator": {"StartAt": "Model", "States": {"Model": task("cosmic-executor", End=True)}},
                "Next": "Three",
            },
            One=task("data-parallel-init", Next="Two"),
        )
    )
    assert (machine.initialize, machine.execute, machine.summarize) == (
        *("data-parallel-init", "cosmic-executor", "resultSummary"),
    )


def test_a_task_may_be_the_function_itself_and_nothing_need_follow() -> None:
    direct = {"Type": "Task", "Resource": "arn:aws:lambda:us-east-1:123456789012:function:first", "Next": "Two"}
    inner = {"StartAt": "M", "States": {"M": task("ranks", End=True)}}
    machine = parse_state_machine(chain(One=direct, Two={"Type": "Map", "ItemProcessor": inner, "End": True}))
    assert (machine.initialize, machine.execute, machine.summarize) == ("first", "ranks", "")


@pytest.mark.parametrize("odd", [None, [], "x", {"Parameters": None}, {"ProcessorConfig": ["DISTRIBUTED"]}])
def test_invalid_objects_are_left_to_step_functions_to_reject(odd: object) -> None:
    ranks = {"Type": "Map", "Task": task("ranks"), "ItemProcessor": odd, "ItemReader": odd, "End": True}
    machine = parse_state_machine(chain(One=task("first", Next="Two"), Two=ranks))
    assert (machine.execute, machine.is_express, machine.reads_ranks) == ("ranks", False, False)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[]", "not a chain of states"),
        (chain(One=task("a", Next="Two")), "not a chain of states: KeyError 'Two'"),
        (chain(One=task("a", End=True)), "expected one Map state, whose items are the ranks; got 0"),
        (chain(One={"Type": "Map", "End": True}), "expected a Task that invokes the initialize function"),
    ],
)
def test_a_definition_that_is_no_pipeline_is_an_error(text: str, said: str) -> None:
    with pytest.raises(StateMachineError, match=said.replace("(", r"\(")):
        parse_state_machine(text)
