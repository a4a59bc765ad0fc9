"""The example programs, each on every channel: ranks are forked, and the results compared with one process's own."""

import json
import os
import re
import runpy
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest

import fmi_shim
from emulator.testing import World
from emulator.testing.launch import shared_services
from emulator.testing.services import MissingServiceError, Services, WorldChannel
from inference import job, partition

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
LONGEST_PROGRAM = 60
RANKS = 4
MODES = {
    "direct": (WorldChannel.DIRECT, True),
    "raw": (WorldChannel.DIRECT, False),
    "shm": (WorldChannel.SHM, True),
    "redis": (WorldChannel.REDIS, True),
    "s3": (WorldChannel.S3, True),
}
Results = list[dict[str, Any]]


def run(
    folder: Path,
    mode: str,
    script: str,
    arguments: tuple[object, ...],
    names: tuple[str, ...],
    environment: Mapping[str, str],
    ranks: int,
) -> tuple[Results, str]:
    """Run an example; return its variables `names` by rank, and what rank 0 wrote.

    A rank is a fork, in which the program is executed as `fmirun` executes it: as ``__main__``, beside its fmi.json.
    """
    channel, framed = MODES[mode]
    services = shared_services()
    try:
        access = services.access(channel, framed, 20.0)
    except MissingServiceError as error:
        pytest.skip(str(error))
    (folder / "fmi.json").write_bytes(access.config)

    def rank(comm: fmi_shim.Communicator) -> dict[str, Any]:
        os.chdir(folder)
        sys.path[:0] = [str(ROOT / "fmi_shim/dropin")]
        sys.argv[:] = [script, *map(str, arguments)]
        variables = runpy.run_path(str(EXAMPLES / script), run_name="__main__")
        if "comm" in variables:
            variables["comm"].close()
        return {name: variables[name] for name in names}

    world = World(ranks, services, channel, framed, limit_s=50, environment={"FMI_JOB": folder.name, **environment})
    return world(rank), world.output[0]


Run = Callable[..., tuple[Results, str]]


