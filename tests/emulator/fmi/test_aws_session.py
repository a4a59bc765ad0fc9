"""Which endpoint is meant."""

import pytest

from emulator.fmi.aws_session import DEFAULT_URL, InvalidEndpointError, connect


def test_a_url_wins_over_the_environment_and_that_over_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    assert connect().url == DEFAULT_URL
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://localhost:1")
    assert connect().url == "http://localhost:1"
    assert connect("http://localhost:2").url == "http://localhost:2"
    assert connect("aws").url is None


@pytest.mark.parametrize("url", ["localhost", "localhost:4566", "http://", "ftp://localhost"])
def test_what_is_no_url_is_told_with_what_is(url: str) -> None:
    with pytest.raises(InvalidEndpointError, match=f"invalid endpoint URL '{url}': expected for example {DEFAULT_URL}"):
        connect(url)
