"""An endpoint that asks for a key: what is signed with one is served, everything else is refused."""

import base64
import calendar
import hashlib
import json
import time
import urllib.parse
import zlib
from collections.abc import Iterator
from dataclasses import replace
from http.client import HTTPConnection
from typing import Any

import boto3
import pytest
from botocore import UNSIGNED
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth, SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials as BotoCredentials
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from emulator.aws.credentials import Credentials
from emulator.aws.gateway.signatures import SignatureError, SignedRequest, read_claim, signed_payload, verify
from emulator.cloud import LocalCloud
from emulator.fmi.rendezvous_secret import secret_of_run
from tests.emulator.conftest import ROLE, archive

KEY = "folder/a key+~*'()/../ü"
ASKS = "Access Denied"


@pytest.fixture(scope="module")
def closed() -> Iterator[LocalCloud]:
    with LocalCloud() as running:
        yield running


def client(cloud: LocalCloud, service: str, key: Credentials | None = None, **config: Any) -> Any:
    make: Any = boto3.client
    return make(
        service,
        endpoint_url=cloud.endpoint_url,
        region_name="us-east-1",
        config=Config(retries={"total_max_attempts": 1}, **config),
        **(key or cloud.credentials).for_boto3(),
    )


def send(cloud: LocalCloud, url: str, method: str = "GET", body: bytes = b"", **headers: str) -> tuple[Any, bytes]:
    parts = urllib.parse.urlsplit(urllib.parse.urljoin(cloud.endpoint_url, url))
    connection = HTTPConnection(parts.netloc, timeout=30)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, parts._replace(scheme="", netloc="").geturl(), body, named)
        answer = connection.getresponse()
        return answer, answer.read()
    finally:
        connection.close()


@pytest.fixture(scope="module")
def bucket(closed: LocalCloud) -> str:
    s3 = client(closed, "s3")
    s3.create_bucket(Bucket="signed")
    s3.put_object(Bucket="signed", Key=KEY, Body=b"body", Metadata={"a": "b  c"})
    return "signed"


CALLS = [
    ("s3", "list_buckets"),
    ("lambda", "list_functions"),
    ("stepfunctions", "list_state_machines"),
    ("logs", "describe_log_groups"),
    ("iam", "list_users"),
    ("sqs", "list_queues"),
    ("dynamodb", "list_tables"),
    ("sts", "get_caller_identity"),
]


@pytest.mark.parametrize(("service", "operation"), CALLS)
def test_every_service_takes_the_key_and_no_other(closed: LocalCloud, service: str, operation: str) -> None:
    assert getattr(client(closed, service), operation)()["ResponseMetadata"]["HTTPStatusCode"] == 200
    unknown = Credentials.random()
    wrong_secret = Credentials(closed.credentials.access_key_id, unknown.secret_access_key)
    wrong_token = Credentials(closed.credentials.access_key_id, closed.credentials.secret_access_key, "token")
    codes = []
    for key in (unknown, wrong_secret, wrong_token):
        with pytest.raises(ClientError) as refused:
            getattr(client(closed, service, key), operation)()
        assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
        codes.append(refused.value.response["Error"]["Code"])
    assert codes[0] in ("InvalidAccessKeyId", "InvalidClientTokenId", "UnrecognizedClientException")
    assert codes[1] in ("SignatureDoesNotMatch", "InvalidSignatureException")
    assert codes[2] in ("InvalidToken", "InvalidClientTokenId", "UnrecognizedClientException")


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("GET", "/", {}),
        ("GET", "/2015-03-31/functions/", {}),
        ("POST", "/2015-03-31/functions", {}),
        ("POST", "/", {"X_Amz_Target": "AWSStepFunctions.ListStateMachines"}),
        ("POST", "/", {"X_Amz_Target": "Logs_20140328.DescribeLogGroups"}),
        ("POST", "/", {"Content_Type": "application/x-www-form-urlencoded"}),
        ("POST", "/moto-api/reset", {}),
        ("GET", "/signed/folder", {}),
        ("PUT", "/signed/new", {}),
        ("DELETE", "/signed", {}),
        ("GET", "/_emulator/", {}),
        ("GET", "/_emulator/?token=wrong", {}),
    ],
)
def test_unsigned_requests_are_refused(
    closed: LocalCloud, bucket: str, method: str, path: str, headers: dict[str, str]
) -> None:
    assert send(closed, path, method, b"", **headers)[0].status == 403


