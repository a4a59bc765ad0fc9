"""How a state fails: an error name of the language, and a cause for people to read."""

ALL = "States.ALL"
BRANCH_FAILED = "States.BranchFailed"
DATA_LIMIT_EXCEEDED = "States.DataLimitExceeded"
EXCEED_TOLERATED_FAILURES = "States.ExceedToleratedFailureThreshold"
HEARTBEAT_TIMEOUT = "States.HeartbeatTimeout"
INTRINSIC_FAILURE = "States.IntrinsicFailure"
ITEM_READER_FAILED = "States.ItemReaderFailed"
NO_CHOICE_MATCHED = "States.NoChoiceMatched"
RESULT_PATH_MATCH_FAILURE = "States.ResultPathMatchFailure"
RESULT_WRITER_FAILED = "States.ResultWriterFailed"
RUNTIME = "States.Runtime"
TASK_FAILED = "States.TaskFailed"
TIMEOUT = "States.Timeout"

# What a definition may name of the errors that start with "States.".
NAMES = frozenset(
    {
        ALL,
        BRANCH_FAILED,
        DATA_LIMIT_EXCEEDED,
        EXCEED_TOLERATED_FAILURES,
        HEARTBEAT_TIMEOUT,
        INTRINSIC_FAILURE,
        ITEM_READER_FAILED,
        NO_CHOICE_MATCHED,
        RESULT_PATH_MATCH_FAILURE,
        RESULT_WRITER_FAILED,
        RUNTIME,
        TASK_FAILED,
        TIMEOUT,
        "States.Http.Socket",
        "States.ParameterPathFailure",
        "States.Permissions",
        "States.QueryEvaluationError",
    }
)


class StateFailure(Exception):  # noqa: N818 - a failure is what the language calls it, and most are no errors of ours
    """A state has failed; a retrier or a catcher may take it.

    Parameters
    ----------
    error
        The error's name; None for a Fail state without one.
    cause
        What happened.
    """

    def __init__(self, error: str | None, cause: str | None = None) -> None:
        super().__init__(f"{error}: {cause}")
        self.error = error
        self.cause = cause

    def output(self) -> dict[str, str]:
        """Return what a catcher's next state gets to see."""
        named = {"Error": self.error, "Cause": self.cause}
        return {key: text for key, text in named.items() if text is not None}
