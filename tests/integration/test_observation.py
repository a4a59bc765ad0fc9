"""fmirun with the options that show what ranks do."""

import json
import signal
from pathlib import Path

import pytest

from tests.commands import FMI_EMULATOR, run
from tests.integration.fmirun import EXAMPLES, fmirun, leftovers, start


def test_a_run_writes_its_trace_and_prints_its_profile(tmp_path: Path) -> None:
    trace = tmp_path / "trace.json"
    status, output, errors = fmirun(tmp_path, "-n", 2, "--trace", trace, "--profile", EXAMPLES / "reduce.py")
    assert status == 0, errors
    assert "fmi-" not in output
    assert f"trace in {trace}: open it in ui.perfetto.dev" in errors
    assert "profile of 2 ranks over" in errors
    assert "critical path: " in errors
    content = json.loads(trace.read_text())
    names = {(event["pid"], event["name"]) for event in content["traceEvents"] if event["ph"] == "X"}
    expected = {(rank, name) for rank in range(2) for name in ("cold start", "handler", "download", "reduce")}
    assert names == {*expected, (2, "introduces ranks 0 and 1 of 'reduce'")}
    assert "rendezvous server" in {event["args"].get("name") for event in content["traceEvents"] if event["ph"] == "M"}
    assert content["otherData"]["calls dropped"] == 0


@pytest.mark.parametrize("option", ["--trace"])
def test_a_file_that_cannot_be_written_is_reported_before_the_run(tmp_path: Path, option: str) -> None:
    (tmp_path / "file").touch()
    status, output, errors = fmirun(tmp_path, "-n", 2, option, tmp_path / "file" / "trace", EXAMPLES / "reduce.py")
    assert (status, output) == (2, "")
    assert "is not a folder" in errors
    assert len(errors.splitlines()) == 1


HANGS = """
import os, time, fmi
rank = int(os.environ["RANK"])
comm = fmi.Communicator(rank, 2, "fmi.json", "hangs")
comm.barrier()
def compute():
    print("computing", flush=True)
    while True:
        time.sleep(0.1)
if rank == 1:
    compute()
comm.recv(1)
"""


def test_a_run_that_hangs_shows_where_on_a_signal_and_on_an_interrupt(tmp_path: Path) -> None:
    program = tmp_path / "program" / "main.py"
    program.parent.mkdir()
    program.write_text(HANGS)
    (program.parent / "fmi.json").write_text((EXAMPLES / "fmi.json").read_text())
    command = start(tmp_path, "-n", 2, "--live", program)
    assert command.stdout.readline() == "[1] computing\n"
    # The live view shows that the other rank waits, before anything is asked.
    while "in recv 0 of 'hangs', waits for rank 1" not in command.stderr.readline():
        pass
    command.send_signal(signal.SIGUSR1)
    conclusion = "rank 0 waits, directly or through others, for rank 1, which is in no call\n"
    shown: list[str] = []
    while not shown or shown[-1] != conclusion:
        shown.append(command.stderr.readline())
    of_ranks = [line for line in shown if line.startswith("rank ") and "call" in line]
    assert "rank 0 waits for rank 1 in recv (" in of_ranks[-3]
    assert "program/main.py:12 in <module>" in of_ranks[-3]
    assert "program/main.py:9 in compute, called from " in of_ranks[-2]
    command.send_signal(signal.SIGINT)
    _, errors = command.communicate(timeout=50)
    assert conclusion in errors
    assert errors.endswith("fmirun: interrupted\n")
    assert command.returncode == 130
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("backend", ["aws", "docker"])
def test_a_live_view_needs_ranks_that_reach_the_command(tmp_path: Path, backend: str) -> None:
    status, _, errors = fmirun(tmp_path, "-n", 2, "--live", "--backend", backend, EXAMPLES / "reduce.py")
    assert status == 2
    assert errors.startswith("fmirun: --live needs ranks that reach this command: use --backend local")


def test_a_pipeline_shows_its_functions_in_the_trace(tmp_path: Path) -> None:
    trace = tmp_path / "trace.json"
    ended = run(FMI_EMULATOR, "pipeline", EXAMPLES / "pipeline.json", "--trace", trace, "--profile", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "profile of " in ended.stderr
    events = json.loads(trace.read_text())["traceEvents"]
    processes = {event["args"]["name"]: event["pid"] for event in events if event["name"] == "process_name"}
    seen = [event["name"] for event in events if event["ph"] == "X" and event["pid"] == processes["pipeline"]]
    assert {"initialize", "summarize"} <= set(seen)
    assert {"handler", "download"} <= {event["name"] for event in events if event["pid"] == 0}