@pytest.mark.parametrize("version", ["s3v4", "s3"])
@pytest.mark.parametrize("style", ["path", "virtual"])
def test_presigned_urls_are_verified(closed: LocalCloud, bucket: str, version: str, style: str) -> None:
    s3 = client(closed, "s3", signature_version=version, s3={"addressing_style": style})
    params = {"Bucket": bucket, "Key": KEY}
    url = s3.generate_presigned_url("get_object", Params={**params, "ResponseContentType": "a/b c"}, ExpiresIn=60)
    host = urllib.parse.urlsplit(url).netloc
    local = url.replace(host, urllib.parse.urlsplit(closed.endpoint_url).netloc, 1)
    answer, body = send(closed, local, Host=host)
    assert (answer.status, body) == (200, b"body")
    for changed in (local.replace("folder", "other"), local.replace("Signature=", "Signature=a"), local + "&acl"):
        assert send(closed, changed, Host=host)[0].status == 403, changed
    assert send(closed, local, "DELETE", Host=host)[0].status == 403
    put = s3.generate_presigned_url(
        "put_object", Params={**params, "Key": "put", "ContentType": "text/x"}, ExpiresIn=60
    )
    put = put.replace(host, urllib.parse.urlsplit(closed.endpoint_url).netloc, 1)
    assert send(closed, put, "PUT", b"new", Host=host, Content_Type="text/x")[0].status == 200


def test_an_expired_url_is_refused(closed: LocalCloud, bucket: str) -> None:
    for version in ("s3v4", "s3"):
        s3 = client(closed, "s3", signature_version=version)
        url = s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": KEY}, ExpiresIn=1)
        time.sleep(1.1)
        answer, body = send(closed, url)
        assert answer.status == 403
        assert b"<Code>AccessDenied</Code><Message>Request has expired" in body


def test_a_body_that_is_not_the_signed_one_is_refused(closed: LocalCloud, bucket: str) -> None:
    """The same signature with another body: S3's hash is in a header, the other services' in the signature."""
    key = BotoCredentials(closed.credentials.access_key_id, closed.credentials.secret_access_key)
    for service, path, target in (
        ("s3", f"/{bucket}/changed", ""),
        ("s3", f"/{bucket}?policy", ""),
        ("s3", f"/{bucket}?delete", ""),
        ("states", "/", "AWSStepFunctions.ListStateMachines"),
        ("lambda", "/2015-03-31/functions", ""),
        ("iam", "/", ""),
    ):
        method = "PUT" if service == "s3" and "delete" not in path else "POST"
        request = AWSRequest(method, closed.endpoint_url + path, data=b'{"a": 1}')
        if target:
            request.headers["X-Amz-Target"] = target
        signer = SigV4Auth(key, service, "us-east-1")
        if service == "s3":
            request.headers["X-Amz-Content-SHA256"] = hashlib.sha256(b'{"a": 1}').hexdigest()
        signer.add_auth(request)
        headers = {name.replace("-", "_"): value for name, value in request.headers.items()}
        answer, body = send(closed, path, method, b'{"a": 2}', **headers)
        assert answer.status in (400, 403), (service, path)
        assert b"SHA256" in body or b"ignature" in body, (service, path, body)
    with pytest.raises(ClientError):
        client(closed, "s3").head_object(Bucket=bucket, Key="changed")


