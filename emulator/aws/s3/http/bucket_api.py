"""S3's operations on buckets: versioning here, all other configuration by moto, and kept here for the next start."""

import re
from collections.abc import Awaitable, Callable
from http import HTTPStatus

from aiohttp import web

from emulator.aws.s3.core.buckets import Configuration
from emulator.aws.s3.core.errors import bad_request
from emulator.aws.s3.core.records import Versioning
from emulator.aws.s3.core.store import ObjectStore
from emulator.aws.s3.http import xml
from emulator.aws.s3.http.addressing import S3Request
from emulator.aws.s3.http.object_api import answered
from emulator.aws.s3.http.transfer import Transfer

_KEPT_HEADERS = re.compile(r"content-type|x-amz-(?!date$|content-sha256$|security-token$).*", re.IGNORECASE)
_Moto = Callable[[web.BaseRequest], Awaitable[web.Response]]


class BucketApi:
    """The operations on buckets.

    Parameters
    ----------
    store
        The buckets.
    transfer
        Reads documents.
    moto
        Answers what is not answered here.
    """

    def __init__(self, store: ObjectStore, transfer: Transfer, moto: _Moto) -> None:
        self._store = store
        self._buckets = store.buckets
        self._transfer = transfer
        self._moto = moto

    async def create(self, request: S3Request) -> web.StreamResponse:
        """CreateBucket."""
        response = await self.configure(request)
        if response.status == HTTPStatus.OK:
            self._buckets.create(request.bucket, request.region)
        return response

    async def delete(self, request: S3Request) -> web.StreamResponse:
        """DeleteBucket."""
        self._buckets.check_empty(request.bucket)
        response = await self._moto(request.http)
        if response.status == HTTPStatus.NO_CONTENT:
            self._buckets.delete(request.bucket)
        return response

    async def head(self, request: S3Request) -> web.StreamResponse:
        """HeadBucket."""
        bucket = self._buckets.get(request.bucket)
        return web.Response(headers={"x-amz-bucket-region": bucket.region})

    async def get_versioning(self, request: S3Request) -> web.StreamResponse:
        """GetBucketVersioning."""
        bucket = self._buckets.get(request.bucket)
        return answered("VersioningConfiguration", {"Status": bucket.versioning.value or None})

    async def set_versioning(self, request: S3Request) -> web.StreamResponse:
        """PutBucketVersioning."""
        content = xml.parse(await self._transfer.read_document(request), "VersioningConfiguration")
        self._buckets.get(request.bucket)
        status = content.get("Status")
        if status not in (Versioning.ENABLED.value, Versioning.SUSPENDED.value):
            raise bad_request("MalformedXML", f"The XML you provided did not validate: Status is {status!r}")
        self._buckets.set_versioning(request.bucket, Versioning(status))
        return web.Response()

    async def configure(self, request: S3Request) -> web.StreamResponse:
        """Pass a request about a bucket's configuration to moto; keep what changed."""
        response = await self._moto(request.http)
        if response.status < HTTPStatus.BAD_REQUEST:
            await self._keep(request)
        return response

    async def _keep(self, request: S3Request) -> None:
        http = request.http
        if http.method == "PUT":
            headers = {name: value for name, value in http.headers.items() if _KEPT_HEADERS.fullmatch(name)}
            # Moto takes the region from the signature's scope; the signature itself is not kept.
            headers["Authorization"] = f"AWS4-HMAC-SHA256 Credential=local/20000101/{request.region}/s3/aws4_request"
            self._buckets.set_configuration(request.bucket, Configuration(http.raw_path, headers, await http.read()))
        elif http.method == "DELETE":
            self._buckets.delete_configuration(request.bucket, http.raw_path)
