"""S3's REST API: dispatch by method, address and query, and errors as S3's XML.

Shapes: https://docs.aws.amazon.com/AmazonS3/latest/API/API_Operations_Amazon_Simple_Storage_Service.html
"""

import re
from collections import Counter
from collections.abc import Awaitable, Callable
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor

import aiohttp
from aiohttp import web

from emulator.aws.disk_reserve import DiskFullError, is_disk_full
from emulator.aws.s3.core.errors import not_implemented
from emulator.aws.s3.core.objects import BucketConfiguration
from emulator.aws.s3.core.store import ObjectStore
from emulator.aws.s3.http import xml
from emulator.aws.s3.http.body_transfer import BodyTransfer
from emulator.aws.s3.http.buckets import BucketApi, ListingApi
from emulator.aws.s3.http.cors import cors_headers, parse_cors
from emulator.aws.s3.http.objects import ObjectApi
from emulator.aws.s3.http.operation_names import operation_name, subresources
from emulator.aws.s3.http.public_access import allows_everyone
from emulator.aws.s3.http.requests import S3Request, bucket_of_host, check_emulated, is_s3, new_request_id, s3_request
from emulator.aws.s3.http.uploads import UploadApi
from emulator.errors import ApiError

# A thread that hashes keeps a core busy; further threads would wait for the disk.
_THREADS = 4
_Operation = Callable[[S3Request], Awaitable[web.StreamResponse]]
# The query parameters that a request must have for an operation, and the operation.
_Route = tuple[AbstractSet[str], _Operation]
_COPY_SOURCE = "x-amz-copy-source"
# The parameters of requests that read objects or list a bucket.
_READ_PARAMETERS = frozenset(
    [
        "list-type",
        "prefix",
        "delimiter",
        "marker",
        "max-keys",
        "start-after",
        "continuation-token",
        "encoding-type",
        "fetch-owner",
        "versionId",
        "partNumber",
        "x-id",
    ]
)
# The configuration of a bucket besides versioning: moto handles these requests.
_CONFIGURATIONS = frozenset(
    [
        "abac",
        "accelerate",
        "acl",
        "analytics",
        "cors",
        "encryption",
        "intelligent-tiering",
        "inventory",
        "lifecycle",
        "location",
        "logging",
        "metadataTable",
        "metrics",
        "notification",
        "object-lock",
        "ownershipControls",
        "policy",
        "policyStatus",
        "publicAccessBlock",
        "replication",
        "requestPayment",
        "tagging",
        "website",
    ]
)