class _SignsChunks(S3SigV4Auth):
    """Signs a request whose chunks are signed; the class is botocore's, the payload's name is not."""

    def __init__(self, *args: Any, kind: str) -> None:
        super().__init__(*args)
        self._kind = kind

    def payload(self, request: AWSRequest) -> str:
        return self._kind


def put_signed_chunks(
    cloud: LocalCloud, path: str, chunks: list[bytes], kind: str, trailers: dict[str, str], **wrong: str
) -> tuple[int, str]:
    """PUT an aws-chunked body with the signatures of AWS's documentation; return the status and the error's code.

    ``wrong`` replaces parts of what is sent after it was signed: a chunk, the trailers, or a signature.
    """
    key = BotoCredentials(cloud.credentials.access_key_id, cloud.credentials.secret_access_key)
    request = AWSRequest("PUT", cloud.endpoint_url + path, data=b"")
    request.headers["Content-Encoding"] = "aws-chunked"
    request.headers["x-amz-decoded-content-length"] = str(sum(map(len, chunks)))
    if trailers:
        request.headers["x-amz-trailer"] = ",".join(trailers)
    signer = _SignsChunks(key, "s3", "us-east-1", kind=kind)
    signer.add_auth(request)
    timestamp, scope = request.context["timestamp"], signer.credential_scope(request)
    previous = request.headers["Authorization"].rpartition("Signature=")[2]
    empty = hashlib.sha256(b"").hexdigest()

    def sign(what: str, *lines: str) -> str:
        text = "\n".join([f"AWS4-HMAC-SHA256-{what}", timestamp, scope, previous, *lines])
        return str(signer.signature(text, request))

    wire = b""
    for chunk in [*chunks, b""]:
        previous = sign("PAYLOAD", empty, hashlib.sha256(chunk).hexdigest())
        stated = "0" * 64 if wrong.get("signature_of") == chunk.decode() else previous
        sent = wrong.get("chunk", chunk.decode()).encode() if chunk else b""
        wire += b"%x;chunk-signature=%s\r\n%s%s" % (len(sent), stated.encode(), sent, b"\r\n" if sent else b"")
    if kind.endswith("-TRAILER"):
        canonical = "".join(f"{name}:{value}\n" for name, value in trailers.items())
        signature = sign("TRAILER", hashlib.sha256(canonical.encode()).hexdigest())
        shown = {name: wrong.get("trailer", value) for name, value in trailers.items()}
        if "unsigned" not in wrong:
            shown["x-amz-trailer-signature"] = signature
        wire += "".join(f"{name}:{value}\r\n" for name, value in shown.items()).encode()
    elif "added_trailer" in wrong:
        wire += f"{wrong['added_trailer']}\r\n".encode()
    headers = {name.replace("-", "_"): value for name, value in request.headers.items()}
    answer, body = send(cloud, path, "PUT", wire + b"\r\n", **headers)
    return answer.status, body.decode().partition("<Code>")[2].partition("</Code>")[0]


SIGNED_CHUNKS = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
SIGNED_TRAILERS = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"


