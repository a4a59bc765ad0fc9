"""Collects the times of the ranks' phases from the lines that are written to the log."""

from collections import OrderedDict
from collections.abc import Sequence

from emulator.aws.lambda_.log_lines import LogSink
from fmi_shim.log_lines import TRACE_MARKER, Phase

# A thousand ranks with a hundred intervals each, twice: some 25 MB. The streams that
# were written to least recently are dropped first.
_MOST_INTERVALS = 200_000


class PhaseLog:
    """A log sink that keeps the trace lines and passes on every line.

    Parameters
    ----------
    sink
        Stores the lines.
    """

    def __init__(self, sink: LogSink) -> None:
        self._sink = sink
        self._phases: OrderedDict[str, list[Phase]] = OrderedDict()
        self._intervals = 0

    def append(self, region: str, group: str, stream: str, messages: Sequence[str]) -> None:
        """Add log events; see `LogSink`."""
        for message in messages:
            if (
                message.startswith(TRACE_MARKER)
                and (phase := Phase.parse(message.rstrip("\n"))) is not None
                and phase.intervals
            ):
                self.remember(stream, phase)
        self._sink.append(region, group, stream, messages)

    def phases(self, stream: str, began: float, ended: float) -> list[Phase]:
        """Return the phases of a log stream that began between two times, seconds since 1970."""
        return [phase for phase in self._phases.get(stream, []) if began <= phase.intervals[0][0] <= ended]

    def remember(self, stream: str, phase: Phase) -> None:
        """Add a phase of a log stream."""
        self._phases.setdefault(stream, []).append(phase)
        self._phases.move_to_end(stream)
        self._intervals += len(phase.intervals)
        while self._intervals > _MOST_INTERVALS:
            _, forgotten = self._phases.popitem(last=False)
            self._intervals -= sum(len(phase.intervals) for phase in forgotten)