@pytest.fixture(params=MODES)
def on_channel(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    """Run an example over one of the channels."""
    mode: str = request.param

    def run_on_channel(
        script: str,
        *arguments: object,
        names: tuple[str, ...] = (),
        environment: Mapping[str, str] | None = None,
        ranks: int = RANKS,
    ) -> tuple[Results, str]:
        return run(tmp_path, mode, script, arguments, names, environment or {}, ranks)

    return run_on_channel


@pytest.fixture
def buckets() -> Iterator[tuple[Services, dict[str, str]]]:
    """The services, and the environment of a run's ranks with a bucket of its own."""
    services = shared_services()
    cloud = services.cloud
    name = f"run-{os.urandom(4).hex()}"
    cloud.client("s3").create_bucket(Bucket=name)
    run_variables = {"S3_BUCKET": name, "DATA_BUCKET": name, "RESULT_PATH": "results", "DATA_PATH": "data"}
    yield services, {**cloud.environment, **run_variables}
    store = boto3.resource(
        "s3", endpoint_url=cloud.endpoint_url, region_name="us-east-1", **cloud.credentials.for_boto3()
    )
    store.Bucket(name).objects.delete()
    store.Bucket(name).delete()


def test_hello(on_channel: Run) -> None:
    _, output = on_channel("hello.py")
    assert output.splitlines() == ["hello from rank 0 of 4", "the greeting has passed 4 ranks"]


def test_reduce(on_channel: Run) -> None:
    _, output = on_channel("reduce.py")
    assert output == "4 ranks: 1 + 2 + ... + 4 = 10, and of the lists: [4.0, 3.0]\n"


def test_monte_carlo(on_channel: Run) -> None:
    results, _ = on_channel("monte_carlo.py", 1000, names=("inside", "thrown"))
    inside = 0
    for rank in range(RANKS):
        x, y = np.random.default_rng(seed=rank).random((2, 1000))
        inside += np.count_nonzero(x**2 + y**2 < 1)
    assert results == [{"inside": inside, "thrown": 4000}] * RANKS


def test_kmeans(on_channel: Run) -> None:
    results, output = on_channel("kmeans.py", 300, names=("points", "centres"))
    points = np.concatenate([found["points"] for found in results])
    centres = results[0]["centres"]
    nearest = ((points[:, None] - centres[None]) ** 2).sum(axis=2).argmin(axis=1)
    # Each centre is the mean of its points: a fixed point of Lloyd's algorithm over all ranks' points.
    np.testing.assert_allclose(centres, [points[nearest == cluster].mean(axis=0) for cluster in range(4)], atol=1e-5)
    np.testing.assert_allclose(centres[np.lexsort(centres.T[::-1])], [[0, 0], [0, 10], [10, 0], [10, 10]], atol=0.3)
    assert output.startswith("1,200 points, centres after ")


def test_matrix_multiply(on_channel: Run) -> None:
    results, output = on_channel("matrix_multiply.py", 24, names=("a", "b", "product"))
    a, b, product = (
        np.block([[results[2 * row + column][name] for column in range(2)] for row in range(2)])
        for name in ("a", "b", "product")
    )
    np.testing.assert_allclose(product, a @ b, atol=1e-12)
    assert output.startswith("24 x 24 on a grid of 2 x 2 ranks in ")
    assert float(output.split()[-1]) == pytest.approx((a @ b).sum(), abs=1e-5)


def test_sample_sort(on_channel: Run) -> None:
    results, output = on_channel("sample_sort.py", 500, names=("numbers", "part"))
    everything = np.sort(np.concatenate([found["numbers"] for found in results]))
    np.testing.assert_array_equal(np.concatenate([found["part"] for found in results]), everything)
    assert output.startswith("sorted 2,000 numbers from ")


def test_pagerank(on_channel: Run) -> None:
    pages, iterations = 100, 3
    results, output = on_channel("pagerank.py", pages, iterations, names=("first", "links", "scores"))
    follows = np.zeros((pages, pages))
    for found in results:
        for source, target in found["links"]:
            follows[target, found["first"] + source] = 1
    outgoing = follows.sum(axis=0)
    follows = np.where(outgoing == 0, 1 / pages, follows / np.maximum(outgoing, 1))
    expected = np.full(pages, 1 / pages)
    for _ in range(iterations):
        expected = 0.15 / pages + 0.85 * follows @ expected
    scores = np.concatenate([found["scores"] for found in results])
    np.testing.assert_allclose(scores, expected, atol=1e-12)
    assert output.startswith("100 pages, 3 iterations, sum of the scores 1.000000")
    assert f"best pages: {expected.argmax()} " in output


def test_data_parallel(on_channel: Run, buckets: tuple[Services, dict[str, str]]) -> None:
    pytest.importorskip("torch")
    _, output = on_channel("data_parallel.py", 30, environment=buckets[1])
    found = re.fullmatch(r"4 ranks: y = ([\d.]+) x \+ ([\d.]+), mean loss ([\d.]+)\n", output)
    assert found is not None, output
    assert [float(number) for number in found.groups()] == pytest.approx([3.0, 1.0, 0.0], abs=0.3)


def test_word_count(on_channel: Run, buckets: tuple[Services, dict[str, str]]) -> None:
    services, environment = buckets
    texts = ["The rank, the root and the tree.", "A rank sends; a rank receives.", "The end"]
    s3, bucket = services.cloud.client("s3"), environment["S3_BUCKET"]
    for number, text in enumerate(texts):
        s3.put_object(Bucket=bucket, Key=f"data/{number}.txt", Body=text.encode())
    event = {"data_map": {"0": ["data/0.txt", "data/1.txt"], "1": "data/2.txt", "2": []}}
    s3.put_object(Bucket=bucket, Key="payload.json", Body=json.dumps(event).encode())
    _, output = on_channel("word_count.py", environment=environment)
    expected = Counter(re.findall("[a-z]+", " ".join(texts).lower()))
    found: Counter[str] = Counter()
    for rank in range(RANKS):
        body = s3.get_object(Bucket=bucket, Key=f"results/{rank}.json")["Body"].read()
        assert not found.keys() & json.loads(body).keys()
        found.update(json.loads(body))
    assert found == expected
    assert output == f"{expected.total()} words, {len(expected)} different ones\n"


@pytest.fixture(scope="module")
def partitions(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    # Imported once here, not in each rank.
    pytest.importorskip("matplotlib.figure")
    folder = tmp_path_factory.mktemp("partitions")
    partition.write_all(folder, partitions=2, galaxies=12)
    return sorted(folder.glob("*.pt"))


@pytest.mark.parametrize("on_channel", [mode for mode in MODES if mode != "raw"], indirect=True)
def test_cosmic_ai(
    on_channel: Run,
    buckets: tuple[Services, dict[str, str]],
    partitions: list[Path],
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Over Direct with tables and figures of all galaxies, over the others as for a set that is too large for them."""
    pytest.importorskip("torch")
    is_whole = "[direct]" in request.node.name
    if not is_whole:
        monkeypatch.setattr(job, "OBJECT_LIMIT", 5)
    services, environment = buckets
    s3, bucket = services.cloud.client("s3"), environment["S3_BUCKET"]
    for path in partitions:
        s3.upload_file(str(path), bucket, path.name)
    event = {"data_map": {"0": partitions[0].name, "1": [partitions[1].name]}}
    s3.put_object(Bucket=bucket, Key="payload.json", Body=json.dumps(event).encode())
    _, output = on_channel("cosmic_ai.py", "--batch-size", 8, environment=environment, ranks=2)
    assert re.search(r"galaxies +12", output)
    reduced = json.loads(s3.get_object(Bucket=bucket, Key="results/ResultsReduce.json")["Body"].read())
    assert reduced["n"] == 12
    assert 0 < reduced["mae"] < 0.1
    written = {entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket, Prefix="results/")["Contents"]}
    assert ("results/inference.png" in written) == is_whole


@pytest.mark.parametrize("script", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_an_example_is_short_and_says_how_it_is_run(script: str) -> None:
    text = (EXAMPLES / script).read_text()
    assert len(text.splitlines()) < LONGEST_PROGRAM
    assert f"examples/{script}" in text
