"""A rank in a new interpreter, for programs that cannot be forked: those that use CUDA, or forbid it themselves.

Its arguments are the process that started it, and the descriptors of its job, its socket and its two files. The job was
pickled by that process.
"""

from __future__ import annotations

import os
import pickle
import socket
import sys
from typing import NoReturn

from emulator.testing.rank_process import Descriptors, RankJob, become_rank


def main() -> NoReturn:
    """Read the job and become its rank."""
    parent, job_file, report, output, stacks = map(int, sys.argv[1:])
    os.dup2(output, 1)
    os.dup2(output, 2)
    with open(job_file, "rb") as file:  # noqa: PTH123 - a descriptor
        file.seek(0)
        job: RankJob = pickle.load(file)  # noqa: S301 - see above
    become_rank(job, Descriptors(socket.socket(fileno=report), output, stacks), parent)


if __name__ == "__main__":
    main()
