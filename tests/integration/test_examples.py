"""The examples, run from the README's commands, and what they say when something is wrong with their input."""

import json
import re
import shutil
from pathlib import Path

import pytest

from inference import partition, synthetic
from tests.integration.fmirun import EXAMPLES, fmirun, start


def test_reduce_sums_over_the_ranks(tmp_path: Path) -> None:
    status, output, errors = fmirun(tmp_path, "-n", 5, EXAMPLES / "reduce.py")
    assert status == 0, errors
    assert output == "[0] 5 ranks: 1 + 2 + ... + 5 = 15, and of the lists: [5.0, 5.0]\n"


def test_data_parallel_training_fits_one_line_to_all_points(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    status, output, errors = fmirun(tmp_path, "-n", 2, "--preload", "torch", EXAMPLES / "data_parallel.py")
    assert status == 0, errors
    assert re.fullmatch(r"\[0\] 2 ranks: y = 3\.0\d x \+ (1\.0\d|0\.9\d), mean loss 0\.000\d\n", output)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A copy of the examples whose configuration a test may change."""
    return Path(shutil.copytree(EXAMPLES, tmp_path / "program"))


def test_a_wrong_configuration_is_named(tmp_path: Path, program: Path) -> None:
    configuration = json.loads((program / "fmi.json").read_text())
    configuration["backends"]["Direct"]["max_timeout"] = "soon"
    (program / "fmi.json").write_text(json.dumps(configuration))
    status, _, errors = fmirun(tmp_path, "-n", 2, program / "reduce.py")
    assert status == 1
    last = errors.splitlines()[-1]
    assert re.match(r"fmirun: rank [01] failed: ConfigError: .*max_timeout.*soon", last)


@pytest.mark.parametrize(
    ("trouble", "cause", "consequence"),
    [
        ("os.kill(os.getpid(), 9)", "ProcessEnded: signal: killed", "PeerLostError: .*rank 2"),
        ("raise ValueError('broken')", "ValueError: broken", "PeerFailedError: rank 2 raised ValueError: broken"),
    ],
)
def test_a_rank_lost_in_a_collective_is_named_and_the_others_notice_at_once(
    tmp_path: Path, program: Path, trouble: str, cause: str, consequence: str
) -> None:
    (program / "lost.py").write_text(f"""
import os, fmi

def helper():
    'A function refers to the globals, so that they are a reference cycle.'

rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
comm = fmi.Communicator(rank, size, "fmi.json", "lost")
comm.barrier()  # others may still be in it, and connect
if rank == 2:
    {trouble}
comm.allreduce(1, fmi.func(fmi.op.sum), fmi.types(fmi.datatypes.int))
""")
    status, _, errors = fmirun(tmp_path, "-n", 4, program / "lost.py")
    assert status == 1
    assert f"fmirun: rank 2 failed: {cause}" in errors.splitlines()[-1]
    victims = re.findall(rf"then rank (\d): {consequence}", errors)
    assert sorted(victims) == ["0", "1", "3"], errors
    assert "Stopped" not in errors


@pytest.fixture(scope="module")
def partitions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three small partitions of held-out galaxies."""
    folder = tmp_path_factory.mktemp("partitions")
    partition.write_all(folder, partitions=3, galaxies=60)
    return folder


def cosmic_ai(tmp_path: Path, data: Path, *arguments: object, ranks: int = 2) -> tuple[int, str, str]:
    return fmirun(
        tmp_path,
        *("-n", ranks, "--preload", "torch", "--data", data, "--results", tmp_path / "results"),
        *("--batch-size", 16, EXAMPLES / "cosmic_ai.py", *arguments),
    )


def test_cosmic_ai_ends_with_the_reduced_metrics_and_the_published_files(tmp_path: Path, partitions: Path) -> None:
    status, output, errors = cosmic_ai(tmp_path, partitions)
    assert status == 0, errors
    results = tmp_path / "results"
    combined = json.loads((results / "combined_data.json").read_text())
    assert [entry["rank"] for entry in combined] == [0, 1]
    assert [entry["num_batches"] for entry in combined] == [4, 2]
    assert {entry["batch_size"] for entry in combined} == {16}
    assert {"cpu_info", "avg_profile", "self_cpu_memory (MB)"} <= json.loads(
        (results / "Results.json").read_text()
    ).keys()
    assert (results / "stamps.png").read_bytes().startswith(b"\x89PNG")
    assert (results / "objects" / "redshifts.fits").read_bytes().startswith(b"SIMPLE")
    for entry in combined:
        assert {"total_cpu_time (seconds)", "execution_time (seconds/batch)", "sample_persec"} <= entry.keys()
    reduced = json.loads((results / "ResultsReduce.json").read_text())
    assert reduced["total_time"] > 0
    assert 0 < reduced["mae"] < 0.05
    assert (results / "inference.png").read_bytes().startswith(b"\x89PNG")
    assert len((results / "objects" / "redshifts.ecsv").read_text().splitlines()) > 60
    assert re.search(r"galaxies +60", output)
    assert "samples/s" in errors


def test_ranks_without_partitions_take_part_in_the_collectives(tmp_path: Path, partitions: Path) -> None:
    """Three partitions and five ranks."""
    status, output, errors = cosmic_ai(tmp_path, partitions, ranks=5)
    assert status == 0, errors
    combined = json.loads((tmp_path / "results" / "combined_data.json").read_text())
    assert [entry["num_samples"] for entry in combined] == [20, 20, 20, 0, 0]
    assert re.search(r"galaxies +60", output)


def test_a_synthetic_set_is_drawn_by_the_ranks(tmp_path: Path, partitions: Path) -> None:
    status, output, errors = cosmic_ai(tmp_path, partitions, "--synthetic", "1.5MB", "--megabytes", 1)
    assert status == 0, errors
    reduced = json.loads((tmp_path / "results" / "ResultsReduce.json").read_text())
    assert (reduced["n"], reduced["origins"]) == (76, [synthetic.ORIGIN])
    assert re.search(r"rank 1: 2 25 galaxies", output)


def test_a_damaged_partition_ends_the_run_with_its_rank_and_key(tmp_path: Path, partitions: Path) -> None:
    """Of whatever kind the damage is: `inference.partition` tells them all alike."""
    data = Path(shutil.copytree(partitions, tmp_path / "data"))
    (data / "3.pt").write_bytes((data / "3.pt").read_bytes()[:5000])
    status, _, errors = cosmic_ai(tmp_path, data)
    assert status == 1
    assert re.search(r"fmirun: rank 1 failed: PartitionError: .*data/3\.pt", errors.splitlines()[-1]), errors
    assert not (tmp_path / "results").exists()


def test_ctrl_c_in_the_middle_of_a_collective_ends_the_run(tmp_path: Path, program: Path) -> None:
    (program / "waits.py").write_text("""
import os, fmi
rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
comm = fmi.Communicator(rank, size, "fmi.json", "waits")
print("waiting", flush=True)
comm.recv(1 - rank, fmi.types(fmi.datatypes.int))
""")
    with start(tmp_path, "-n", 2, program / "waits.py") as command:
        assert "waiting" in command.stdout.readline()
        command.send_signal(2)
        command.communicate(timeout=20)
    assert command.returncode == 130