def test_each_chunk_of_a_body_and_its_trailers_are_verified(closed: LocalCloud, bucket: str) -> None:
    chunks = [b"first" * 2000, b"other" * 2000, b"short"]
    crc = base64.b64encode(zlib.crc32(b"".join(chunks)).to_bytes(4, "big")).decode()
    trailers = {"x-amz-checksum-crc32": crc}
    path = f"/{bucket}/chunks"
    s3 = client(closed, "s3")
    assert put_signed_chunks(closed, path, chunks, SIGNED_CHUNKS, {}) == (200, "")
    assert s3.get_object(Bucket=bucket, Key="chunks")["Body"].read() == b"".join(chunks)
    assert put_signed_chunks(closed, f"/{bucket}/trailers", chunks, SIGNED_TRAILERS, trailers) == (200, "")
    assert s3.head_object(Bucket=bucket, Key="trailers", ChecksumMode="ENABLED")["ChecksumCRC32"] == crc
    assert put_signed_chunks(closed, f"/{bucket}/empty", [], SIGNED_CHUNKS, {}) == (200, "")
    unsigned = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
    assert put_signed_chunks(closed, f"/{bucket}/open", chunks, unsigned, trailers, unsigned="") == (200, "")

    refused = f"/{bucket}/refused"
    wrong = (403, "SignatureDoesNotMatch")
    one = [b"first"]
    one_crc = {"x-amz-checksum-crc32": base64.b64encode(zlib.crc32(b"first").to_bytes(4, "big")).decode()}
    for kind, sent in ((SIGNED_CHUNKS, {}), (SIGNED_TRAILERS, one_crc)):
        assert put_signed_chunks(closed, refused, one, kind, sent, chunk="forge") == wrong
        assert put_signed_chunks(closed, refused, one, kind, sent, signature_of="first") == wrong
        assert put_signed_chunks(closed, refused, one, kind, sent, signature_of="") == wrong
    assert put_signed_chunks(closed, refused, one, SIGNED_TRAILERS, one_crc, trailer="AAAAAA==") == wrong
    malformed = (400, "MalformedTrailerError")
    assert put_signed_chunks(closed, refused, one, SIGNED_TRAILERS, one_crc, unsigned="") == malformed
    assert put_signed_chunks(closed, refused, one, SIGNED_CHUNKS, {}, added_trailer="x-amz-meta-a:b") == malformed
    # A document, not an object.
    assert put_signed_chunks(closed, f"/{bucket}?policy", one, SIGNED_CHUNKS, {}, chunk="forge") == wrong
    # Signature Version 4A, whose chunks nothing here could verify.
    of_4a = "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD"
    assert put_signed_chunks(closed, refused, one, of_4a, {}) == (400, "InvalidArgument")
    with pytest.raises(ClientError):
        s3.head_object(Bucket=bucket, Key="refused")


def test_a_form_is_refused_by_name(closed: LocalCloud, bucket: str) -> None:
    body = b"--b\r\nContent-Disposition: form-data; name=key\r\n\r\nk\r\n--b--\r\n"
    answer, text = send(closed, f"/{bucket}", "POST", body, Content_Type="multipart/form-data; boundary=b")
    assert (answer.status, b"<Code>NotImplemented</Code>" in text) == (501, True)
    assert b"HTML forms (POST) are not emulated" in text


def test_the_hash_in_a_presigned_query_is_that_of_the_body(closed: LocalCloud, bucket: str) -> None:
    key = BotoCredentials(closed.credentials.access_key_id, closed.credentials.secret_access_key)

    class Hashed(S3SigV4QueryAuth):
        def payload(self, request: AWSRequest) -> str:
            return hashlib.sha256(b"body").hexdigest()

    url = f"{closed.endpoint_url}/{bucket}/hashed?X-Amz-Content-Sha256={hashlib.sha256(b'body').hexdigest()}"
    request = AWSRequest("PUT", url)
    Hashed(key, "s3", "us-east-1", expires=60).add_auth(request)
    assert send(closed, request.url, "PUT", b"forged")[0].status == 400
    assert send(closed, request.url, "PUT", b"body")[0].status == 200


