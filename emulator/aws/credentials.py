"""Access keys: made for one run, or read from a file."""

import configparser
import secrets
import string
from dataclasses import dataclass, field
from pathlib import Path

from emulator.errors import EmulatorError

_ID_CHARACTERS = string.ascii_uppercase + "234567"
_ID_LENGTH = 16


@dataclass(frozen=True)
class Credentials:
    """An access key.

    Parameters
    ----------
    access_key_id, secret_access_key
        The key.
    session_token
        Must accompany a temporary key; empty for others.
    """

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str = field(default="", repr=False)

    @classmethod
    def random(cls) -> "Credentials":
        """Make a key of a user."""
        return cls("AKIA" + _random_id(), secrets.token_urlsafe(30))

    @classmethod
    def random_session(cls) -> "Credentials":
        """Make a temporary key, as functions have."""
        return cls("ASIA" + _random_id(), secrets.token_urlsafe(30), secrets.token_urlsafe(120))

    @classmethod
    def from_file(cls, path: Path) -> "Credentials":
        """Read the profile ``default`` of a file in the format of ``~/.aws/credentials``.

        Raises
        ------
        EmulatorError
            When the file cannot be read, or has no such key.
        """
        parser = configparser.ConfigParser(interpolation=None)
        try:
            parser.read_string(path.read_text())
            profile = parser["default"]
            found = cls(profile["aws_access_key_id"].strip(), profile["aws_secret_access_key"].strip())
        except OSError as error:
            raise EmulatorError(f"cannot read the credentials in {path}: {error.strerror}") from None
        except (configparser.Error, KeyError, UnicodeDecodeError):
            raise EmulatorError(
                f"no credentials in {path}: expected a section [default] with aws_access_key_id and "
                "aws_secret_access_key, as in ~/.aws/credentials"
            ) from None
        if not found.access_key_id or not found.secret_access_key:
            raise EmulatorError(f"empty credentials in {path}: expected an access key id and a secret")
        return found

    def environment(self) -> dict[str, str]:
        """Return the variables from which AWS's programs read the key."""
        token = {"AWS_SESSION_TOKEN": self.session_token} if self.session_token else {}
        return {
            "AWS_ACCESS_KEY_ID": self.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret_access_key,
            **token,
        }

    def for_boto3(self) -> dict[str, str]:
        """Return the arguments of ``boto3.Session``."""
        return {name.lower(): value for name, value in self.environment().items()}


def _random_id() -> str:
    return "".join(secrets.choice(_ID_CHARACTERS) for _ in range(_ID_LENGTH))
