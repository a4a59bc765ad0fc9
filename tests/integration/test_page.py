"""The page /_emulator/ of a real endpoint after real functions have run, as HTTP and in headless Chromium."""

import json
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from emulator.cloud import LocalCloud
from emulator.fmi.aws_session import AwsSession, session_with
from emulator.fmi.bundle import function_archive
from emulator.fmi.sweep.figures import draw_axis
from emulator.fmi.sweep.grid import Point
from emulator.fmi.sweep.shown import ShownSweep, SweepStatus
from emulator.fmi.sweep.table import OK, Row, to_csv
from tests.emulator.conftest import ROLE
from tests.emulator.signing import page_cookie

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PROGRAM = """
import os
import fmi
comm = fmi.Communicator(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), "fmi.json", "page")
for _ in range(3):
    comm.barrier()
print("<script>alert('rank')</script>", flush=True)
comm.close()
"""
CONFIG = '{"backends": {"Direct": {"enabled": true, "host": "127.0.0.1", "port": 1, "max_timeout": 20000}}}'
KEY = "odd & <b>key</b>/ä.json"


@pytest.fixture(scope="module")
def run(cloud: LocalCloud, functions: Any, s3: Any) -> str:
    """Run three traced ranks; return the path of their run's page."""
    s3.create_bucket(Bucket="page")
    for key, body in {"program/main.py": PROGRAM, "program/fmi.json": CONFIG, KEY: '{"a": 1}'}.items():
        s3.put_object(Bucket="page", Key=key, Body=body.encode())
    functions.create_function(
        FunctionName="execute",
        Runtime="python3.11",
        Handler="execute.handler",
        Role=ROLE,
        Code={"ZipFile": function_archive()},
        Timeout=40,
        MemorySize=1769,
        Environment={"Variables": {"FMI_RENDEZVOUS": cloud.rendezvous, "FMI_FRAMED": "1", "FMI_TRACE": "1"}},
    )

    def invoke(rank: int) -> Any:
        event = {
            "RANK": str(rank),
            "WORLD_SIZE": "3",
            "FMI_JOB": "page",
            "S3_BUCKET": "page",
            "S3_OBJECT_NAME": "program",
            "SCRIPT": "program/main.py",
        }
        return functions.invoke(FunctionName="execute", Payload=json.dumps(event).encode())

    with ThreadPoolExecutor(3) as threads:
        answers = list(threads.map(invoke, range(3)))
    assert [answer.get("FunctionError") for answer in answers] == [None] * 3
    _, overview = get(cloud, "/_emulator/")
    address = overview.partition('href="/_emulator/runs/')[2].partition('"')[0]
    return f"/_emulator/runs/{address}"


def get(cloud: LocalCloud, path: str, host: str | None = None) -> tuple[Any, str]:
    connection = HTTPConnection(urlsplit(cloud.endpoint_url).netloc, timeout=30)
    connection.request("GET", path, headers={"Cookie": page_cookie(cloud), **({"Host": host} if host else {})})
    answer = connection.getresponse()
    text = answer.read().decode(errors="replace")  # pictures, too
    connection.close()
    return answer, text


def test_the_overview_has_runs_functions_and_buckets(cloud: LocalCloud, run: str) -> None:
    answer, text = get(cloud, "/_emulator/")
    assert answer.status == 200
    assert run in text
    assert 'href="/_emulator/functions/execute"' in text
    assert 'href="/_emulator/buckets/page"' in text
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert "<script" not in text
    # Nothing runs: the page does not reload.
    assert 'http-equiv="refresh"' not in text


def test_a_run_has_one_row_per_rank_with_its_phases(cloud: LocalCloud, run: str) -> None:
    _, text = get(cloud, run)
    for rank in range(3):
        assert f"<title>rank {rank}: succeeded" in text
    for part in ("cold-start", "download", "compute", "communication"):
        assert text.count(f'<path class="{part}"') == 3, part
    assert text.count('<td class="n">3</td>') == 3  # barriers, a rank


def test_a_function_is_shown_with_its_settings_and_its_latest_invocations(cloud: LocalCloud, run: str) -> None:
    answer, text = get(cloud, "/_emulator/functions/execute")
    assert answer.status == 200
    size = len(function_archive()) / 1024
    for fact in ("execute.handler", "python3.11", "1769 MB", "40 s", f"{size:.1f} KB"):
        assert f"<dd>{fact}</dd>" in text
    assert text.count('class="row"') == 3


