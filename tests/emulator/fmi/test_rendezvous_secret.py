"""Which runs ask for a secret, and what their ranks need for it."""

import pytest

from emulator.errors import EmulatorError
from emulator.fmi.rendezvous_secret import secret_of_run

SECRET = "FMI_RENDEZVOUS_SECRET"  # noqa: S105 - its name


def test_each_run_has_a_secret_of_its_own() -> None:
    first, second = secret_of_run({}, None), secret_of_run({"FMI_FRAMED": "1"}, "image")
    assert len(first.value) >= 32
    assert first.value != second.value
    assert (first.environment, first.note, second.note) == ({}, "", "")


@pytest.mark.parametrize(("framed", "image"), [("0", None), (" False", None), ("0", "image"), ("", "image")])
def test_raw_ranks_have_none_and_the_user_is_told(framed: str, image: str | None) -> None:
    found = secret_of_run({"FMI_FRAMED": framed}, image)
    assert found.value == ""
    assert "asks for no secret" in found.note


def test_the_users_own_secret_and_server_are_used() -> None:
    assert secret_of_run({SECRET: "s" * 16}, None).value == "s" * 16
    # The secret of this run is not proved to a server that is not its own.
    assert secret_of_run({"FMI_RENDEZVOUS": "host:1"}, None).environment == {SECRET: ""}
    assert secret_of_run({"FMI_RENDEZVOUS": "host:1", SECRET: "s" * 16}, None).environment == {SECRET: "s" * 16}
    with pytest.raises(EmulatorError, match="expected at least 16 bytes, got 5"):
        secret_of_run({SECRET: "short"}, None)
