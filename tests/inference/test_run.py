from __future__ import annotations

import pytest
import torch

from inference import run
from inference.errors import DeviceError, PartitionError
from inference.estimator import Estimator
from inference.partition import Partition

CPU = torch.device("cpu")


@pytest.mark.parametrize(("batch_size", "n"), [(1, 20), (7, 40), (64, 150), (100, 150), (512, 150)])
def test_the_redshifts_do_not_depend_on_the_batch_size(
    shipped: Estimator, partition: Partition, batch_size: int, n: int
) -> None:
    images, magnitudes = partition.images[:n], partition.magnitudes[:n]
    with torch.inference_mode():
        plain = shipped(images, magnitudes)
    z_phot, timing = run.predict(shipped.for_cpu(), images, magnitudes, batch_size, CPU)
    torch.testing.assert_close(torch.from_numpy(z_phot), plain.double(), rtol=0.0, atol=1e-5)
    assert timing.galaxies == n
    assert timing.batches == -(-n // batch_size)
    assert timing.bits == n * 8 * (5 * 32 * 32 * 4 + 5 * 8)
    assert timing.wall > 0
    assert timing.cpu > 0


def test_a_batch_size_of_0_is_an_error(shipped: Estimator, partition: Partition) -> None:
    with pytest.raises(ValueError, match="invalid batch_size 0"):
        run.predict(shipped, partition.images, partition.magnitudes, 0, CPU)


def test_timings_add_up_and_tell_waiting_from_computing() -> None:
    timing = run.Timing(wall=3.0, cpu=3.0, galaxies=90, batches=4, bits=800, waited=1.0) + run.Timing()
    assert timing.samples_per_second == 30.0
    assert timing.compute_share == 0.75
    assert (timing + timing).waited == 2.0
    assert (run.Timing().samples_per_second, run.Timing().compute_share) == (0.0, 1.0)


def test_a_row_that_the_network_cannot_process_is_an_error_that_names_it(
    shipped: Estimator, partition: Partition
) -> None:
    """The values are finite, and the network's are not."""
    images = partition.images[:20].clone()
    images[13] = 3e38
    magnitudes = partition.magnitudes[:20].clone()
    magnitudes[13] = 1e300
    with pytest.raises(PartitionError, match="row 13: expected values that the network can process"):
        run.predict(shipped.for_cpu(), images, magnitudes, 8, CPU)


@pytest.mark.parametrize(
    ("memory", "threads"),
    [(None, 1), ("128", 1), ("1769", 1), ("3538", 2), ("10240", 5), ("99999", 6), ("", 1), ("much", 1)],
)
def test_the_number_of_threads_follows_the_memory_size(memory: str | None, threads: int) -> None:
    environment = {} if memory is None else {"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": memory}
    assert run.vcpus(environment) == threads


def test_an_unknown_device_is_an_error() -> None:
    assert run.choose_device("cpu") == CPU
    with pytest.raises(DeviceError, match="invalid device 'tpu': expected cpu or cuda"):
        run.choose_device("tpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_an_error() -> None:
    with pytest.raises(DeviceError, match="use --device cpu"):
        run.choose_device("cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_gpu_predicts_the_redshifts_of_the_cpu(shipped: Estimator, partition: Partition) -> None:
    cuda = run.choose_device("cuda")
    on_gpu, _ = run.predict(shipped.for_gpu("cuda"), partition.images, partition.magnitudes, 128, cuda)
    on_cpu, _ = run.predict(shipped.for_cpu(), partition.images, partition.magnitudes, 128, CPU)
    torch.testing.assert_close(torch.from_numpy(on_gpu), torch.from_numpy(on_cpu), rtol=0.0, atol=1e-3)
