"""The program that mpirun starts for a rank that is a fork: see `benchmarks.forked_ranks`.

It imports little, since there is one for each rank.
"""

from __future__ import annotations

import json
import os
import socket
import sys


def run(path: str) -> int:
    """Send this process's environment and standard streams to the forking process; return the rank's exit code.

    The code is 1 if the forking process has ended.
    """
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(path)
        socket.send_fds(server, [json.dumps(dict(os.environ)).encode() + b"\n"], [0, 1, 2])
        code = server.recv(1)
    return code[0] if code else 1


if __name__ == "__main__":
    try:
        sys.exit(run(sys.argv[1]))
    except OSError as error:
        sys.exit(f"the process that forks the ranks has ended: {error.strerror}")
