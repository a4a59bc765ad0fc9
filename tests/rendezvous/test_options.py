"""What the command line and the environment may say."""

import ssl
from importlib import metadata
from pathlib import Path

import pytest

from rendezvous.options import OptionError, parse
from tests.certificates import loopback_certificate


def test_flags_take_precedence_over_the_environment_and_that_over_the_defaults() -> None:
    options = parse(["--port", "5"], {"FMI_RENDEZVOUS_PORT": "6", "FMI_RENDEZVOUS_MAX_WAIT": "7"})
    assert (options.port, options.health_port, options.limits.waiting_seconds) == (5, 6, 7.0)
    assert options.limits.silence_seconds == 30.0


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--port", "-1", "expected a port, 0 to 65535, got '-1'"),
        ("--port", "ten", "expected a port, 0 to 65535, got 'ten'"),
        ("--port", "65536", "expected a port, 0 to 65535, got '65536'"),
        ("--max-waiters", "1.5", "expected a whole number from 0, got '1.5'"),
        ("--max-wait", "0", "expected seconds above 0, got '0'"),
        ("--max-wait", "nan", "expected seconds above 0, got 'nan'"),
        ("--drain", "soon", "expected seconds above 0, got 'soon'"),
        ("--log-level", "loud", "expected debug, info, warning or error, got 'loud'"),
    ],
)
def test_a_wrong_value_is_a_usage_error_wherever_it_comes_from(
    capsys: pytest.CaptureFixture[str], flag: str, value: str, message: str
) -> None:
    variable = "FMI_RENDEZVOUS_" + flag[2:].upper().replace("-", "_")
    for arguments, environment in (([f"{flag}={value}"], {}), ([], {variable: value})):
        with pytest.raises(SystemExit) as ended:
            parse(arguments, environment)
        assert ended.value.code == 2
        assert capsys.readouterr().err.endswith(f"argument {flag}: {message}\n")


def test_invalid_secrets_and_certificates_are_named(tmp_path: Path) -> None:
    short = tmp_path / "secret"
    short.write_text("sesame\n")
    (tmp_path / "empty").write_text("")
    for flags, message in (
        (["--secret-file", str(short)], "expected at least 16 bytes, got 6"),
        (["--secret-file", str(tmp_path / "none")], "cannot be read"),
        (["--secret-file", str(tmp_path / "empty")], "is empty"),
        (["--tls-certificate", str(short)], "or its key: expected PEM"),
        (["--tls-key", str(short)], "without --tls-certificate"),
    ):
        with pytest.raises(OptionError, match=message) as error:
            parse(flags, {})
        assert "sesame" not in str(error.value)
    with pytest.raises(OptionError, match="invalid secret in FMI_RENDEZVOUS_SECRET: expected at least 16 bytes, got 6"):
        parse([], {"FMI_RENDEZVOUS_SECRET": "sesame"})


def test_a_certificate_may_be_in_the_environment(tmp_path: Path) -> None:
    pem = loopback_certificate(tmp_path).read_text()
    context = parse([], {"FMI_RENDEZVOUS_TLS_PEM": pem}).tls
    assert context is not None
    assert context.protocol is ssl.PROTOCOL_TLS_SERVER
    assert parse([], {"FMI_RENDEZVOUS_TLS_PEM": ""}).tls is None
    with pytest.raises(OptionError, match="invalid FMI_RENDEZVOUS_TLS_PEM or its key: expected PEM") as error:
        parse([], {"FMI_RENDEZVOUS_TLS_PEM": "sesame"})
    assert "sesame" not in str(error.value)


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(["--version"], {})
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"fmi-rendezvous {metadata.version('fmi-emulator')}\n"
