"""The secret of a run: its ranks prove it to the run's rendezvous server, and the server to them.

Raw ranks, which may be those of the C++ library, speak a protocol without secrets.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

from emulator.errors import EmulatorError
from fmi_shim.config import FRAMED_VARIABLE, RENDEZVOUS_VARIABLE
from fmi_shim.pairing.control_connection import SECRET_VARIABLE
from rendezvous.protocol.extension import MIN_SECRET_BYTES

_RAW = ("0", "false")
_OPEN = "this run's rendezvous server asks for no secret, since {reason}: other users of this machine can connect to it"


@dataclass(frozen=True)
class RendezvousSecret:
    """Which secret a run's rendezvous server asks for.

    Parameters
    ----------
    value
        The secret; empty for none.
    environment
        Variables that the ranks need so that they do not prove it to another server.
    note
        Why there is none; empty if there is one, or the run uses another server.
    """

    value: str = field(repr=False)
    environment: Mapping[str, str] = field(repr=False)
    note: str = ""


def secret_of_run(environment: Mapping[str, str], rank_image: str | None) -> RendezvousSecret:
    """Return the secret for a new run.

    Parameters
    ----------
    environment
        The variables that the user gives the ranks.
    rank_image
        The user's image that the ranks run in, whose ranks may be raw; None if they use this library.

    Raises
    ------
    EmulatorError
        If the user gives a secret that is too short.
    """
    given = environment.get(SECRET_VARIABLE, "")
    if given and len(given.encode()) < MIN_SECRET_BYTES:
        raise EmulatorError(
            f"invalid {SECRET_VARIABLE}: expected at least {MIN_SECRET_BYTES} bytes, got {len(given.encode())}"
        )
    if RENDEZVOUS_VARIABLE in environment:
        # The run's own server is not used.
        return RendezvousSecret(given or secrets.token_hex(32), {SECRET_VARIABLE: given})
    framed = environment.get(FRAMED_VARIABLE, "")
    if framed.strip().lower() in _RAW:
        return RendezvousSecret("", {}, _OPEN.format(reason="raw ranks cannot prove one"))
    if rank_image is not None and not framed:
        reason = f"the ranks of an image may be raw (-x {FRAMED_VARIABLE}=1 says that they are not)"
        return RendezvousSecret("", {}, _OPEN.format(reason=reason))
    return RendezvousSecret(given or secrets.token_hex(32), {})
