"""The report of what a machine can do."""

import pytest

from emulator.cli.doctor import CHECKS, Finding, docker, report


def test_every_check_gives_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    status = report(CHECKS)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(CHECKS)
    assert {line.split()[0] for line in lines} <= {"ok", "no", "degraded"}
    assert status == int(any(line.startswith("degraded") for line in lines))


def test_only_what_a_default_run_needs_degrades_it(capsys: pytest.CaptureFixture[str]) -> None:
    missing = Finding("a", "not\nhere", available=False, advice="change it")
    assert report([lambda: missing]) == 0
    assert report([lambda: missing, lambda: Finding("b", "not here", False, True, "change it")]) == 1
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "no        a: not here; change it",
        "degraded  b: not here; change it",
    ]


def test_a_missing_daemon_is_no_degradation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    finding = docker()
    assert not finding.available
    assert not finding.is_degraded
    assert "start one" in finding.line()
