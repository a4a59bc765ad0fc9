"""The processor time in which the gateway verifies a signature, and in which botocore's signers only compute it.

``python -m benchmarks.signatures`` prints the least time of many series, which other programs affect little.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotoCredentials

from emulator.aws.credentials import Credentials
from emulator.aws.gateway.signatures import SignedRequest, read_claim, sha256_hex, signed_payload, verify

_SERIES = 30
_CALLS = 200
_KEY = Credentials.random()
_BODY = b"{}" * 50


def _signed(signer: Any, service: str, method: str, path: str, body: bytes) -> tuple[SignedRequest, AWSRequest]:
    """Return a request as the gateway has it, and as a client does."""
    boto_key = BotoCredentials(_KEY.access_key_id, _KEY.secret_access_key)
    headers = {"Content-Type": "application/json", "User-Agent": "Boto3", "Accept-Encoding": "identity"}
    made = AWSRequest(method, f"http://127.0.0.1:4566{path}", headers, body)
    signer(boto_key, service, "us-east-1").add_auth(made)
    url = urlsplit(made.url)
    received = {name.lower(): value for name, value in made.headers.items()}
    return SignedRequest(method, url.path, url.query, {"host": url.netloc, **received}), made


def _verification(request: SignedRequest, body: bytes) -> Callable[[], None]:
    def run() -> None:
        claim = read_claim(request)
        assert claim is not None
        verify(request, claim, _KEY, signed_payload(request, claim, lambda: sha256_hex(body)), time.time())

    return run


def _canonical(signer: Any, service: str, made: AWSRequest) -> Callable[[], None]:
    own = signer(BotoCredentials(_KEY.access_key_id, _KEY.secret_access_key), service, "us-east-1")

    def run() -> None:
        own.signature(own.string_to_sign(made, own.canonical_request(made)), made)

    return run


def _microseconds(run: Callable[[], None]) -> float:
    found = []
    for _ in range(_SERIES):
        began = time.thread_time()
        for _ in range(_CALLS):
            run()
        found.append((time.thread_time() - began) / _CALLS)
    return min(found) * 1e6


def main() -> None:
    """Print a row for each kind of request."""
    print(f"{'request':<24}{'verified, us':>14}{'by botocore, us':>18}")
    for name, signer, service, method, path, body in (
        ("S3, header", S3SigV4Auth, "s3", "PUT", "/bucket/key", b""),
        ("S3, presigned", S3SigV4QueryAuth, "s3", "GET", "/bucket/key", b""),
        ("Lambda, header", SigV4Auth, "lambda", "POST", "/2015-03-31/functions/f/invocations", _BODY),
    ):
        request, made = _signed(signer, service, method, path, body)
        row = _microseconds(_verification(request, body)), _microseconds(_canonical(signer, service, made))
        print(f"{name:<24}{row[0]:>14.1f}{row[1]:>18.1f}")


if __name__ == "__main__":
    main()
