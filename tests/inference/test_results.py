from __future__ import annotations

import json

from inference import profile, results, run
from inference.estimator import Estimator
from inference.partition import Partition

TIMING = run.Timing(wall=2.0, cpu=3.0, galaxies=100, batches=4, bits=800, waited=0.5)
PROFILE = profile.Profile(total=2e6, own=5e5, average="all operators")


def test_the_result_of_a_rank_has_the_published_keys_and_tells_times_and_memories_apart() -> None:
    result = results.rank_result(TIMING, PROFILE, batch_size=32, device="cpu", result_path="results", data_path="data")
    assert 50 < result.pop("peak_rss (MB)") < 100_000
    assert result == {
        "total_cpu_time (seconds)": 3.0,
        "total_cpu_memory (MB)": 200.0,
        "execution_time (seconds/batch)": 0.5,
        "num_batches": 4,
        "batch_size": 32,
        "device": "cpu",
        "throughput_bps": 400.0,
        "sample_persec": 50.0,
        "result_path": "results",
        "data_path": "data",
        "wall_time (seconds)": 2.0,
        "data_wait (seconds)": 0.5,
        "num_samples": 100,
    }


def test_the_full_result_has_the_machine_and_the_average_of_the_profiler() -> None:
    rank = results.rank_result(TIMING, PROFILE, batch_size=32, device="cpu", result_path="r", data_path="d")
    full = json.loads(json.dumps(results.full_result(rank, TIMING, PROFILE)))
    assert full["self_cpu_memory (MB)"] == 50.0
    assert full["avg_profile"] == "all operators"
    assert full["cpu_info"]["system"]
    assert full["ram_info (GB)"] > 0.5
    assert rank.items() <= full.items()


def test_the_result_of_a_rank_without_data_has_zeros() -> None:
    result = results.rank_result(
        run.Timing(), profile.Profile(), batch_size=512, device="cpu", result_path="r", data_path="d"
    )
    assert result["num_batches"] == result["sample_persec"] == result["execution_time (seconds/batch)"] == 0


def test_the_profile_is_that_of_the_profiler_and_does_not_depend_on_the_number_of_galaxies(
    shipped: Estimator, partition: Partition
) -> None:
    """The sum with nested operators exceeds the sum without them, which is at least what the network returns."""
    half = profile.profile(shipped, partition.images[:32], partition.magnitudes[:32])
    whole = profile.profile(shipped, partition.images, partition.magnitudes)
    assert whole.total > whole.own >= 4
    assert abs(half.total / whole.total - 1) < 0.2
    assert "cpu_memory_usage" in whole.average
