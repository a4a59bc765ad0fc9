"""The grid, the table and the figures of a sweep."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.fmi.sweep.figures import draw_axis, varied_axes, world_size_fit
from emulator.fmi.sweep.grid import Point, grid
from emulator.fmi.sweep.table import COLUMNS, FAILED, OK, Row, SweepError, parse_csv, read_csv, row_of, summary, to_csv

sizes = st.sampled_from([None, 1, 2, 9999])
points = st.builds(Point, sizes, sizes, sizes, sizes, st.sampled_from([None, 1 / 512, 1.0, 1024.0]), st.integers(1, 9))
seconds = st.sampled_from([0.0, 1e-9, 1 / 3, 123456.789])
rows = st.builds(
    Row,
    points,
    st.sampled_from([OK, FAILED]),
    st.integers(0, 1000),
    *[seconds] * 4,
    st.integers(0, 10240),
    *[seconds] * 5,
    st.text("ab ,;\"'é", max_size=10),
)


def test_a_grid_has_every_combination_and_all_settings_before_a_repetition() -> None:
    found = grid(world_sizes=[2, 4], memories=[128, 256, 512], repeats=2)
    assert len(found) == len(set(found)) == 12
    assert {point.repeat for point in found[:6]} == {1}
    assert str(found[0]) == "world_size 2, memory 128MB"
    assert str(found[6]) == "world_size 2, memory 128MB, repeat 2"


@settings(max_examples=30, deadline=None)
@given(st.lists(rows, max_size=3))
def test_a_table_can_be_read_back(table: list[Row]) -> None:
    found = parse_csv(to_csv(table))
    assert [(row.status, row.error, row.ranks) for row in found] == [
        (row.status, row.error, row.ranks) for row in table
    ]
    for before, after in zip(table, found, strict=True):
        assert after.point == before.point
        assert after.seconds == pytest.approx(before.seconds, rel=1e-8)
    assert to_csv(found) == to_csv(table)


@pytest.mark.parametrize("text", ["a,b\n1,2\n", ",".join(COLUMNS) + "\n2,,,,,1,maybe\n"])
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "sweep.csv").write_text(text)
    with pytest.raises(SweepError, match="expected the table of a sweep"):
        read_csv(tmp_path / "sweep.csv")
    assert read_csv(tmp_path / "none.csv") == []


def test_a_row_has_the_price_of_the_configured_memory_and_of_the_memory_that_was_used() -> None:
    """The published table has the second; AWS bills the first. 1 s and 2 s of 1024 MB, of which a half was used."""
    ranks = [
        {"rank": rank, "duration_ms": 990.0 * n, "billed_ms": 1000 * n, "memory_mb": 1024, "max_memory_mb": 512}
        for rank, n in ((0, 1), (1, 2))
    ]
    results = {"0": {"sample_persec": 200.0, "throughput_bps": 1e6}, "1": {"sample_persec": 50, "other": None}}
    row = row_of(Point(2), {"seconds": 3.5, "ranks": ranks, "usd": {"total": 1e-4}, "results": results})
    assert row.usd_configured == pytest.approx(3 * 1.66667e-5, rel=1e-4)
    assert row.usd_used == pytest.approx(row.usd_configured / 2)
    assert (row.duration_max_s, row.billed_s, row.samples_per_s, row.throughput_bps) == (1.98, 3.0, 250.0, 1e6)
    assert "0.000050" in summary([row])


def test_each_axis_that_was_varied_has_a_figure() -> None:
    table = [
        Row(
            Point(size, memory, None, 25, gigabytes, repeat),
            OK,
            size,
            3 + size / 10 + repeat / 20,
            1,
            1,
            1,
            memory // 2,
        )
        for size in (2, 4, 8)
        for memory in (512, 1024)
        for gigabytes in (1.0, 2.0)
        for repeat in (1, 2)
    ]
    table.append(Row(Point(16, 2048), FAILED, error="no"))
    assert varied_axes(table) == ["world_size", "memory_mb", "data_gb"]
    for axis in varied_axes(table):
        assert draw_axis(table, axis).startswith(b"\x89PNG")
    fit = world_size_fit(table)
    assert fit is not None
    assert len(fit.residuals) == 6, "runs of one memory and one data set"
