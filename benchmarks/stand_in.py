"""What mpirun starts in the place of a rank that is to be a fork: see `benchmarks.forked_ranks`.

It imports little, and nothing of ours, since there are as many as ranks.
"""

from __future__ import annotations

import json
import os
import socket
import sys


def stand_in(path: str) -> int:
    """Hand this process's environment and standard streams to who forks ranks; return the rank's exit code.

    It is 1 if that process has ended.
    """
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(path)
        socket.send_fds(server, [json.dumps(dict(os.environ)).encode() + b"\n"], [0, 1, 2])
        code = server.recv(1)
    return code[0] if code else 1


if __name__ == "__main__":
    try:
        sys.exit(stand_in(sys.argv[1]))
    except OSError as error:
        sys.exit(f"the process that forks the ranks is gone: {error.strerror}")
