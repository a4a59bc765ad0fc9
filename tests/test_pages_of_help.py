"""The pages for users: each message that the troubleshooting page lists is one of the code's, and its code runs."""

import ast
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import emulator
import fmi_shim as fmi
from fmi_shim.config import ChannelName
from fmi_shim.pairing.rendezvous_client import ServerRegistration
from fmi_shim.transports import catalog
from fmi_shim.transports.objects.channel import ObjectChannel

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "docs"
ROW = re.compile(r"^\| (?:[^|`]*: )?`([^`]+)` \|", re.MULTILINE)
GAP = "…"
TESTS_OF_OTHERS = ("fixture 'fmi_world' not found",)
"""Of pytest."""


def shown_messages() -> list[str]:
    return [text for text in ROW.findall((PAGES / "troubleshooting.md").read_text()) if text not in TESTS_OF_OTHERS]


@cache
def texts_of_the_code() -> str:
    """Return all texts in the code, with a gap for each value in an f-string."""
    found = []
    for package in ("fmi_shim", "emulator", "rendezvous"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.JoinedStr):
                    parts = (part.value if isinstance(part, ast.Constant) else GAP for part in node.values)
                    found.append("".join(map(str, parts)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return "\n".join(found)


@pytest.mark.parametrize("message", shown_messages())
def test_each_message_on_the_troubleshooting_page_is_one_of_the_code(message: str) -> None:
    parts = [part for part in re.split(f" *{GAP}+ *", message) if len(part) > 2]
    assert parts
    assert all(part in texts_of_the_code() for part in parts), parts


def test_messages_are_found_on_the_page() -> None:
    assert len(shown_messages()) > 20


def code_of(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (PAGES / page).read_text(), re.DOTALL)


def test_the_store_on_the_page_of_transports_carries_collectives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = code_of("transports.md")
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102 - of our own page

    def open_folder(place: catalog.Place) -> Any:
        registration = ServerRegistration(place.rank, place.session)
        s3 = place.config.s3
        assert s3 is not None
        return ObjectChannel(
            place.rank, place.size, place.comm_name, names["FolderStore"](tmp_path / "store"), s3, registration
        )

    (tmp_path / "store").mkdir()
    (tmp_path / "fmi.json").write_text(
        '{"backends": {"S3": {"enabled": true, "bucket_name": "none", "timeout": 1, "max_timeout": 20000}}}'
    )
    original = catalog.TRANSPORTS[ChannelName.S3]
    replaced = catalog.Transport(ChannelName.S3, original.enabled, open_folder)
    monkeypatch.setitem(catalog.TRANSPORTS, ChannelName.S3, replaced)

    def rank(world: fmi.Communicator) -> Any:
        with fmi.Communicator(world.rank, world.size, tmp_path / "fmi.json", "folder") as comm:
            total = comm.allreduce(comm.rank, fmi.func(fmi.op.sum), fmi.types(fmi.datatypes.int))
            after = comm.sendrecv(comm.rank, (comm.rank + 1) % 3, (comm.rank - 1) % 3, fmi.types(fmi.datatypes.int))
            return (
                total,
                after,
                comm.alltoall([10 * comm.rank + to for to in range(3)], fmi.types(fmi.datatypes.int_list, 3)),
            )

    expected = [(3, (rank - 1) % 3, [rank, 10 + rank, 20 + rank]) for rank in range(3)]
    assert emulator.launch(rank, 3, show_output=False) == expected
    assert not [*(tmp_path / "store").iterdir()]


def test_the_first_program_runs(capsys: pytest.CaptureFixture[str]) -> None:
    exec(code_of("first_program.md")[0], {})  # noqa: S102 - of our own page
    assert capsys.readouterr().out == "[6, 6, 6, 6]\n"
