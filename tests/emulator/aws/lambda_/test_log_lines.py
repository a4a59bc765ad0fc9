"""Writing and parsing Lambda's log lines."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.aws.lambda_.log_lines import InitReport, Report, init_start_line, parse_report

# A line of a real run, from CloudWatch Logs.
REAL = (
    "REPORT RequestId: adbca9aa-fe3a-4fd6-b4e7-5e7b46ae71f1\tDuration: 40243.33 ms\tBilled Duration: 40908 ms\t"
    "Memory Size: 10240 MB\tMax Memory Used: 5948 MB\tInit Duration: 663.81 ms\t"
)

hundredths = st.integers(0, 90_000_000).map(lambda number: number / 100)
reports = st.builds(
    Report,
    request_id=st.uuids().map(str),
    duration_ms=hundredths,
    memory_mb=st.integers(128, 10_240),
    max_memory_mb=st.integers(1, 10_240),
    init_ms=st.none() | hundredths,
    status=st.none() | st.sampled_from(["error", "timeout"]),
    error_type=st.none() | st.just("Runtime.ExitError"),
)


@given(reports)
def test_a_written_report_line_parses_to_the_same_report(report: Report) -> None:
    assert parse_report(report.line()) == report


def test_a_report_line_of_aws_is_parsed_and_written_unchanged() -> None:
    report = parse_report(REAL)
    assert (report.duration_ms, report.init_ms, report.max_memory_mb) == (40243.33, 663.81, 5948)
    assert report.billed_ms == 40908
    assert report.line() == REAL


@given(hundredths, st.none() | hundredths)
def test_billed_time_is_the_sum_of_handler_and_cold_start_rounded_up(duration: float, init: float | None) -> None:
    total = duration + (init or 0)
    assert total - 0.01 <= Report("id", duration, 128, 1, init).billed_ms < total + 1


@pytest.mark.parametrize("line", ["END RequestId: 1", "REPORT RequestId: 1\tDuration: 3 ms"])
def test_other_lines_raise_value_error(line: str) -> None:
    with pytest.raises(ValueError, match="REPORT"):
        parse_report(line)


def test_the_lines_of_the_init_phase_have_lambdas_format() -> None:
    opening = init_start_line("python:3.11.7", "arn:aws:lambda:us-east-1::runtime:1")
    assert opening.startswith("INIT_START Runtime Version: python:3.11.7\tRuntime Version ARN: arn:")
    assert InitReport(300.472, "init", "error", "Runtime.ImportModuleError").line() == (
        "INIT_REPORT Init Duration: 300.47 ms\tPhase: init\tStatus: error\tError Type: Runtime.ImportModuleError"
    )
    assert InitReport(9999.0, "invoke", "timeout", None).line() == (
        "INIT_REPORT Init Duration: 9999.00 ms\tPhase: invoke\tStatus: timeout"
    )
