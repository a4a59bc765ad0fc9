"""Real attacks by web pages in Chromium: another origin's requests, and DNS rebinding, against a real endpoint."""

import base64
import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from emulator.cloud import LocalCloud
from tests.emulator.conftest import ROLE, archive

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
SCRIPT = """<!doctype html><pre id="seen"></pre><script>
const seen = {};
async function attempt(name, url, options) {
  try { const answer = await fetch(url, options); seen[name] = [answer.type, answer.status, await answer.text()]; }
  catch (error) { seen[name] = ["error", 0, String(error)]; }
}
function load(name, url) {
  return new Promise(done => {
    const image = new Image();
    image.onload = () => { seen[name] = ["image", image.width, ""]; done(); };
    image.onerror = () => { seen[name] = ["error", 0, ""]; done(); };
    image.src = url;
  });
}
(async () => {
  %s
  document.getElementById("seen").textContent = "DONE" + btoa(JSON.stringify(seen)) + "END";
})();
</script>"""
PIXEL = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")


@contextmanager
def web_site(page: str, target: str) -> Iterator[int]:
    """Serve a page; every other path is answered by the endpoint, as after a change of the site's DNS entry."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def _answer(self) -> None:
            if self.path == "/attack":
                status, headers, body = 200, [("Content-Type", "text/html")], page.encode()
            else:
                sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                connection = HTTPConnection(target, timeout=20)
                connection.request(self.command, self.path, sent, dict(self.headers))
                found = connection.getresponse()
                status, headers, body = found.status, found.getheaders(), found.read()
                connection.close()
            self.send_response(status)
            for name, value in headers:
                if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_DELETE = do_OPTIONS = _answer  # noqa: N815 - names of http.server

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def cloud() -> Iterator[LocalCloud]:
    """Run a cloud that needs no signature, so that the attacks would succeed without the checks of their headers."""
    with LocalCloud(is_open=True) as running:
        yield running


def visit(cloud: LocalCloud, tmp_path: Path, attack: str) -> dict[str, Any]:
    """Open a page of evil.example that runs the attack; return what its script saw."""
    target = urlsplit(cloud.endpoint_url).netloc
    with web_site(SCRIPT % attack, target) as port:
        process = subprocess.Popen(
            [
                *(CHROMIUM or "", "--headless", "--no-sandbox", "--disable-gpu", "--no-proxy-server"),
                *(f"--user-data-dir={tmp_path / 'profile'}", "--host-resolver-rules=MAP *.example 127.0.0.1"),
                *("--virtual-time-budget=10000", "--dump-dom", f"http://evil.example:{port}/attack"),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        try:
            dom, _ = process.communicate(timeout=50)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    assert "DONE" in dom, dom
    seen: dict[str, Any] = json.loads(base64.b64decode(dom.partition("DONE")[2].partition("END")[0]))
    return seen


def test_a_foreign_page_creates_no_function(cloud: LocalCloud, functions: Any, s3: Any, tmp_path: Path) -> None:
    """The attack of issue 11: two no-cors requests, which need no preflight, create a function and invoke it."""
    ran = tmp_path / "ran"
    code = archive(main=f"def handler(event, context):\n    open({str(ran)!r}, 'w').close()\n")
    definition = {
        "FunctionName": "attack",
        "Runtime": "python3.11",
        "Handler": "main.handler",
        "Role": ROLE,
        "Code": {"ZipFile": base64.b64encode(code).decode()},
    }
    s3.create_bucket(Bucket="pictures")
    s3.put_object(Bucket="pictures", Key="pixel.gif", Body=PIXEL, ContentType="image/gif")
    s3.create_bucket(Bucket="shared")
    s3.put_object(Bucket="shared", Key="object", Body=b"for everybody")
    rule = {"AllowedOrigins": ["*"], "AllowedMethods": ["GET"]}
    s3.put_bucket_cors(Bucket="shared", CORSConfiguration={"CORSRules": [rule]})
    url = cloud.endpoint_url
    secret = s3.generate_presigned_url("get_object", Params={"Bucket": "pictures", "Key": "pixel.gif"})
    shared = s3.generate_presigned_url("get_object", Params={"Bucket": "shared", "Key": "object"})
    # A program that sends the same requests, but for the browser's headers, would have created the function.
    seen = visit(
        cloud,
        tmp_path,
        f"""
        const body = {json.dumps(json.dumps(definition))}, simple = {{mode: "no-cors", method: "POST"}};
        await attempt("create", "{url}/2015-03-31/functions", {{...simple, body: body}});
        await attempt("invoke", "{url}/2015-03-31/functions/attack/invocations", {{...simple, body: "{{}}"}});
        await attempt("reset", "{url}/moto-api/reset", simple);
        await attempt("read", "{url}/2015-03-31/functions/", {{}});
        await attempt("page", "{url}/_emulator/", {{}});
        await attempt("object", {json.dumps(secret)}, {{}});
        await attempt("shared", {json.dumps(shared)}, {{}});
        await load("picture", {json.dumps(secret)});
        """,
    )
    names = [function["FunctionName"] for function in functions.list_functions()["Functions"]]
    assert "attack" not in names
    assert not ran.exists()
    # The requests were sent: the browser shows a no-cors answer as opaque.
    assert seen["create"][0] == seen["invoke"][0] == seen["reset"][0] == "opaque"
    for refused in ("read", "page", "object", "picture"):
        assert seen[refused][0] == "error", (refused, seen[refused])
    assert seen["shared"] == ["cors", 200, "for everybody"]
    assert s3.get_object(Bucket="pictures", Key="pixel.gif")["Body"].read() == PIXEL


def test_a_rebound_name_reads_and_changes_nothing(cloud: LocalCloud, functions: Any, s3: Any, tmp_path: Path) -> None:
    """After DNS rebinding the page's own origin is the endpoint, so that the browser lets it read every answer."""
    s3.create_bucket(Bucket="private")
    s3.put_object(Bucket="private", Key="key", Body=b"secret")
    secret = urlsplit(s3.generate_presigned_url("get_object", Params={"Bucket": "private", "Key": "key"}))
    seen = visit(
        cloud,
        tmp_path,
        f"""
        await attempt("functions", "/2015-03-31/functions/", {{}});
        await attempt("page", "/_emulator/", {{}});
        await attempt("object", {json.dumps(f"{secret.path}?{secret.query}")}, {{}});
        await attempt("bucket", "/private", {{method: "DELETE"}});
        await attempt("logs", "/", {{method: "POST", body: "{{}}",
            headers: {{"X-Amz-Target": "Logs_20140328.DescribeLogGroups"}}}});
        await attempt("machines", "/", {{method: "POST", body: "{{}}",
            headers: {{"X-Amz-Target": "AWSStepFunctions.ListStateMachines"}}}});
        """,
    )
    for name, (kind, status, text) in seen.items():
        assert (kind, status) == ("basic", 403), (name, seen[name])
        assert "invalid Host header" in text
    assert s3.get_object(Bucket="private", Key="key")["Body"].read() == b"secret"
