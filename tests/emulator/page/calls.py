"""Invocations for the tests of the page."""

from dataclasses import replace

from emulator.aws.lambda_.core.history import InvocationRecord, InvocationStatus
from emulator.fmi.event_rank import EventRank


def call(rank: int | None, received: float = 100.0, **changes: object) -> InvocationRecord:
    """Return an invocation with a cold start of 0.5 s and a handler of 2 s, unless changed."""
    record = InvocationRecord(
        request_id=f"request-{rank}-{received}",
        function="execute",
        version="$LATEST",
        memory_mb=1769,
        received=received,
        status=InvocationStatus.SUCCEEDED,
        log_group="/aws/lambda/execute",
        log_stream=f"stream-{rank}",
        init_ms=500.0,
        started=received + 0.5,
        ended=received + 2.5,
        billed_ms=2500,
        peak_memory_mb=60,
        annotation=EventRank(rank, None if rank is None else 4),
    )
    return replace(record, **changes)  # type: ignore[arg-type] # whatever a test changes
