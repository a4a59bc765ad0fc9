"""The examples, run as a newcomer runs them: unmodified, with ``import fmi``."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import fmi_shim

EXAMPLES = Path(__file__).parents[2] / "examples"
DROPIN = Path(fmi_shim.__file__).parent / "dropin"


@pytest.mark.parametrize("framed", ["0", "1"])
@pytest.mark.parametrize(
    ("script", "output"),
    [
        ("reduce.py", "3 ranks: 1 + 2 + ... + 3 = 6, and of the lists: [3.0, 1.5]\n"),
        ("monte_carlo.py", "pi is about 3.14"),
    ],
)
def test_an_example_runs_on_three_ranks(rendezvous_address: str, script: str, output: str, framed: str) -> None:
    common = {"PYTHONPATH": str(DROPIN), "WORLD_SIZE": "3", "FMI_RENDEZVOUS": rendezvous_address, "FMI_FRAMED": framed}
    ranks = [
        subprocess.Popen(
            [sys.executable, script],
            cwd=EXAMPLES,
            env=os.environ | common | {"RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(3)
    ]
    try:
        results = [rank.communicate(timeout=30) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    assert [error for _, error in results] == [""] * 3
    assert results[0][0].startswith(output)
    assert [text for text, _ in results[1:]] == ["", ""]


def test_fmi_has_the_names_of_the_original_module() -> None:
    names = "Communicator, types, datatypes, func, op, hints"
    command = f"import sys; sys.path.insert(0, {str(DROPIN)!r}); from fmi import {names}; print(op.sum, hints.fast)"
    result = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, timeout=30, check=True)
    assert result.stdout == "fmi.op.sum fmi.hints.fast\n"


def test_a_copy_of_the_file_works_wherever_it_lies(tmp_path: Path) -> None:
    (tmp_path / "fmi.py").write_bytes((DROPIN / "fmi.py").read_bytes())
    command = "import fmi; print(fmi.__file__)"
    result = subprocess.run(
        [sys.executable, "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=30, check=True
    )
    assert result.stdout == f"{tmp_path / 'fmi.py'}\n"


def test_a_bundle_of_the_shim_and_the_protocol_file_is_enough(tmp_path: Path) -> None:
    """What a Lambda bundle holds: fmi_shim, rendezvous' protocol and numpy; no torch, no server, no asyncio."""
    command = (
        "import sys, fmi_shim; fmi_shim.Communicator; "
        "ours = {'.'.join(m.split('.')[:2]) for m in sys.modules if m.partition('.')[0] == 'rendezvous'}; "
        "print(sorted(ours), [m for m in ('torch', 'asyncio', 'boto3', 'multiprocessing') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, timeout=30, check=True)
    assert result.stdout == "['rendezvous', 'rendezvous.protocol'] []\n"
