"""To whom the page is shown."""

import pytest

from emulator.page.guard import is_own_host


@pytest.mark.parametrize(
    "host", ["127.0.0.1:4566", "127.0.0.1", "localhost:4566", "LOCALHOST", "[::1]:4566", "192.0.2.7:80", "a.localhost"]
)
def test_addresses_and_localhost_are_this_machine(host: str) -> None:
    assert is_own_host(host)


@pytest.mark.parametrize("host", ["example.com:4566", "localhost.example.com", "127.0.0.1.example.com", "", "evil"])
def test_names_that_others_can_point_here_are_not(host: str) -> None:
    assert not is_own_host(host)
