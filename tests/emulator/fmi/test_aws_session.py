"""Which endpoint is meant."""

from pathlib import Path

import pytest

from emulator.fmi.aws_session import DEFAULT_URL, AccountError, InvalidEndpointError, connect, connect_account


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


@pytest.fixture
def no_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("no_configuration")
def test_what_is_missing_of_an_account_is_named_with_the_command_that_mends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AccountError, match="no region: give --region, for example us-east-1"):
        connect_account()
    with pytest.raises(AccountError, match="unknown region 'us-middle-1': expected for example us-east-1"):
        connect_account("us-middle-1")
    with pytest.raises(AccountError, match="no AWS credentials: run `aws configure` or `aws sso login`"):
        connect_account("us-east-1")
    with pytest.raises(AccountError, match=r"unknown profile 'work': expected one of ~/\.aws/config: none"):
        connect_account("us-east-1", "work")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    session = connect_account("us-east-1")
    assert session.client("s3").meta.endpoint_url == "https://s3.amazonaws.com"


@pytest.mark.usefixtures("no_configuration")
@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_an_endpoint_of_the_environment_never_stands_for_aws(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    monkeypatch.setenv(variable, "http://127.0.0.1:1")
    with pytest.raises(
        AccountError, match=f"{variable} is set to http://127.0.0.1:1, but --backend aws means AWS itself"
    ):
        connect_account("us-east-1")
    session = connect_account("us-east-1", None, "http://127.0.0.1:2")
    assert session.client("s3").meta.endpoint_url == "http://127.0.0.1:2"
