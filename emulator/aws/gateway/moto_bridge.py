"""Moto's HTTP application behind our endpoint, for all services that are not our own."""

import asyncio
import io
import re
import sys
import urllib.parse
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any
from xml.sax.saxutils import escape

from aiohttp import web
from moto.core.config import default_user_config
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.iam.models import get_account_id_from, iam_backends
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.s3.models import s3_backends

from emulator.aws.json_requests import VERIFIED_BODY
from emulator.aws.limits import REGION
from emulator.aws.s3.core.objects import BucketConfiguration
from emulator.errors import ApiError

_ACCESS_KEY = re.compile(r"Credential=([^/,\s]+)/")
# Moto is pure Python: more threads do not make it faster.
_THREADS = 4


class MotoBridge:
    """Passes AWS requests to moto.

    Parameters
    ----------
    account_number
        The number of the account of requests whose access key moto has not made for another one.
    changed
        Called after each request: it may have changed something.
    """

    def __init__(self, account_number: str, changed: Callable[[], None]) -> None:
        self._account_number = account_number
        self._changed = changed
        self._app = DomainDispatcherApplication(create_backend_app)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="moto")
        self._policies = asyncio.Lock()

    async def handle(self, request: web.BaseRequest) -> web.Response:
        """Respond to one request; its body is held in memory."""
        verified = request.get(VERIFIED_BODY)
        body = await request.read() if verified is None else verified
        target, headers = request.raw_path, request.headers
        environ = _wsgi_environ(request.method, target, headers.items(), body, request.remote or "")
        response = await asyncio.get_running_loop().run_in_executor(self._threads, self._call, environ)
        self._changed()
        return response

    async def configure_bucket(self, method: str, configuration: BucketConfiguration) -> web.Response:
        """Respond to a request about a bucket's configuration.

        Parameters
        ----------
        method
            The HTTP method.
        configuration
            The request, with the bucket in its path.
        """
        environ = _bucket_environ(method, configuration)
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._call, environ)

    async def load_managed_policies(self) -> None:
        """Add AWS's managed policies to IAM, if they are not there yet.

        Moto would load them for the first request of any service, and again at each reset: 0.15 s of processor time.
        """
        # Another request that needs them waits until they are there.
        async with self._policies:
            if not default_user_config["iam"]["load_aws_managed_policies"]:
                await asyncio.get_running_loop().run_in_executor(self._threads, _load_managed_policies)

    async def reset(self, request: web.BaseRequest) -> web.Response:
        """Respond to a request that empties moto."""
        default_user_config["iam"]["load_aws_managed_policies"] = False
        return await self.handle(request)

    def restore(self, configurations: Sequence[BucketConfiguration]) -> None:
        """Replay to moto the requests that configured buckets before this start."""
        for request in configurations:
            self._call(_bucket_environ("PUT", request))

    def vpc_of(self, region: str, subnets: Sequence[str], groups: Sequence[str]) -> str:
        """Return the id of the VPC of subnets.

        Parameters
        ----------
        region
            Where they are.
        subnets, groups
            The ids of subnets and security groups.

        Raises
        ------
        ApiError
            InvalidParameterValueException when one does not exist.
        """
        # Imported when it is needed: it takes longer than all else that the endpoint imports.
        from moto.ec2.models import ec2_backends

        backend = ec2_backends[self._account_number][region]
        known = {name: subnet.vpc_id for zone in backend.subnets.values() for name, subnet in zone.items()}
        known_groups = {name for in_vpc in backend.groups.values() for name in in_vpc}
        for subnet in subnets:
            if subnet not in known:
                raise _not_in_ec2("DescribeSubnets", "InvalidSubnetID", f"subnet ID '{subnet}'")
        for group in groups:
            if group not in known_groups:
                raise _not_in_ec2("DescribeSecurityGroups", "InvalidGroup", f"security group '{group}'")
        return str(known[subnets[0]])

    def close(self) -> None:
        """Stop the threads and delete moto's state."""
        self._threads.shutdown(cancel_futures=True)
        default_user_config["iam"]["load_aws_managed_policies"] = False
        s3_backends.reset()

    def _call(self, environ: dict[str, Any]) -> web.Response:
        status: list[str] = []
        headers: list[tuple[str, str]] = []

        def start_response(line: str, fields: list[tuple[str, str]], _: object = None) -> None:
            status.append(line)
            headers.extend(fields)

        # Keys of an assumed role belong to the account of the role; moto takes all others for its own default.
        key = _ACCESS_KEY.search(environ.get("HTTP_AUTHORIZATION", ""))
        account = get_account_id_from(key[1]) if key is not None else DEFAULT_ACCOUNT_ID
        environ["HTTP_X_MOTO_ACCOUNT_ID"] = self._account_number if account == DEFAULT_ACCOUNT_ID else account
        try:
            chunks = self._app(environ, start_response)
            try:
                body = b"".join(chunks)
            finally:
                if hasattr(chunks, "close"):
                    chunks.close()
        except NotImplementedError as error:
            return _failure(environ, HTTPStatus.NOT_IMPLEMENTED, str(error))
        # Moto is another program: whatever it raises is a failure of the service.
        except Exception as error:  # noqa: BLE001
            return _failure(environ, HTTPStatus.INTERNAL_SERVER_ERROR, repr(error))
        code = int(status[0].split()[0])
        kind = next((value for name, value in headers if name.lower() == "content-type"), "")
        if code >= HTTPStatus.NOT_FOUND and kind.startswith("text/html") and _is_html(body):
            # Werkzeug's page for what moto does not serve, or for what it raised.
            text = re.sub(r"(<[^>]*>|\s)+", " ", body.decode(errors="replace")).strip()
            return _failure(environ, HTTPStatus(code), text)
        response = web.Response(status=int(status[0].split()[0]), body=body or None)
        response.headers.clear()
        for name, value in headers:
            # Moto allows every web page everything.
            if not name.lower().startswith("access-control-"):
                response.headers.add(name, value)
        return response


