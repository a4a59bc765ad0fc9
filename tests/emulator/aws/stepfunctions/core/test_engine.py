"""The engine's store of executions."""

import asyncio
import json

import pytest

from emulator.aws.account import Account
from emulator.aws.sdk_client import AwsClient
from emulator.aws.stepfunctions.asl.definition import MachineType
from emulator.aws.stepfunctions.asl.parse_machine import parse_definition
from emulator.aws.stepfunctions.core import engine as engine_module
from emulator.aws.stepfunctions.core.arns import execution_arn
from emulator.aws.stepfunctions.core.engine import Engine
from emulator.aws.stepfunctions.core.execution import Execution
from emulator.aws.stepfunctions.core.machines import Machine
from emulator.aws.stepfunctions.core.records import Status

PASS = {"P": {"Type": "Pass", "End": True}}
CHILDREN = {
    "ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"},
    "StartAt": "P",
    "States": PASS,
}
DISTRIBUTED = {"M": {"Type": "Map", "ItemProcessor": CHILDREN, "End": True}}
WAIT = {"W": {"Type": "Wait", "Seconds": 1000, "End": True}}


def start(engine: Engine, states: dict[str, object], name: str, text: str) -> Execution:
    definition = json.dumps({"StartAt": next(iter(states)), "States": states})
    machine = Machine(Account(), "m", definition, parse_definition(definition), "role", MachineType.STANDARD)
    return engine.start(execution_arn(Account(), "m", name), machine, name, text)


def test_the_engine_keeps_a_limited_number_of_ended_executions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "EXECUTIONS_KEPT", 2)

    async def run() -> None:
        engine = Engine({}, AwsClient("http://127.0.0.1:1"))
        running = start(engine, WAIT, "running", "{}")
        for name in ("first", "second", "third"):
            execution = start(engine, DISTRIBUTED, name, "[1, 2]")
            await engine.wait(execution)
            assert execution.status is Status.SUCCEEDED
        kept = [execution for execution in engine.executions.values() if execution.parent is None]
        assert [execution.name for execution in kept] == ["running", "second", "third"]
        children = [execution for execution in engine.executions.values() if execution.parent is not None]
        assert len(children) == 4, "the children of the first one are dropped with it"
        assert running.status is Status.RUNNING
        await engine.close()
        assert running.status is Status.ABORTED

    asyncio.run(run())


def test_stopping_an_execution_before_its_first_state_aborts_it() -> None:
    async def run() -> None:
        engine = Engine({}, AwsClient("http://127.0.0.1:1"))
        execution = start(engine, WAIT, "one", "{}")
        await engine.close()
        assert execution.status is Status.ABORTED
        await engine.wait(execution)

    asyncio.run(run())
