"""The access keys that requests may be signed with: those of the endpoint, and those that moto's IAM and STS issued."""

import calendar
import re
import time
from collections.abc import Iterable
from typing import Any

from moto.iam.models import iam_backends
from moto.sts.models import sts_backends

from emulator.aws.credentials import Credentials

# Moto gives everybody these two, so they prove nothing.
_PLACEHOLDER = b"AKIAIOSFODNN7EXAMPLE"
_ISSUED = re.compile(rb"<(AccessKeyId|SecretAccessKey|SessionToken)>[^<]*</")
_MEMBERS = {
    b"AccessKeyId": "access_key_id",
    b"SecretAccessKey": "secret_access_key",
    b"SessionToken": "session_token",
}
_SESSION_S = 12 * 3600
_MOST_SESSIONS = 10_000


class KeyRing:
    """Finds access keys.

    Parameters
    ----------
    own
        The endpoint's keys.
    """

    def __init__(self, own: Iterable[Credentials]) -> None:
        self._own = {key.access_key_id: key for key in own}
        self._sessions: dict[str, tuple[Credentials, float]] = {}

    def find(self, access_key_id: str) -> Credentials | None:
        """Return the valid key with an id; None if there is none."""
        if (key := self._own.get(access_key_id)) is not None:
            return key
        session, ends = self._sessions.get(access_key_id, (None, 0.0))
        if session is not None:
            return session if time.time() < ends else None
        return _user_key(access_key_id) if access_key_id.startswith("AKIA") else _role_key(access_key_id)

    def issue_session(self, answer: bytes) -> bytes:
        """Replace the placeholder of GetSessionToken and GetFederationToken in an answer of moto by a new key."""
        if b"<AccessKeyId>" + _PLACEHOLDER not in answer:
            return answer
        session = Credentials.random_session()
        if len(self._sessions) >= _MOST_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        self._sessions[session.access_key_id] = session, time.time() + _SESSION_S

        def replace(match: re.Match[bytes]) -> bytes:
            value: str = getattr(session, _MEMBERS[match[1]])
            return b"<" + match[1] + b">" + value.encode() + b"</"

        return _ISSUED.sub(replace, answer)


def _backends(accounts: Any) -> list[Any]:
    # Moto's threads may add to them.
    return [backend for account in list(accounts.values()) for backend in list(account.values())]


def _user_key(access_key_id: str) -> Credentials | None:
    for backend in _backends(iam_backends):
        key = backend.access_keys.get(access_key_id)
        if key is not None and key.status == "Active":
            return Credentials(access_key_id, key.secret_access_key)
    return None


def _role_key(access_key_id: str) -> Credentials | None:
    for backend in _backends(sts_backends):
        for role in list(backend.assumed_roles):
            if role.access_key_id == access_key_id:
                ends = role.expiration.timestamp() if role.expiration.tzinfo else _utc(role.expiration)
                if time.time() >= ends:
                    return None
                return Credentials(access_key_id, role.secret_access_key, role.session_token)
    return None


def _utc(moment: Any) -> float:
    return calendar.timegm(moment.timetuple())