def _not_in_ec2(operation: str, code: str, what: str) -> ApiError:
    message = (
        f"Error occurred while {operation}. EC2 Error Code: {code}.NotFound. "
        f"EC2 Error Message: The {what} does not exist"
    )
    return ApiError("InvalidParameterValueException", HTTPStatus.BAD_REQUEST, message)


def _load_managed_policies() -> None:
    # Accounts that moto meets from now on get them when they are made.
    default_user_config["iam"]["load_aws_managed_policies"] = True
    for account in list(iam_backends.values()):
        for backend in list(account.values()):
            backend.aws_managed_policies = backend._init_aws_policies()  # noqa: SLF001 - tests/emulator/aws/gateway
            backend.managed_policies.update({policy.arn: policy for policy in backend.aws_managed_policies})


def _is_html(body: bytes) -> bool:
    return body.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html"))


def _failure(environ: Mapping[str, Any], status: HTTPStatus, reason: str) -> web.Response:
    """Return AWS's error for a request that moto failed on or does not serve; it names the operation."""
    target = environ.get("HTTP_X_AMZ_TARGET", "")
    form = urllib.parse.parse_qs(environ["wsgi.input"].getvalue().decode(errors="replace"))
    is_form = environ.get("CONTENT_TYPE", "").startswith("application/x-www-form-urlencoded")
    action = form.get("Action", [""])[0] if is_form else target.rpartition(".")[2]
    operation = action or f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']:.200}"
    if status is HTTPStatus.INTERNAL_SERVER_ERROR:
        print(f"emulator: moto failed at {operation}: {reason:.300}", file=sys.stderr)
        code, message = "InternalFailure", f"the operation {operation} failed in the emulator: {reason:.300}"
    else:
        status = HTTPStatus.NOT_IMPLEMENTED
        code, message = "NotImplementedException", f"the operation {operation} is not emulated"
    headers = {"x-amzn-RequestId": str(uuid.uuid4()), "x-amzn-ErrorType": code}
    if "/s3/aws4_request" in environ.get("HTTP_AUTHORIZATION", ""):
        text = (
            f"<Error><Code>{code}</Code><Message>{escape(message)}</Message>"
            f"<RequestId>{headers['x-amzn-RequestId']}</RequestId></Error>"
        )
        return web.Response(status=status, text=text, content_type="application/xml", headers=headers)
    if is_form:
        text = (
            f"<ErrorResponse><Error><Type>Receiver</Type><Code>{code}</Code><Message>{escape(message)}</Message></Error>"
            f"<RequestId>{headers['x-amzn-RequestId']}</RequestId></ErrorResponse>"
        )
        return web.Response(status=status, text=text, content_type="text/xml", headers=headers)
    return web.json_response({"__type": code, "message": message}, status=status, headers=headers)


def _bucket_environ(method: str, request: BucketConfiguration) -> dict[str, Any]:
    # Moto finds the service in the signature's scope.
    scope = f"AWS4-HMAC-SHA256 Credential=local/20000101/{REGION}/s3/aws4_request"
    headers = {"Authorization": scope, **request.headers}
    return _wsgi_environ(method, request.target, headers.items(), request.body, "")


def _wsgi_environ(
    method: str, target: str, headers: Iterable[tuple[str, str]], body: bytes, remote: str
) -> dict[str, Any]:
    """Build the WSGI environment (PEP 3333) of a request whose body has been read."""
    raw_path, _, query = target.partition("?")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": urllib.parse.unquote(raw_path, "latin-1"),
        "RAW_URI": target,
        "REQUEST_URI": target,
        "QUERY_STRING": query,
        "CONTENT_LENGTH": str(len(body)),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": remote,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for name, value in headers:
        key = name.upper().replace("-", "_")
        if key == "CONTENT_TYPE":
            environ[key] = value
        elif key not in ("CONTENT_LENGTH", "TRANSFER_ENCODING"):
            environ[f"HTTP_{key}"] = value
    host, _, port = environ.setdefault("HTTP_HOST", "localhost").partition(":")
    return {**environ, "SERVER_NAME": host, "SERVER_PORT": port or "80"}