def test_logs_are_shown_as_text_and_by_rank(cloud: LocalCloud, run: str) -> None:
    _, text = get(cloud, run)
    link = text.partition('<td><a href="/_emulator/logs/')[2].partition('"')[0]
    answer, one = get(cloud, f"/_emulator/logs/{link}")
    assert answer.status == 200
    assert one.count("<pre>&lt;script&gt;alert(&#39;rank&#39;)&lt;/script&gt;</pre>") == 1
    _, everything = get(cloud, "/_emulator/logs/execute")
    assert everything.count("&lt;script&gt;") == 3


def test_objects_are_listed_and_shown_with_their_content_type(cloud: LocalCloud, run: str) -> None:
    _, listing = get(cloud, "/_emulator/buckets/page")
    assert "odd &amp; &lt;b&gt;key&lt;" in listing
    _, folder = get(cloud, "/_emulator/buckets/page?prefix=" + quote("odd & <b>key</b>/", safe=""))
    assert quote(KEY, safe="/") in folder
    answer, content = get(cloud, "/_emulator/objects/page?key=" + quote(KEY, safe=""))
    assert (answer.headers["Content-Type"], content) == ("text/plain; charset=utf-8", '{"a": 1}')
    assert "sandbox" in answer.headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    "path", ["runs/none", "functions/none", "logs/execute?request=none", "buckets/none", "objects/page?key=x", "else"]
)
def test_unknown_names_are_not_found(cloud: LocalCloud, run: str, path: str) -> None:
    answer, text = get(cloud, f"/_emulator/{path}")
    assert answer.status == 404
    assert any(said in text for said in ("Unknown", "unknown page", "does not exist", "Function not found"))


def test_a_host_name_of_another_site_is_rejected(cloud: LocalCloud, run: str) -> None:
    answer, text = get(cloud, run, host="rebound.example.com:4566")
    assert answer.status == 403
    assert "rank" not in text


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_a_browser_renders_the_timeline(cloud: LocalCloud, run: str, tmp_path: Path) -> None:
    picture = tmp_path / "page.png"
    query = f"?{urlsplit(cloud.page_url).query}"
    ended = subprocess.run(
        [
            *(CHROMIUM or "", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"),
            *("--window-size=1200,800", f"--screenshot={picture}", "--dump-dom", cloud.endpoint_url + run + query),
        ],
        capture_output=True,
        text=True,
        timeout=55,
    )
    assert ended.returncode == 0, ended.stderr
    assert picture.read_bytes().startswith(b"\x89PNG")
    # The document as the browser parsed it; nothing was blocked by the content security policy.
    assert ended.stdout.count('class="row"') == 3
    assert "Refused to" not in ended.stderr
    colours = shown_colours(picture)
    for part in ((0x3F, 0x9C, 0x78), (0xE3, 0x9B, 0x2E)):  # compute and communication, in the style sheet's colours
        assert part in colours


def shown_colours(picture: Path) -> set[tuple[int, int, int]]:
    """Return the colours of a picture."""
    image = pytest.importorskip("PIL.Image").open(picture).convert("RGB")
    return {colour for _, colour in image.getcolors(image.width * image.height)}


def test_a_sweep_is_shown_as_it_grows(cloud: LocalCloud) -> None:
    """After each run its table and figures are replaced; what others write in its place is not."""
    shown = ShownSweep(AwsSession(session_with(cloud.credentials), cloud.endpoint_url), "my-sweep")
    rows = [Row(Point(size), OK, size, 3.0 + size / 10) for size in (2, 4)]
    shown.publish(to_csv(rows[:1]), {}, SweepStatus(1, 2, "world_size 4"))
    response, page = get(cloud, "/_emulator/sweeps/my-sweep")
    assert response.status == 200
    assert "1 of 2" in page
    assert "world_size 4" in page
    assert "3.20" in page
    assert 'http-equiv="refresh"' in page
    figures = {"world_size": draw_axis(rows, "world_size")}
    shown.publish(to_csv(rows), figures, SweepStatus(2, 2, words="The runs say <nothing>."))
    _, page = get(cloud, "/_emulator/sweeps/my-sweep")
    assert 'http-equiv="refresh"' not in page
    assert "The runs say &lt;nothing&gt;." in page
    image = "/_emulator/objects/fmi-sweeps?key=my-sweep/world_size.png"
    assert image in page
    assert get(cloud, image)[0].status == 200
    assert get(cloud, "/_emulator/sweeps/none")[0].status == 404
