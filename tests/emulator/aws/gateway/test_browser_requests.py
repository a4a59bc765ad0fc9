"""Host names and origins: which requests the gateway refuses because a foreign web page may have sent them."""

import asyncio
import json
from collections.abc import Callable, Mapping
from http.client import HTTPConnection, HTTPResponse
from typing import Any
from urllib.parse import urlsplit

import pytest

from emulator.aws.gateway.browser_requests import OwnNames
from emulator.aws.lambda_.core.runtime_api import RuntimeApi
from emulator.cloud import LocalCloud
from tests.emulator.signing import page_cookie

FOREIGN: list[dict[str, str]] = [
    {"Host": "rebound.example.com:4566"},
    {"Host": "localhost.example.com"},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://localhost:1"},
    {"Referer": "https://evil.example/page"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
    {"Sec-Fetch-Site": "same-site"},
]
# One request to each service, and to the page.
REQUESTS: dict[str, tuple[str, str, dict[str, str], str]] = {
    "lambda": ("GET", "/2015-03-31/functions/", {}, ""),
    "create": ("POST", "/2015-03-31/functions", {"Content-Type": "text/plain"}, "{}"),
    "states": ("POST", "/", {"X-Amz-Target": "AWSStepFunctions.ListStateMachines"}, "{}"),
    "logs": ("POST", "/", {"X-Amz-Target": "Logs_20140328.DescribeLogGroups"}, "{}"),
    "moto": ("POST", "/", {"Content-Type": "application/x-www-form-urlencoded"}, "Action=ListUsers&Version=2010-05-08"),
    "reset": ("POST", "/moto-api/reset", {}, ""),
    "page": ("GET", "/_emulator/", {}, ""),
}
RULES = [
    {
        "AllowedOrigins": ["https://app.example", "https://*.partner.example"],
        "AllowedMethods": ["GET", "PUT"],
        "AllowedHeaders": ["content-*", "x-amz-date"],
        "ExposeHeaders": ["ETag"],
        "MaxAgeSeconds": 60,
    }
]


def send(cloud: LocalCloud, method: str, path: str, headers: Mapping[str, str], body: str = "") -> tuple[Any, bytes]:
    connection = HTTPConnection(urlsplit(cloud.endpoint_url).netloc, timeout=30)
    try:
        connection.request(method, path, body, dict(headers))
        answer: HTTPResponse = connection.getresponse()
        return answer, answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:4566",
        "127.0.0.1",
        "localhost:4566",
        "LOCALHOST.",
        "[::1]:4566",
        "172.17.0.1:80",
        "192.0.2.7",
        "bucket.localhost:4566",
        "bucket.s3.localhost",
        "bucket.127.0.0.1:4566",
        "host.docker.internal:4566",
        "emulator.internal",
        "bucket.emulator.internal:4566",
    ],
)
def test_own_names_and_buckets_before_them_are_accepted(host: str) -> None:
    assert OwnNames(["Emulator.internal"]).includes(host)


@pytest.mark.parametrize(
    "host",
    ["example.com:4566", "localhost.example.com", "127.0.0.1.example.com", "", "evil", "8.8.8.8", "1.0.0.127.evil:1"],
)
def test_other_names_are_refused(host: str) -> None:
    assert not OwnNames(["emulator.internal"]).includes(host)


def test_the_address_that_a_request_was_sent_to_is_accepted() -> None:
    assert OwnNames().includes("8.8.8.8:4566", "8.8.8.8")
    assert not OwnNames().includes("8.8.4.4:4566", "8.8.8.8")


@pytest.mark.parametrize("service", REQUESTS)
def test_requests_of_foreign_pages_are_refused_by_every_service(cloud: LocalCloud, service: str) -> None:
    method, path, own, body = REQUESTS[service]
    for headers in FOREIGN:
        answer, text = send(cloud, method, path, {**own, **headers}, body)
        assert answer.status == 403, headers
        assert b"invalid Host header" in text or b"foreign web page" in text, headers
        assert not [name for name in answer.headers if name.lower().startswith("access-control-")]


def test_the_refusal_has_the_form_of_the_service(cloud: LocalCloud, s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="key", Body=b"body")
    foreign = {"Sec-Fetch-Site": "cross-site"}
    answer, text = send(cloud, "GET", f"/{bucket}/key", foreign)
    assert (answer.status, answer.headers["Content-Type"]) == (403, "application/xml")
    assert b"<Code>AccessDenied</Code>" in text
    _, text = send(cloud, "POST", "/", {**REQUESTS["states"][2], **foreign}, "{}")
    assert json.loads(text)["__type"] == "AccessDeniedException"
    _, text = send(cloud, "POST", "/", {**REQUESTS["moto"][2], **foreign}, REQUESTS["moto"][3])
    assert b"<ErrorResponse><Error>" in text


def test_a_browser_may_open_the_page_from_any_link(cloud: LocalCloud) -> None:
    link = {
        "Sec-Fetch-Site": "cross-site",
        "Sec-Fetch-Mode": "navigate",
        "Sec-Fetch-Dest": "document",
        "Referer": "https://docs.example/",
    }
    link["Cookie"] = page_cookie(cloud)
    assert send(cloud, "GET", "/_emulator/", link)[0].status == 200
    assert send(cloud, "GET", "/_emulator/", {"Host": "rebound.example", **link})[0].status == 403
    assert send(cloud, "GET", "/2015-03-31/functions/", link)[0].status == 403
    assert send(cloud, "POST", "/_emulator/", link)[0].status == 403


