"""The cost of a run: the examples of AWS's price list, in its units, and sums."""

import pytest

from emulator.aws.prices import Cost, invocation_usd, s3_usd, step_functions_usd
from fmi_shim import prices


@pytest.mark.parametrize(
    ("price", "units", "usd"),
    [
        (prices.USD_PER_GB_SECOND, 6_000_000, 100.0),
        (prices.USD_PER_LAMBDA_REQUEST, 1_000_000, 0.20),
        (prices.USD_PER_TMP_GB_SECOND, 1_000_000, 0.0309),
        (prices.USD_PER_S3_PUT, 1000, 0.005),
        (prices.USD_PER_S3_GET, 1000, 0.0004),
        (prices.USD_PER_STATE_TRANSITION, 1000, 0.025),
        (prices.USD_PER_EXPRESS_REQUEST, 1_000_000, 1.00),
        (prices.USD_PER_EXPRESS_GB_SECOND, 3600, 0.0600),
        (prices.PUBLISHED_S3_UPLOAD_USD, 1000, 0.0054),
        (prices.PUBLISHED_S3_DOWNLOAD_USD, 1000, 0.00043),
        (prices.PUBLISHED_REDIS_USD_PER_HOUR, 1000, 3.8),
        (prices.PUBLISHED_VM_USD_PER_HOUR, 1000, 13.4),
    ],
)
def test_the_prices_are_those_of_the_price_lists(price: float, units: int, usd: float) -> None:
    assert price * units == pytest.approx(usd, rel=1e-3)


def test_three_million_invocations_cost_what_awss_example_says() -> None:
    """The example of AWS's Lambda page: 1536 MB, 3 million requests of 120 ms, without the free tier."""
    duration = 3_000_000 * invocation_usd(1536, 120)
    assert duration == pytest.approx(540_000 * 0.0000166667)
    assert duration + 3_000_000 * prices.USD_PER_LAMBDA_REQUEST == pytest.approx(9.60, rel=1e-4)


@pytest.mark.parametrize(
    ("memory_mb", "billed_ms", "tmp_mb", "gb_seconds", "tmp_gb_seconds"),
    [
        (1024, 1000, 512, 1, 0),
        (1024, 1000, 100, 1, 0),
        (2048, 500, 512, 1, 0),
        (1024, 1000, 1536, 1, 1),
        (1024, 3000, 10_240, 3, 28.5),
        (1769, 0, 10_240, 0, 0),
    ],
)
def test_memory_and_tmp_above_512_mb_are_charged_by_the_second(
    memory_mb: int, billed_ms: int, tmp_mb: int, gb_seconds: float, tmp_gb_seconds: float
) -> None:
    expected = gb_seconds * 1.66667e-05 + tmp_gb_seconds * 3.09e-08
    assert invocation_usd(memory_mb, billed_ms, tmp_mb) == pytest.approx(expected)
    assert invocation_usd(memory_mb, billed_ms) == pytest.approx(gb_seconds * 1.66667e-05)


@pytest.mark.parametrize(
    ("requests", "usd"),
    [
        ({}, 0),
        ({"PUT": 1000}, 0.005),
        ({"POST": 1000}, 0.005),
        ({"GET": 1000}, 0.0004),
        ({"HEAD": 1000}, 0.0004),
        ({"DELETE": 1000}, 0),
        ({"PUT": 3000, "POST": 1000, "GET": 2000, "HEAD": 1000, "DELETE": 9}, 0.0212),
    ],
)
def test_s3_charges_writes_and_reads_by_the_request(requests: dict[str, int], usd: float) -> None:
    assert s3_usd(requests) == pytest.approx(usd, abs=1e-15)


@pytest.mark.parametrize(("milliseconds", "steps"), [(0, 0), (1, 1), (100, 1), (100.5, 2), (200, 2), (1001, 11)])
def test_an_express_execution_is_charged_in_steps_of_100_ms_with_64_mb(milliseconds: float, steps: int) -> None:
    gb_seconds = steps / 10 / 16
    assert step_functions_usd(0, [milliseconds]) == pytest.approx(1e-6 + gb_seconds * 1.667e-05, rel=1e-9)


def test_transitions_and_executions_add_up() -> None:
    assert step_functions_usd(0) == 0
    assert step_functions_usd(4000) == pytest.approx(0.1)
    executions = [1.0, 250.0, 1001.0]
    apart = step_functions_usd(7) + sum(step_functions_usd(0, [duration]) for duration in executions)
    assert step_functions_usd(7, executions) == pytest.approx(apart)


def test_the_total_is_the_sum_of_the_parts() -> None:
    assert Cost(1.0, 2.0, 4.0).total == 7.0
    assert Cost(1.0, 2.0, 4.0, 8.0).total == 15.0
    assert Cost(1.0, 2.0, 4.0).orchestration == 0.0
