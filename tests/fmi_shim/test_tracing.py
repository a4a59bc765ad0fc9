"""The times of operations in a rank's log, and what is recorded of each call."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fmi_shim.telemetry.events import Failed, Message, Operations, Planned, Status, decode

PROGRAM = """
import sys, fmi_shim as fmi, time
comm = fmi.Communicator(0, 1, sys.argv[1], "traced")
for _ in range(3):
    comm.barrier()
    time.sleep(0.01)
if sys.argv[2:]:
    raise SystemExit("over")
"""
CALLS = """
import sys, fmi_shim as fmi, numpy as np
comm = fmi.Communicator(0, 1, sys.argv[1], "traced")
value = np.ones(1000)
comm.allreduce(value, fmi.func(fmi.op.sum))
comm.allreduce(value, fmi.func(fmi.op.avg))
comm.allreduce(value, fmi.func(fmi.op.sum))
comm.gatherv(value, 0, [1000])
comm.send(value, 0)
comm.recv(0, out=value)
incoming = comm.irecv(0, out=value)
comm.isend(value, 0).wait()
incoming.wait()
comm.recv(0, out=value, timeout=0.1)
"""
NOTHING = """
import sys, fmi_shim as fmi
comm = fmi.Communicator(0, 1, sys.argv[1], "plain")
comm.barrier()
loaded = {"zmq", "fmi_shim.telemetry.events", "fmi_shim.telemetry.bus"} & set(sys.modules)
print(type(comm._calls).__name__, loaded)
"""
FORKS = """
import os, sys, fmi_shim as fmi
from fmi_shim import telemetry
comm = fmi.Communicator(0, 1, sys.argv[1], "forks")
comm.barrier()
if os.fork() == 0:
    comm.barrier()
    print("child", telemetry.recorder, flush=True)
    comm.close()
    os._exit(0)
os.wait()
"""


def run(tmp_path: Path, program: str, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    config = tmp_path / "fmi.json"
    config.write_text('{"backends": {"Direct": {"enabled": true, "host": "127.0.0.1", "port": 1, "max_timeout": 0}}}')
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FMI_T")}
    return subprocess.run(
        [sys.executable, "-c", program, config, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**environment, **variables},
    )


def messages(output: str) -> list[Message]:
    return [decode(line.partition(" ")[2]) for line in output.splitlines() if line.startswith("fmi-events: ")]


@pytest.mark.parametrize("variables", [{}, {"FMI_TRACE": "0", "FMI_TELEMETRY": ""}])
def test_nothing_is_recorded_or_imported_unless_asked_for(tmp_path: Path, variables: dict[str, str]) -> None:
    assert run(tmp_path, NOTHING, **variables).stdout == "Calls set()\n"


@pytest.mark.parametrize("how", [[], ["fails"]])
def test_a_traced_program_writes_one_line_at_its_end(tmp_path: Path, how: list[str]) -> None:
    (line,) = run(tmp_path, PROGRAM, *how, FMI_TRACE="1").stdout.splitlines()
    marker, _, said = line.partition(" ")
    assert marker == "fmi-trace:"
    trace = json.loads(said)
    assert (trace["phase"], trace["calls"]) == ("communication", 3)
    assert len(trace["intervals"]) == 3
    starts = [start for start, _ in trace["intervals"]]
    assert starts == sorted(starts)


def test_each_call_is_recorded_with_its_bytes_algorithm_and_number(tmp_path: Path) -> None:
    ended = run(tmp_path, CALLS, FMI_TELEMETRY="log")
    assert "PeerTimeoutError" in ended.stderr or "MismatchError" in ended.stderr
    recorded = messages(ended.stdout)
    events = [event for message in recorded for event in message.events]
    plans = {event.plan: event for event in events if isinstance(event, Planned)}
    rows = [row for event in events if isinstance(event, Operations) for row in event.rows]
    calls = [(plans[plan].operation, number, size) for plan, number, _, _, size in rows]
    assert calls == [
        ("allreduce", 0, 8000),
        ("allreduce", 1, 8000),
        ("allreduce", 2, 8000),
        ("gatherv", 3, 8000),
        ("send", 0, 8000),
        ("recv", 0, 8000),
        ("irecv", 1, 8000),
        ("isend", 1, 8000),
        ("recv", 2, 0),
    ]
    assert [plans[row[0]].algorithm for row in rows[:5]] == [*["recursive doubling"] * 3, "linear", "message"]
    assert [plans[row[0]].channel for row in rows[3:5]] == ["Direct", "loopback"]
    assert plans[rows[0][0]].call == "allreduce (1000 x float64, operator sum, shape [1000])"
    assert all(began > 0 and duration > 0 for _, _, began, duration, _ in rows)
    assert [message.number for message in recorded] == list(range(len(recorded)))
    (failure,) = [event for event in events if isinstance(event, Failed)]
    assert failure.origin == 0


def test_both_kinds_of_lines_can_be_written(tmp_path: Path) -> None:
    output = run(tmp_path, PROGRAM, FMI_TRACE="1", FMI_TELEMETRY="log").stdout
    assert sum(line.startswith("fmi-trace: ") for line in output.splitlines()) == 1
    assert messages(output)


def test_a_forked_child_records_nothing(tmp_path: Path) -> None:
    output = run(tmp_path, FORKS, FMI_TELEMETRY="log").stdout
    assert [line for line in output.splitlines() if not line.startswith("fmi-events: ")] == ["child None"]
    rows = [
        row
        for message in messages(output)
        for event in message.events
        if isinstance(event, Operations)
        for row in event.rows
    ]
    assert len(rows) == 1
    assert not any(isinstance(event, Status) for message in messages(output) for event in message.events)


@pytest.mark.parametrize(
    ("variables", "complaint"),
    [
        ({"FMI_TELEMETRY": "radio"}, "invalid FMI_TELEMETRY 'radio': expected 'bus' or 'log'"),
        ({"FMI_TELEMETRY": "bus"}, "invalid FMI_TELEMETRY_BUS: expected two tcp:// addresses and three keys"),
        (
            {"FMI_TELEMETRY": "bus", "FMI_TELEMETRY_BUS": "tcp://a:1 tcp://a:2 very secret keys"},
            "invalid FMI_TELEMETRY_BUS: expected two tcp:// addresses and three keys",
        ),
    ],
)
def test_invalid_variables_are_refused_without_their_secrets(
    tmp_path: Path, variables: dict[str, str], complaint: str
) -> None:
    ended = run(tmp_path, PROGRAM, **variables)
    assert ended.returncode == 1
    assert complaint in ended.stderr
    assert "secret" not in ended.stderr.replace("three keys", "")
