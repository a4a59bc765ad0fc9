"""Updates in progress: AWS refuses to change a function that it still updates."""

import time

from emulator.aws.lambda_.core.references import Reference, conflict
from emulator.aws.limits import UPDATE_S


class UpdatesInProgress:
    """The functions that were updated just now.

    Here an update is done at once. It counts as in progress until somebody reads the function's state, or for a second:
    a program that changes a function twice without waiting gets the error that it gets on AWS.
    """

    def __init__(self) -> None:
        self._ends: dict[str, float] = {}

    def begin(self, reference: Reference) -> None:
        """Record an update."""
        self._ends[reference.key] = time.monotonic() + UPDATE_S

    def end(self, reference: Reference) -> None:
        """Record that the state was read, or that the function was deleted."""
        self._ends.pop(reference.key, None)

    def check_ended(self, reference: Reference) -> None:
        """Check that no update is in progress.

        Raises
        ------
        ApiError
            When one is: status 409.
        """
        if time.monotonic() < self._ends.get(reference.key, 0.0):
            raise conflict(
                "The operation cannot be performed at this time. An update is in progress for resource: "
                f"{reference.arn}"
            )
        self._ends.pop(reference.key, None)