@given(
    st.sampled_from(["s3", "lambda"]),
    st.booleans(),
    st.lists(st.text(min_size=1), min_size=1, max_size=3),
    st.dictionaries(st.text(min_size=1), st.text(), max_size=3),
    st.text(st.characters(min_codepoint=32, max_codepoint=126)),
)
def test_a_signature_is_that_of_botocores_signers(
    service: str, in_query: bool, segments: list[str], query: dict[str, str], header: str
) -> None:
    own = Credentials.random()
    key = BotoCredentials(own.access_key_id, own.secret_access_key)
    body = b"" if in_query else b"{}"  # botocore moves a body into the query
    path = "/".join(["", *(urllib.parse.quote(segment, safe="~") for segment in segments)])
    url = f"http://127.0.0.1:4566{path}?{urllib.parse.urlencode(query, quote_via=urllib.parse.quote, safe='~')}"
    made = AWSRequest("POST", url, {"Host": "127.0.0.1:4566", "X-Amz-Meta-A": header}, body)
    kind: Any = {
        ("s3", False): S3SigV4Auth,
        ("s3", True): S3SigV4QueryAuth,
        ("lambda", False): SigV4Auth,
        ("lambda", True): SigV4QueryAuth,
    }[service, in_query]
    kind(key, service, "us-east-1").add_auth(made)
    sent = urllib.parse.urlsplit(made.url)
    headers = {name.lower(): value for name, value in made.headers.items()}
    request = SignedRequest("POST", sent.path, sent.query, headers)

    def check(received: SignedRequest) -> None:
        claim = read_claim(received)
        assert claim is not None
        payload = signed_payload(received, claim, lambda: hashlib.sha256(body).hexdigest())
        verify(received, claim, own, payload, time.time())

    check(request)
    for changed in (
        replace(request, method="PUT"),
        replace(request, raw_path=f"{request.raw_path}/a"),
        replace(request, query=f"{request.query}&a"),
        replace(request, headers={**headers, "host": "127.0.0.1:4567"}),
        replace(request, headers={**headers, "x-amz-meta-a": f"{header}a"}),
    ):
        with pytest.raises(SignatureError):
            check(changed)


def test_time_and_scope_are_verified() -> None:
    key = Credentials.random()
    request = AWSRequest("GET", "http://127.0.0.1:1/path")
    SigV4Auth(BotoCredentials(key.access_key_id, key.secret_access_key), "lambda", "us-east-1").add_auth(request)
    headers = {"host": "127.0.0.1:1", **{name.lower(): value for name, value in request.headers.items()}}
    signed = SignedRequest("GET", "/path", "", headers)
    claim = read_claim(signed)
    assert claim is not None
    now = calendar.timegm(time.strptime(claim.timestamp, "%Y%m%dT%H%M%SZ"))
    empty = hashlib.sha256(b"").hexdigest()

    def check(request: SignedRequest, at: float) -> str:
        try:
            verify(request, claim, key, signed_payload(request, claim, lambda: empty), at)
        except SignatureError as error:
            return error.kind
        return "verified"

    assert check(signed, now + 899) == check(signed, now - 899) == "verified"
    assert check(signed, now + 901) == check(signed, now - 901) == "skewed"
    assert check(SignedRequest("GET", "/other", "", headers), now) == "signature"
    assert check(SignedRequest("POST", "/path", "", headers), now) == "signature"
    assert check(SignedRequest("GET", "/path", "a=1", headers), now) == "signature"
    assert check(SignedRequest("GET", "/path", "", {**headers, "host": "other"}), now) == "signature"
    assert check(SignedRequest("GET", "/path", "", {**headers, "x-amz-target": "x"}), now) == "signature"
    for wrong in ("AWS4-HMAC-SHA256 Credential=a", "Basic abc", "AWS4-HMAC-SHA256 " + "," * 1000):
        with pytest.raises(SignatureError) as malformed:
            read_claim(SignedRequest("GET", "/", "", {"authorization": wrong}))
        assert malformed.value.kind == "malformed"


def test_functions_have_a_key_that_verifies(closed: LocalCloud) -> None:
    functions = client(closed, "lambda")
    source = """
        import os, boto3
        def handler(event, context):
            boto3.client("s3").create_bucket(Bucket="made-by-a-function")
            return os.environ["AWS_ACCESS_KEY_ID"], bool(os.environ["AWS_SESSION_TOKEN"])
    """
    functions.create_function(
        FunctionName="f",
        Runtime="python3.11",
        Handler="main.handler",
        Role=ROLE,
        Code={"ZipFile": archive(main=source)},
        Timeout=30,
    )
    answer = functions.invoke(FunctionName="f", Payload=b"{}")
    key, has_token = json.loads(answer["Payload"].read())
    assert key.startswith("ASIA")
    assert has_token
    assert key != closed.credentials.access_key_id
    client(closed, "s3").head_bucket(Bucket="made-by-a-function")


