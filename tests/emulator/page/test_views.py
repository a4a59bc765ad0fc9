"""Which requests may see the page."""

import pytest

from emulator.page.views import is_own_host


@pytest.mark.parametrize(
    "host", ["127.0.0.1:4566", "127.0.0.1", "localhost:4566", "LOCALHOST", "[::1]:4566", "192.0.2.7:80", "a.localhost"]
)
def test_ip_addresses_and_localhost_are_accepted(host: str) -> None:
    assert is_own_host(host)


@pytest.mark.parametrize("host", ["example.com:4566", "localhost.example.com", "127.0.0.1.example.com", "", "evil"])
def test_other_names_are_rejected(host: str) -> None:
    assert not is_own_host(host)