def test_own_pages_and_programs_are_served(cloud: LocalCloud) -> None:
    netloc = urlsplit(cloud.endpoint_url).netloc
    for headers in (
        {},
        {"Origin": f"http://{netloc}"},
        {"Referer": f"http://{netloc}/_emulator/", "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
        {"Host": "localhost:1"},
    ):
        answer, _ = send(cloud, "GET", "/_emulator/", {"Cookie": page_cookie(cloud), **headers})
        assert answer.status == 200, headers


def test_configured_names_are_accepted() -> None:
    with LocalCloud(host_names=["emulator.internal"]) as cloud:
        cookie = {"Cookie": page_cookie(cloud)}
        assert send(cloud, "GET", "/_emulator/", {"Host": "emulator.internal:4566", **cookie})[0].status == 200
        assert send(cloud, "GET", "/_emulator/", {"Host": "other.internal:4566", **cookie})[0].status == 403


@pytest.fixture
def presigned(s3: Any, bucket: str) -> Callable[[str], str]:
    """Return the path and query of a presigned URL of an object in a bucket with CORS rules."""
    s3.put_object(Bucket=bucket, Key="key", Body=b"body")
    s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": RULES})

    def presign(operation: str) -> str:
        url = urlsplit(s3.generate_presigned_url(operation, Params={"Bucket": bucket, "Key": "key"}))
        return f"{url.path}?{url.query}"

    return presign


@pytest.mark.parametrize("origin", ["https://app.example", "https://a.partner.example"])
def test_s3_answers_the_origins_of_its_buckets_rules(
    cloud: LocalCloud, presigned: Callable[[str], str], origin: str
) -> None:
    path = presigned("get_object")
    answer, body = send(cloud, "GET", path, {"Origin": origin, "Sec-Fetch-Site": "cross-site"})
    assert (answer.status, body) == (200, b"body")
    assert answer.headers["Access-Control-Allow-Origin"] == origin
    assert answer.headers["Access-Control-Expose-Headers"] == "ETag"
    assert "Origin" in answer.headers["Vary"]
    preflight = {"Origin": origin, "Access-Control-Request-Method": "PUT"}
    answer, _ = send(
        cloud, "OPTIONS", path, {**preflight, "Access-Control-Request-Headers": "Content-Type, X-Amz-Date"}
    )
    assert (answer.status, answer.headers["Access-Control-Allow-Methods"]) == (200, "GET, PUT")
    assert answer.headers["Access-Control-Allow-Headers"] == "content-type, x-amz-date"
    assert answer.headers["Access-Control-Max-Age"] == "60"
    answer, _ = send(cloud, "OPTIONS", path, {**preflight, "Access-Control-Request-Headers": "x-other"})
    assert answer.status == 403
    answer, _ = send(cloud, "PUT", presigned("put_object"), {"Origin": origin}, "new")
    assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (200, origin)


def test_s3_refuses_what_the_rules_do_not_allow(cloud: LocalCloud, presigned: Callable[[str], str]) -> None:
    path = presigned("get_object")
    for method, headers in (
        ("GET", {"Origin": "https://evil.example"}),
        ("GET", {"Origin": "https://app.example.evil.example"}),
        ("DELETE", {"Origin": "https://app.example"}),
        ("GET", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}),
        ("GET", {"Origin": "null"}),
        ("OPTIONS", {"Origin": "https://evil.example", "Access-Control-Request-Method": "GET"}),
        ("OPTIONS", {"Origin": "https://app.example", "Access-Control-Request-Method": "DELETE"}),
    ):
        answer, body = send(cloud, method, path, headers)
        assert answer.status == 403, (method, headers)
        assert b"body" not in body
        assert "Access-Control-Allow-Origin" not in answer.headers


def test_a_rule_for_every_origin_names_none(cloud: LocalCloud, s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="key", Body=b"body")
    rule = {"AllowedOrigins": ["*"], "AllowedMethods": ["GET"]}
    s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": [rule]})
    url = urlsplit(s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "key"}))
    path = f"{url.path}?{url.query}"
    answer, _ = send(cloud, "GET", path, {"Origin": "https://any.example"})
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert "Access-Control-Allow-Credentials" not in answer.headers
    s3.delete_bucket_cors(Bucket=bucket)
    assert send(cloud, "GET", path, {"Origin": "https://any.example"})[0].status == 403


def test_the_runtime_api_refuses_web_pages() -> None:
    async def statuses() -> list[int]:
        runtime = RuntimeApi()
        address = await runtime.start("127.0.0.1", secret_path=False)

        def post(headers: dict[str, str]) -> int:
            connection = HTTPConnection(address, timeout=10)
            connection.request("POST", "/2018-06-01/runtime/init/error", "{}", headers)
            status = connection.getresponse().status
            connection.close()
            return status

        found = [await asyncio.to_thread(post, headers) for headers in ({"Host": "evil.example"}, *FOREIGN[2:7])]
        assert not runtime.ready.done()
        found.append(await asyncio.to_thread(post, {}))
        await runtime.close()
        return found

    assert asyncio.run(statuses()) == [403] * 6 + [202]