def test_keys_that_iam_and_sts_issue_verify(closed: LocalCloud) -> None:
    iam, sts = client(closed, "iam"), client(closed, "sts")
    iam.create_user(UserName="user")
    made = iam.create_access_key(UserName="user")["AccessKey"]
    user = Credentials(made["AccessKeyId"], made["SecretAccessKey"])
    assert client(closed, "sts", user).get_caller_identity()["Arn"].endswith("user/user")
    sessions = [
        sts.assume_role(RoleArn=ROLE, RoleSessionName="session"),
        sts.get_session_token(),
        sts.get_session_token(),
        sts.get_federation_token(Name="federated"),
    ]
    keys = [
        Credentials(issued["AccessKeyId"], issued["SecretAccessKey"], issued["SessionToken"])
        for issued in (session["Credentials"] for session in sessions)
    ]
    assert len(set(keys)) == 4
    for key in keys:
        client(closed, "s3", key).list_buckets()
        with pytest.raises(ClientError):
            client(closed, "s3", Credentials(key.access_key_id, key.secret_access_key)).list_buckets()
    # Everybody knows these, from AWS's documentation.
    with pytest.raises(ClientError):
        client(
            closed, "s3", Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYzEXAMPLEKEY")
        ).list_buckets()
    iam.update_access_key(UserName="user", AccessKeyId=user.access_key_id, Status="Inactive")
    with pytest.raises(ClientError):
        client(closed, "s3", user).list_buckets()


