"""The bridge of a network, which podman makes no sooner than its first container: servers listen on it before that."""

import ipaddress
import socket
import subprocess

from emulator.aws.sandboxes.containers.daemon import DaemonError, Network

_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_TIMEOUT_S = 30


def make_bridge(network: Network) -> None:
    """Make the bridge of a network with its address, unless the daemon has done so; the daemon removes it.

    Raises
    ------
    DaemonError
        When this user may not.
    """
    if _is_local(network.gateway):
        return
    prefix = ipaddress.ip_network(network.subnet).prefixlen
    commands = (
        f"link add {network.bridge} type bridge",
        f"addr add {network.gateway}/{prefix} dev {network.bridge}",
        f"link set {network.bridge} up",
    )
    try:
        subprocess.run(
            ("ip", "-batch", "-"),  # noqa: S607 - found in _PATH
            input="\n".join(commands) + "\n",
            check=True,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            env={"PATH": _PATH},
        )
    except (OSError, subprocess.SubprocessError) as error:
        reason = getattr(error, "stderr", "") or str(error)
        raise DaemonError(
            f"{network.gateway}, the gateway of the containers' network, is not an address of this machine, and cannot "
            f"be made one ({reason.strip()}): run as root with iproute2, or use Docker"
        ) from None


def _is_local(address: str) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
        return True
