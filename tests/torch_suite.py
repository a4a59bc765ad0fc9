"""torch's own tests of gloo, run with the backend ``fmi``: ``python -m tests.torch_suite [NAME ...]``.

They are those of ``torch.testing._internal.distributed.distributed_test``, which is in torch's wheel, as far as they
need no GPU. They run as those of gloo do, so that no test is left out for a backend that torch does not know: wherever
a test asks for gloo it gets ``fmi``. ``--backend gloo`` runs them unchanged, to tell which pass at all on this machine.
The ranks of a test are forks of this process, because each interpreter takes seconds to import torch.

A line is printed for each test, with the error of the first rank of those that fail, and at the end the share that
passes of those that were not skipped. It takes about half an hour of processor time, and needs the package expecttest.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import sys
import tempfile
import unittest
from typing import Any

WORLD_SIZE = 8
"""Of fewer ranks, torch leaves out the tests of groups."""
LIMIT_S = 60
os.environ.update(BACKEND="gloo", WORLD_SIZE=str(WORLD_SIZE), OMP_NUM_THREADS="1", TORCH_DISTRIBUTED_DEBUG="OFF")
_folder = tempfile.TemporaryDirectory(prefix="torch-suite-")  # removed at the end of this process
os.environ["TEMP_DIR"] = _folder.name

import torch  # noqa: E402 - after the variables that torch's tests read when they are imported
import torch.distributed as dist  # noqa: E402
from torch.testing._internal import common_distributed  # noqa: E402
from torch.testing._internal.distributed import distributed_test  # noqa: E402

from emulator.testing.rendezvous_process import RendezvousProcess  # noqa: E402
from fmi_shim.config import RENDEZVOUS_VARIABLE  # noqa: E402
from fmi_shim.torch_backend import register  # noqa: E402

_ERROR_LINE = re.compile(r"^(?:\w+\.)*\w*(?:Error|Exception|Failed)\b.*", re.MULTILINE)


class TorchTests(distributed_test.TestDistBackend, distributed_test.DistributedTest._DistTestBase):
    """torch's tests, whose ranks are forked."""

    def setUp(self) -> None:
        """Fork the ranks, which run the test."""
        super().setUp()
        self._start_processes(multiprocessing.get_context("fork").Process)


def use_fmi() -> None:
    """Have torch create the backend ``fmi`` wherever gloo is asked for."""
    register()
    originals = {name: getattr(dist, name) for name in ("init_process_group", "new_group", "new_subgroups")}

    def substitute(name: str) -> Any:
        original = originals[name]

        def call(*arguments: Any, **keywords: Any) -> Any:
            if keywords.get("backend") == "gloo":
                keywords["backend"] = "fmi"
            return original(*("fmi" if argument == "gloo" else argument for argument in arguments), **keywords)

        return call

    for name in originals:
        replacement = substitute(name)
        setattr(dist, name, replacement)
        setattr(dist.distributed_c10d, name, replacement)


class Outcomes(unittest.TestResult):
    """Prints and counts the outcomes."""

    def __init__(self) -> None:
        super().__init__()
        self.passed = 0

    def addSuccess(self, test: unittest.TestCase) -> None:  # noqa: N802 - unittest's name
        """Count a test that passed."""
        super().addSuccess(test)
        self.passed += 1
        _print(test, "passed")

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:  # noqa: N802
        """Count a test that was skipped."""
        super().addSkip(test, reason)
        _print(test, f"skipped: {reason}")

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:  # noqa: N802
        """Count a test that failed."""
        super().addFailure(test, err)
        _print(test, f"FAILED: {_reason(str(err[1]))}")

    def addError(self, test: unittest.TestCase, err: Any) -> None:  # noqa: N802
        """Count a test that ended with an error."""
        super().addError(test, err)
        _print(test, f"FAILED: {_reason(str(err[1]))}")


def _print(test: unittest.TestCase, outcome: str) -> None:
    print(f"{test.id().rpartition('.')[2]}: {outcome}", flush=True)


def _reason(text: str) -> str:
    lines = _ERROR_LINE.findall(text) or text.strip().splitlines() or [""]
    return lines[-1][:300]


def main() -> int:
    """Run the tests that are named, or all; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=("fmi", "gloo"), default="fmi")
    parser.add_argument("--verbose", action="store_true", help="print the tracebacks of failures, too")
    parser.add_argument("names", nargs="*", metavar="NAME", help="such as test_all_reduce_sum")
    options = parser.parse_args()
    if torch.cuda.is_available():
        sys.exit("these tests are of the CPU alone: set CUDA_VISIBLE_DEVICES to the empty text")
    common_distributed.TIMEOUT_DEFAULT = LIMIT_S
    torch.set_num_threads(1)
    server = RendezvousProcess()
    if options.backend == "fmi":
        os.environ[RENDEZVOUS_VARIABLE] = server.address
        use_fmi()
    loader = unittest.defaultTestLoader
    suite = unittest.TestSuite(TorchTests(name) for name in options.names or loader.getTestCaseNames(TorchTests))
    outcomes = Outcomes()
    try:
        suite.run(outcomes)
    finally:
        server.close()
    failed = [*outcomes.failures, *outcomes.errors]
    if options.verbose:
        for _, text in failed:
            print(text)
    ran = outcomes.passed + len(failed)
    print(f"{options.backend}: {outcomes.passed} of {ran} tests passed, {len(outcomes.skipped)} were skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
