"""Settings of the Lambda service."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from emulator.aws.credentials import Credentials
from emulator.aws.lambda_.core.cold_starts import ColdStarts
from emulator.aws.limits import ASYNC_RETRY_DELAYS_S, INIT_S

# AWS documents no time; measurements report five to fifteen minutes.
_IDLE_S = 300.0


class SandboxKind(Enum):
    """What functions run in: processes of this machine, or containers. Images always run in containers."""

    PROCESS = "process"
    DOCKER = "docker"


class RuntimeClient(Enum):
    """The program that calls Python handlers: our client in a fork, or AWS's client in a new process."""

    FORK = "fork"
    AWSLAMBDARIC = "awslambdaric"


@dataclass(frozen=True)
class LambdaSettings:
    """Settings of the Lambda service.

    Parameters
    ----------
    retry_delays_s
        Pauses before a failed event is retried, seconds; on AWS one minute, then two.
    runtime_client
        The program that calls Python handlers.
    cold_starts
        Durations of cold starts; None leaves them at what they take here.
    idle_s
        How long an idle sandbox is kept, seconds.
    init_s
        Time limit of the init phase, seconds.
    annotate_event
        Called with each parsed event; the result, which should be small, is kept in the invocation's record. None
        keeps nothing.
    credentials
        The key in the functions' environment.
    packages
        Modules that functions may import besides AWS's, numpy, fmi and their own; None for all that are installed.
    variables
        Variables of every function, unless it has others of these names.
    """

    retry_delays_s: Sequence[float] = ASYNC_RETRY_DELAYS_S
    runtime_client: RuntimeClient = RuntimeClient.FORK
    cold_starts: ColdStarts | None = None
    idle_s: float = _IDLE_S
    init_s: float = INIT_S
    annotate_event: Callable[[Any], object] | None = None
    credentials: Credentials = field(default_factory=Credentials.random_session)
    packages: Sequence[str] | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
