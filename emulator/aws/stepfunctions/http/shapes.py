"""The shapes of Step Functions' responses.

Source: https://docs.aws.amazon.com/step-functions/latest/apireference/API_Operations.html
"""

from typing import Any

from emulator.aws.stepfunctions.asl.definition import MachineType
from emulator.aws.stepfunctions.asl.variable_references import variable_references
from emulator.aws.stepfunctions.core.execution import Counts, Execution, MapRun
from emulator.aws.stepfunctions.core.machines import Machine

_INCLUDED = {"included": True}


def machine_description(machine: Machine) -> dict[str, Any]:
    """Return the response of DescribeStateMachine."""
    return {
        "stateMachineArn": machine.arn,
        "name": machine.name,
        "status": "ACTIVE",
        "definition": machine.text,
        "roleArn": machine.role_arn,
        "type": machine.kind,
        "creationDate": machine.created_at,
        "revisionId": machine.revision_id,
        **_settings(machine),
    }


def machine_item(machine: Machine) -> dict[str, Any]:
    """Return a state machine's entry in ListStateMachines."""
    return {
        "stateMachineArn": machine.arn,
        "name": machine.name,
        "type": machine.kind,
        "creationDate": machine.created_at,
    }


def machine_of_execution(execution: Execution) -> dict[str, Any]:
    """Return the response of DescribeStateMachineForExecution."""
    machine = execution.machine
    response = {
        "stateMachineArn": _machine_arn(execution),
        "name": machine.name,
        "definition": machine.text,
        "roleArn": machine.role_arn,
        "updateDate": machine.updated_at,
        "revisionId": machine.revision_id,
        **_settings(machine),
    }
    if execution.parent is not None:
        response |= {"mapRunArn": execution.parent.arn, "label": execution.parent.distribution.label}
    return response


def execution_description(execution: Execution) -> dict[str, Any]:
    """Return the response of DescribeExecution."""
    response: dict[str, Any] = {
        **execution_item(execution),
        "input": execution.input_text,
        "inputDetails": _INCLUDED,
        "redriveStatus": "NOT_REDRIVABLE",
        "redriveStatusReason": "Redrive is not emulated",
    }
    if execution.output_text is not None:
        response |= {"output": execution.output_text, "outputDetails": _INCLUDED}
    if execution.failure is not None:
        named = {"error": execution.failure.error, "cause": execution.failure.cause}
        response |= {name: text for name, text in named.items() if text is not None}
    return response


def sync_description(execution: Execution) -> dict[str, Any]:
    """Return the response of StartSyncExecution."""
    response = execution_description(execution)
    omitted = ("redriveCount", "redriveStatus", "redriveStatusReason")
    duration_ms = ((execution.stopped_at or execution.started_at) - execution.started_at) * 1000
    # AWS bills in steps of 64 MB and 100 ms, https://aws.amazon.com/step-functions/pricing/
    billing = {"billedMemoryUsedInMB": 64, "billedDurationInMilliseconds": int(-(-duration_ms // 100) * 100)}
    return {**{name: value for name, value in response.items() if name not in omitted}, "billingDetails": billing}


def execution_item(execution: Execution) -> dict[str, Any]:
    """Return an execution's entry in ListExecutions."""
    item: dict[str, Any] = {
        "executionArn": execution.arn,
        "stateMachineArn": _machine_arn(execution),
        "name": execution.name,
        "status": execution.status,
        "startDate": execution.started_at,
    }
    if execution.stopped_at is not None:
        item["stopDate"] = execution.stopped_at
    if execution.kind is MachineType.STANDARD:
        item["redriveCount"] = 0
    if execution.parent is not None:
        item |= {"mapRunArn": execution.parent.arn, "itemCount": execution.parent.size_of(execution)}
    return item


def map_run_description(map_run: MapRun) -> dict[str, Any]:
    """Return the response of DescribeMapRun."""
    response: dict[str, Any] = {
        "mapRunArn": map_run.arn,
        "executionArn": map_run.execution.arn,
        "status": map_run.status,
        "startDate": map_run.started_at,
        "maxConcurrency": map_run.max_concurrency,
        "toleratedFailurePercentage": map_run.tolerance.percentage or 0.0,
        "toleratedFailureCount": map_run.tolerance.count or 0,
        "itemCounts": _counts(map_run.item_counts()),
        "executionCounts": _counts(map_run.execution_counts()),
        "redriveCount": 0,
    }
    if map_run.stopped_at is not None:
        response["stopDate"] = map_run.stopped_at
    return response


def map_run_item(map_run: MapRun) -> dict[str, Any]:
    """Return a map run's entry in ListMapRuns."""
    item: dict[str, Any] = {
        "executionArn": map_run.execution.arn,
        "mapRunArn": map_run.arn,
        "stateMachineArn": f"{map_run.execution.machine.arn}/{map_run.distribution.label}",
        "startDate": map_run.started_at,
    }
    if map_run.stopped_at is not None:
        item["stopDate"] = map_run.stopped_at
    return item


def _counts(counts: Counts) -> dict[str, int]:
    return {
        "pending": counts.pending,
        "running": counts.running,
        "succeeded": counts.succeeded,
        "failed": counts.failed,
        "timedOut": counts.timed_out,
        "aborted": counts.aborted,
        "total": counts.total,
        "resultsWritten": counts.results_written,
        "failuresNotRedrivable": 0,
        "pendingRedrive": 0,
    }


def _machine_arn(execution: Execution) -> str:
    arn = execution.machine.arn
    return arn if execution.parent is None else f"{arn}/{execution.parent.distribution.label}"


def _settings(machine: Machine) -> dict[str, Any]:
    return {
        "loggingConfiguration": {"level": "OFF", "includeExecutionData": False},
        "tracingConfiguration": {"enabled": False},
        "encryptionConfiguration": {"type": "AWS_OWNED_KEY"},
        **machine.settings,
        "variableReferences": variable_references(machine.text) or None,
    }