class S3Api:
    """S3 over HTTP.

    Parameters
    ----------
    store
        Buckets and objects.
    moto
        Handles requests about the buckets' configuration.
    account_number
        The number of the account, which owns all buckets.

    Attributes
    ----------
    requests
        Number of requests so far, by HTTP method.
    """

    def __init__(
        self,
        store: ObjectStore,
        moto: Callable[[str, BucketConfiguration], Awaitable[web.Response]],
        account_number: str,
    ) -> None:
        self._account_number = account_number
        self.requests: Counter[str] = Counter()
        self._store = store
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="bodies")
        transfer = BodyTransfer(store.bodies, self._threads)
        objects = ObjectApi(store, transfer)
        uploads = UploadApi(store, transfer, objects)
        listing = ListingApi(store)
        buckets = BucketApi(store, transfer, moto)
        # The first operation applies whose query parameters and copy source are all in the request.
        self._object_routes: dict[str, list[_Route]] = {
            "GET": [
                ({"uploadId"}, uploads.list_parts),
                ({"tagging"}, objects.get_tags),
                ({"acl"}, objects.get_acl),
                ({"attributes"}, objects.get_attributes),
                (set(), objects.get),
            ],
            "HEAD": [(set(), objects.get)],
            "PUT": [
                ({"partNumber", "uploadId", _COPY_SOURCE}, uploads.copy_part),
                ({"partNumber", "uploadId"}, uploads.put_part),
                ({"tagging"}, objects.put_tags),
                ({"acl"}, objects.put_acl),
                ({_COPY_SOURCE}, objects.copy),
                (set(), objects.put),
            ],
            "POST": [({"uploads"}, uploads.create), ({"uploadId"}, uploads.complete)],
            "DELETE": [({"uploadId"}, uploads.abort), ({"tagging"}, objects.delete_tags), (set(), objects.delete)],
        }
        self._bucket_routes: dict[str, list[_Route]] = {
            "GET": [
                ({"versions"}, listing.versions),
                ({"uploads"}, listing.uploads),
                ({"versioning"}, buckets.get_versioning),
                (set(), listing.objects),
            ],
            "HEAD": [(set(), buckets.head)],
            "PUT": [({"versioning"}, buckets.set_versioning), (set(), buckets.create)],
            "POST": [({"delete"}, objects.delete_objects)],
            "DELETE": [(set(), buckets.delete)],
        }
        self._buckets = buckets
        self._list_buckets = listing.buckets
        self._configure = buckets.configure
        self._encryption: dict[str, _Operation] = {"GET": buckets.get_encryption, "PUT": buckets.set_encryption}

    def is_s3(self, http: web.BaseRequest) -> bool:
        """Return whether a request is for S3."""
        return is_s3(http, self._store.buckets.exists)

    def bucket_of_host(self, http: web.BaseRequest) -> str:
        """Return the bucket that precedes the host's name in a request; empty if none does."""
        return bucket_of_host(http.host)

    def is_public(self, http: web.BaseRequest) -> bool:
        """Return whether the policy of its bucket allows everybody to read what a request asks for."""
        try:
            request = s3_request(http)
        except ApiError:
            return False
        if http.method not in ("GET", "HEAD") or not request.bucket or not _READ_PARAMETERS.issuperset(request.query):
            return False
        policy = self._store.buckets.configuration(request.bucket, "policy")
        block = self._store.buckets.configuration(request.bucket, "publicAccessBlock") or b""
        if policy is None or re.search(rb"<(RestrictPublicBuckets|BlockPublicPolicy)>\s*true", block, re.IGNORECASE):
            return False
        action = "s3:ListBucket"
        if request.key:
            action = "s3:GetObjectVersion" if "versionId" in request.query else "s3:GetObject"
        resource = f"arn:aws:s3:::{request.bucket}" + (f"/{request.key}" if request.key else "")
        return allows_everyone(policy, action, resource)

    def cors(self, http: web.BaseRequest, origin: str) -> dict[str, str] | None:
        """Return the headers that allow a request to a web page of another origin; None if it is not allowed.

        Parameters
        ----------
        http
            The request, or its preflight request.
        origin
            The origin of the page.
        """
        try:
            document = self._store.buckets.configuration(s3_request(http).bucket, "cors")
        except ApiError:
            return None
        is_preflight = http.method == "OPTIONS"
        method = http.headers.get("Access-Control-Request-Method", "") if is_preflight else http.method
        wanted = http.headers.get("Access-Control-Request-Headers", "") if is_preflight else ""
        return cors_headers(parse_cors(document or b""), origin, method, wanted)

    async def handle(self, http: web.BaseRequest) -> web.StreamResponse:
        """Respond to a request to S3."""
        self.requests[http.method] += 1
        try:
            request = s3_request(http)
            check_emulated(request, self._account_number)
            response = await self._operation(request)(request)
        except ApiError as error:
            return _error_response(http, error)
        except (ConnectionError, aiohttp.ClientPayloadError):
            return _abandoned(http)
        except OSError as error:
            if not is_disk_full(error):
                raise
            return _error_response(http, DiskFullError())
        if not response.prepared:
            response.headers["x-amz-request-id"] = request.request_id
        return response

    async def reset(self, reset_moto: Callable[[], Awaitable[web.Response]]) -> web.Response:
        """Delete all buckets, here and in moto; return moto's response."""
        return await self._buckets.reset(reset_moto)

    def close(self) -> None:
        """Stop the threads."""
        self._threads.shutdown(cancel_futures=True)

    def _operation(self, request: S3Request) -> _Operation:
        method = request.http.method
        if not request.bucket and method == "GET":
            return self._list_buckets
        if request.bucket and not request.key and "encryption" in request.query and method in self._encryption:
            return self._encryption[method]
        if request.bucket and not request.key and "requestPayment" in request.query and method == "GET":
            return self._buckets.get_request_payment
        if method == "OPTIONS" or (
            method in ("GET", "PUT", "DELETE")
            and request.bucket
            and not request.key
            and _CONFIGURATIONS.intersection(request.query)
        ):
            return self._configure
        operations = (self._object_routes if request.key else self._bucket_routes).get(method, [])
        given = request.query.keys() | ({_COPY_SOURCE} if request.header(_COPY_SOURCE) else set())
        for required, operation in operations:
            if required <= given:
                if subresources().isdisjoint(request.query) or required >= subresources().intersection(request.query):
                    return operation
                break
        raise _not_emulated(request)


def _not_emulated(request: S3Request) -> ApiError:
    name = operation_name(request.http.method, request.bucket, request.key, request.query)
    return not_implemented(f"S3: the operation {name}")


def _abandoned(http: web.BaseRequest) -> web.Response:
    """Close the connection of a client that left before the end of its request or of the response.

    The response is sent to nobody. An exception would be logged as a failure of this server.
    """
    if http.transport is not None:
        http.transport.close()
    return web.Response()


def _error_response(http: web.BaseRequest, error: ApiError) -> web.Response:
    request_id = new_request_id()
    headers = {name: value for name, value in error.details.items() if name.startswith("x-amz-")}
    headers["x-amz-request-id"] = request_id
    content = {
        "Code": error.code,
        "Message": error.message,
        **{name: value for name, value in error.details.items() if name not in headers},
        "Resource": http.path,
        "RequestId": request_id,
    }
    body = xml.document("Error", content, namespace=False) if http.method != "HEAD" else None
    return web.Response(status=error.status, body=body, headers=headers, content_type="application/xml")
