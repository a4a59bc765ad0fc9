"""How a framed rank makes itself known to a rendezvous server of ours: from the environment alone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from fmi_shim.errors import ConfigError
from rendezvous.protocol.registration import MAX_JOB_BYTES

JOB_VARIABLE = "FMI_JOB"
SECRET_VARIABLE = "FMI_RENDEZVOUS_SECRET"  # noqa: S105 - its name, not the secret
CERTIFICATE_VARIABLE = "FMI_RENDEZVOUS_CERTIFICATE"


@dataclass(frozen=True, slots=True)
class Access:
    """What a rank shows the server, and what it wants to be shown.

    Attributes
    ----------
    job
        Keeps runs apart that use the same communicator name; the same on all ranks, may be empty. (FMI_JOB)
    secret
        What the server asks for; empty if nothing. With a secret, a server that does not know it is refused.
        (FMI_RENDEZVOUS_SECRET)
    certificate
        PEM file of the authority, or of the server itself, that its certificate is checked with; empty for
        the system's. With a certificate, a server that speaks no TLS is refused. (FMI_RENDEZVOUS_CERTIFICATE)
    """

    job: str = ""
    secret: bytes = field(default=b"", repr=False)
    certificate: str = ""


def read_access(environment: Mapping[str, str] = os.environ) -> Access:
    """Read the three variables.

    Raises
    ------
    ConfigError
        If the job's name is too long.
    """
    job = environment.get(JOB_VARIABLE, "")
    if len(job.encode()) > MAX_JOB_BYTES:
        raise ConfigError(f"environment: {JOB_VARIABLE} is {job!r}, allowed are at most {MAX_JOB_BYTES} bytes")
    return Access(job, environment.get(SECRET_VARIABLE, "").encode(), environment.get(CERTIFICATE_VARIABLE, ""))
