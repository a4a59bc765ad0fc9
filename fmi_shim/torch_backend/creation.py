"""Creates a process group: agrees on its communicator's name and on the rendezvous server through the group's store.

Where FMI_RENDEZVOUS is set or the working directory has ``fmi.json``, ranks connect through that rendezvous server.
Elsewhere, as under torchrun, rank 0 starts one, and tells the others through the group's store.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import secrets
import socket
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

from fmi_shim.config import RENDEZVOUS_VARIABLE, Config, load, parse
from fmi_shim.pairing.control_connection import SECRET_VARIABLE
from fmi_shim.torch_backend.process_group import FmiProcessGroup

_CONFIG = "fmi.json"
_ENTRY = "fmi"
"""Key in the group's store: the communicator's name, and the server that rank 0 has started."""
_SERVER = """
import os, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
from rendezvous.__main__ import main
main()
"""
"""The rendezvous server, which ends when its standard input does."""
_LONGEST_TIMEOUT = timedelta(days=20)
"""fmi.json's limit, about."""


def create_group(options: Any, backend_options: object) -> FmiProcessGroup:
    """Create a process group; called by torch on each of its ranks."""
    rank, size, store = options.group_rank, options.group_size, options.store
    server: dict[str, str] | None
    if rank == 0:
        server = None if os.environ.get(RENDEZVOUS_VARIABLE) or Path(_CONFIG).is_file() else _server()
        name = f"torch{secrets.token_hex(8)}/"
        store.set(_ENTRY, json.dumps({"name": name, "server": server}))
    else:
        entry = json.loads(store.get(_ENTRY))
        name, server = entry["name"], entry["server"]
    has_file = server is None and Path(_CONFIG).is_file()
    config = load(Path(_CONFIG).resolve()) if has_file else _config(server, options.timeout)
    return FmiProcessGroup(rank, size, name, config, sets_timeout=not has_file)


@functools.cache
def _server() -> dict[str, str]:
    """Start a rendezvous server for the groups whose rank 0 this process is; it ends with this process.

    It listens where the group's store does: on MASTER_ADDR, or on the loopback address.
    """
    host = socket.gethostbyname(os.environ.get("MASTER_ADDR") or "localhost")
    secret = secrets.token_hex(16)
    server = subprocess.Popen(  # noqa: S603 - this project's server
        [sys.executable, "-c", _SERVER, "--host", host, "--port", "0"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, SECRET_VARIABLE: secret},
    )
    atexit.register(server.kill)
    assert server.stdout is not None  # noqa: S101 - a pipe
    address = server.stdout.readline().split()[-1:]
    if not address:
        raise RuntimeError(
            f"cannot start a rendezvous server on {host}, see above: install fmi-emulator there, or set "
            f"{RENDEZVOUS_VARIABLE} to the host:port of a running one"
        )
    return {"address": address[0], "secret": secret}


def _config(server: dict[str, str] | None, timeout: timedelta) -> Config:
    """Return the configuration for a given server, or for that of the environment."""
    if server is not None:
        os.environ[SECRET_VARIABLE] = server["secret"]
    address = os.environ[RENDEZVOUS_VARIABLE] if server is None else server["address"]
    host, _, port = address.rpartition(":")
    milliseconds = int(min(timeout, _LONGEST_TIMEOUT).total_seconds() * 1000)
    direct = {"enabled": True, "host": host, "port": int(port), "max_timeout": milliseconds, "framed": True}
    # Not a file: it would remain where a rank is killed.
    return parse(json.dumps({"backends": {"Direct": direct}}).encode(), "configuration of the process group")
