"""The phases that are collected from the lines written to the log."""

from collections.abc import Sequence

from emulator.page.phases import PhaseLog
from fmi_shim.log_lines import Phase


class Lines:
    def __init__(self) -> None:
        self.seen: list[str] = []

    def append(self, region: str, group: str, stream: str, messages: Sequence[str]) -> None:
        self.seen += messages


def test_trace_lines_are_kept_by_stream_and_time_and_every_line_is_passed_on() -> None:
    lines = Lines()
    phases = PhaseLog(lines)
    trace = 'fmi-trace: {"phase":"download","seconds":1,"calls":1,"intervals":[[10.0,11.0]]}'
    phases.append("us-east-1", "group", "stream", ["hello", trace, "fmi-trace: forged"])
    assert lines.seen == ["hello", trace, "fmi-trace: forged"]
    assert phases.phases("stream", 9.0, 12.0) == [Phase("download", ((10.0, 11.0),), 1.0, 1)]
    assert phases.phases("stream", 12.0, 20.0) == []
    assert phases.phases("other", 9.0, 12.0) == []


def test_the_number_of_intervals_is_bounded_and_the_latest_streams_are_kept() -> None:
    phases = PhaseLog(Lines())
    intervals = ",".join(["[1.0,2.0]"] * 1000)
    trace = f'fmi-trace: {{"phase":"communication","seconds":1,"calls":1,"intervals":[{intervals}]}}'
    for number in range(300):
        phases.append("us-east-1", "group", f"stream-{number}", [trace])
        phases.append(
            "us-east-1", "group", "stream-0", ['fmi-trace: {"phase":"x","seconds":1,"calls":1,"intervals":[[1.0,2.0]]}']
        )
    assert phases.phases("stream-299", 0.0, 3.0)
    assert phases.phases("stream-0", 0.0, 3.0)
    assert not phases.phases("stream-1", 0.0, 3.0)