def test_objects_that_a_policy_makes_public_need_no_signature(closed: LocalCloud) -> None:
    s3 = client(closed, "s3")
    anonymous = boto3.client(
        "s3",
        endpoint_url=closed.endpoint_url,
        region_name="us-east-1",
        config=Config(signature_version=UNSIGNED, retries={"total_max_attempts": 1}),
    )
    s3.create_bucket(Bucket="public")
    for name in ("open/key", "closed/key"):
        s3.put_object(Bucket="public", Key=name, Body=b"body")
    with pytest.raises(ClientError):
        anonymous.get_object(Bucket="public", Key="open/key")
    statement = {
        "Effect": "Allow",
        "Principal": "*",
        "Action": ["s3:GetObject"],
        "Resource": "arn:aws:s3:::public/open/*",
    }
    s3.put_bucket_policy(Bucket="public", Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
    assert anonymous.get_object(Bucket="public", Key="open/key")["Body"].read() == b"body"
    for attempt in (
        lambda: anonymous.get_object(Bucket="public", Key="closed/key"),
        lambda: anonymous.list_objects_v2(Bucket="public"),
        lambda: anonymous.put_object(Bucket="public", Key="open/key", Body=b"other"),
        lambda: anonymous.delete_object(Bucket="public", Key="open/key"),
        lambda: anonymous.get_bucket_policy(Bucket="public"),
        lambda: anonymous.get_object_tagging(Bucket="public", Key="open/key"),
    ):
        with pytest.raises(ClientError) as refused:
            attempt()
        assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
    s3.put_public_access_block(
        Bucket="public", PublicAccessBlockConfiguration={"RestrictPublicBuckets": True, "BlockPublicPolicy": False}
    )
    with pytest.raises(ClientError):
        anonymous.get_object(Bucket="public", Key="open/key")


@pytest.mark.parametrize(
    "path",
    [
        "/2010-05-15/custom-resources%2Fkey",
        "/2010-05-15%2Fcustom-resources%2Fkey",
        "/_lambda-code%2Fkey",
        "/_lambda-code/../key",
        "/_lambda-url%2Fnone%2Fkey",
        "/_emulator%2Fkey",
    ],
)
def test_a_path_that_needs_no_signature_is_no_objects(closed: LocalCloud, bucket: str, path: str) -> None:
    """In a bucket's own host the paths of other services are keys: nobody may copy an object to such a key."""
    host = f"{bucket}.localhost:{urllib.parse.urlsplit(closed.endpoint_url).port}"
    source = f"/{bucket}/{urllib.parse.quote(KEY)}"
    assert send(closed, path, "PUT", Host=host, x_amz_copy_source=source)[0].status == 403
    assert send(closed, path, Host=host)[0].status == 403
    states = {"X_Amz_Target": "AWSStepFunctions.ListStateMachines"}
    # Of function URLs, those that do not exist are answered.
    assert send(closed, path.replace("%2F", "/"), "POST", b"{}", **states)[0].status in (403, 404)


def test_the_host_of_an_open_function_url_is_for_its_function_alone(closed: LocalCloud) -> None:
    functions = client(closed, "lambda")
    code = archive(main="def handler(event, context): return 'function: ' + event['rawPath']")
    functions.create_function(
        FunctionName="open", Runtime="python3.11", Handler="main.handler", Role=ROLE, Code={"ZipFile": code}
    )
    url = functions.create_function_url_config(FunctionName="open", AuthType="NONE")["FunctionUrl"]
    host = f"{url.rstrip('/').rpartition('/')[2]}.lambda-url.us-east-1.localhost"
    for method, path, headers in (
        ("GET", "/2015-03-31/functions/", {}),
        ("POST", "/", {"X_Amz_Target": "AWSStepFunctions.ListStateMachines"}),
        ("POST", "/moto-api/reset", {}),
        ("GET", "/_emulator/", {}),
    ):
        answer, body = send(closed, path, method, b"", Host=host, **headers)
        assert (answer.status, body.decode()) == (200, f"function: {path}")


def test_a_url_for_an_object_is_for_no_operation_of_another_service(closed: LocalCloud, bucket: str) -> None:
    """Its body is not signed, and in a bucket's own host its path is a key that others may have chosen."""
    key = BotoCredentials(closed.credentials.access_key_id, closed.credentials.secret_access_key)
    host = f"{bucket}.localhost:{urllib.parse.urlsplit(closed.endpoint_url).port}"
    for method, path in (("PUT", "/2015-03-31/functions/any/code"), ("POST", "/moto-api/reset")):
        request = AWSRequest(method, f"http://{host}{path}")
        S3SigV4QueryAuth(key, "s3", "us-east-1", expires=60).add_auth(request)
        answer, body = send(closed, f"{path}?{urllib.parse.urlsplit(request.url).query}", method, b"{}", Host=host)
        assert (answer.status, b"expected the service of the operation" in body) == (400, True)


def test_a_secret_is_not_in_what_programs_print_of_a_key() -> None:
    key, secret = Credentials.random_session(), secret_of_run({}, None)
    assert key.access_key_id in repr(key)
    for hidden in (key.secret_access_key, key.session_token, secret.value):
        assert hidden not in f"{key!r} {secret!r}"


def test_the_printed_url_opens_the_page(closed: LocalCloud) -> None:
    answer, _ = send(closed, closed.page_url)
    assert (answer.status, answer.headers["Location"]) == (303, "/_emulator/")
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert "Path=/_emulator" in cookie
    pair = cookie.partition(";")[0]
    answer, body = send(closed, "/_emulator/", Cookie=pair)
    assert answer.status == 200
    assert b"signed" in body or b"bucket" in body
    assert send(closed, "/_emulator/style.css", Cookie=pair)[0].status == 200
    assert send(closed, "/_emulator/", Cookie=pair + "x")[0].status == 403
    assert send(closed, "/2015-03-31/functions/", Cookie=pair)[0].status == 403
