"""fmi-emulator sweep as a user runs it."""

import argparse
import csv
import json
import signal
import sys
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from emulator.cli import fmi_emulator
from emulator.cli.sweep import _program, add_parser
from emulator.cloud import LocalCloud
from emulator.fmi.sweep.table import SweepError
from tests.commands import FMI_EMULATOR, Command
from tests.emulator.signing import page_cookie
from tests.integration.fmirun import EXAMPLES, leftovers

FLAKY = """
import json, os
import boto3
rank, size = os.environ["RANK"], os.environ["WORLD_SIZE"]
print("batch", os.environ["BATCH_SIZE"], flush=True)
if size == "2" and {fails}:
    raise ValueError("not yet")
key = os.environ["RESULT_PATH"] + "/" + rank + ".json"
boto3.client("s3").put_object(Bucket=os.environ["S3_BUCKET"], Key=key, Body=json.dumps({{"sample_persec": 10.0}}))
"""


def start(tmp_path: Path, *arguments: object) -> Command:
    (tmp_path / "state").mkdir(exist_ok=True)
    return Command(FMI_EMULATOR, "sweep", *arguments, environment={"TMPDIR": str(tmp_path / "state")})


def sweep(tmp_path: Path, *arguments: object) -> tuple[int, str, str]:
    with start(tmp_path, *arguments) as command:
        output, errors = command.communicate()
        assert leftovers(tmp_path) == []
        return command.wait(), output, errors


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "sweep.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_sweep_resumes_with_the_runs_that_have_not_succeeded(tmp_path: Path) -> None:
    """A failed run does not end the sweep; the same command repeats it alone."""
    program, out = tmp_path / "program" / "flaky.py", tmp_path / "out"
    program.parent.mkdir()
    program.write_text(FLAKY.format(fails=True))
    settings = ("--world-sizes", "1,2", "--batch-sizes", "16", "--memory", "512", "--with-results", "--out", out)
    status, output, errors = sweep(tmp_path, *settings, program)
    assert status == 1, errors
    assert "[0] batch 16" in output
    assert [(row["world_size"], row["status"], row["samples_per_s"]) for row in rows(out)] == [
        ("1", "ok", "10"),
        ("2", "failed", "0"),
    ]
    assert "ValueError: not yet" in rows(out)[1]["error"]
    program.write_text(FLAKY.format(fails=False))
    status, output, errors = sweep(tmp_path, *settings, program)
    assert status == 0, errors
    assert "2 runs, 1 of them done before" in errors
    assert [(row["status"], row["samples_per_s"]) for row in rows(out)] == [("ok", "10"), ("ok", "20")]
    assert (out / "world_size.png").read_bytes().startswith(b"\x89PNG")
    assert "say nothing about growth" in errors
    status, _, errors = sweep(tmp_path, *settings, EXAMPLES / "reduce.py")
    assert status == 2
    assert errors.startswith(f"fmi-emulator: {out}: contains a sweep with other script: choose another --out")


def test_a_sweep_of_the_pipeline_changes_the_payload_and_is_shown(
    tmp_path: Path, cloud: LocalCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in cloud.credentials.environment().items():
        monkeypatch.setenv(name, value)
    payload, page = EXAMPLES / "pipeline.json", ("--page", cloud.endpoint_url)
    status, output, errors = sweep(
        tmp_path, "--world-sizes", "2", "--payload", payload, *page, "--out", tmp_path / "out"
    )
    assert status == 0, errors
    assert "[0] 2 ranks: 1 + 2 + ... + 2 = 3" in output
    report = json.loads((tmp_path / "out" / "runs" / "world_size_2" / "report.json").read_text())
    assert report["usd"]["orchestration"] > 0
    address = f"{cloud.endpoint_url}/_emulator/sweeps/out"
    assert f"shown at {address}" in errors
    with urlopen(Request(address, headers={"Cookie": page_cookie(cloud)}), timeout=20) as shown:
        assert "1 of 1" in shown.read().decode()
    assert [rank["rank"] for rank in report["ranks"]] == [0, 1]


def test_partitions_are_written_for_each_size_and_have_a_rank_each(tmp_path: Path) -> None:
    program = tmp_path / "program" / "keys.py"
    program.parent.mkdir()
    program.write_text("import os; print('of', os.environ['WORLD_SIZE'])")
    status, _, errors = sweep(tmp_path, "--partitions-mb", "1", "--total", "2MB", "--out", tmp_path / "out", program)
    assert status == 0, errors
    assert [(row["partition_mb"], row["ranks"]) for row in rows(tmp_path / "out")] == [("1", "2")]


def test_ctrl_c_ends_the_run_and_the_table_stays(tmp_path: Path) -> None:
    program, out = tmp_path / "program" / "waits.py", tmp_path / "out"
    program.parent.mkdir()
    program.write_text("import os, time; print('go', flush=True); time.sleep(60 * (os.environ['WORLD_SIZE'] == '2'))")
    with start(tmp_path, "--world-sizes", "1,2", "--out", out, program) as command:
        lines = [command.stdout.readline()]
        while lines[-1] and sum("go" in line for line in lines) < 2:
            lines.append(command.stdout.readline())
        command.send_signal(signal.SIGINT)
        command.communicate(timeout=30)
    assert command.returncode == 130
    assert leftovers(tmp_path) == []
    assert [row["status"] for row in rows(out)] == ["ok"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--world-sizes", "2"], "expected either a script"),
        ([str(EXAMPLES / "reduce.py")], "missing --world-sizes"),
        (["--partitions-mb", "25", str(EXAMPLES / "reduce.py")], "--partitions-mb and --total belong together"),
        (["--world-sizes", "2", "missing.py"], "script 'missing.py' does not exist"),
        (["--world-sizes", "two", "x.py"], "expected a whole number, got 'two'"),
        (["--partitions-mb", "25", "--total", "much", "x.py"], "expected a size such as 1GB"),
    ],
)
def test_what_a_sweep_needs_is_asked_for(
    tmp_path: Path,
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["fmi-emulator", "sweep", "--out", str(tmp_path / "out"), *arguments])
    with pytest.raises(SystemExit) as ended:
        fmi_emulator()
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_backend_and_the_account_are_passed_on_to_every_run(tmp_path: Path) -> None:
    """The run itself refuses what its backend does not have; options of an account need its backend."""
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    given = ["sweep", "--out", str(tmp_path), "--world-sizes", "2", "--region", "eu-west-1", "--timeout", "30"]
    program = str(EXAMPLES / "reduce.py")
    options = parser.parse_args([*given, "--backend", "aws", "--stack-name", "mine", program, "--steps", "3"])
    swept = _program(options)
    assert swept.options == ("--timeout=30", "--backend=aws", "--stack-name=mine", "--region=eu-west-1")
    assert swept.arguments == ("--steps", "3")
    with pytest.raises(SweepError, match="give --backend aws, too"):
        _program(parser.parse_args([*given, program]))
