import dataclasses
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmi_shim.errors import ConfigError
from fmi_shim.transports.tcp.switch_points import SwitchPoints, load_switch_points


def test_the_environment_overrides_entries_of_the_table() -> None:
    table = load_switch_points({"FMI_SWITCH_POINTS": "allreduce=1, reduce=0"})
    assert table == SwitchPoints(allreduce=1, reduce=0)
    assert load_switch_points({}) == SwitchPoints()


@pytest.mark.parametrize("entry", ["allreduce", "bcast=1", "reduce=-1", "reduce=x", "=", "reduce=" + "9" * 30])
def test_a_wrong_entry_raises_an_error_with_the_allowed_ones(entry: str) -> None:
    with pytest.raises(
        ConfigError, match=r"invalid entry .* of FMI_SWITCH_POINTS: expected one of allreduce, reduce, allgather"
    ):
        load_switch_points({"FMI_SWITCH_POINTS": entry})


names = st.sampled_from([field.name for field in dataclasses.fields(SwitchPoints)])
tables = st.dictionaries(names, st.integers(0, 10**15))
spaces = st.text(" ", max_size=2)


@given(tables, spaces)
def test_every_table_that_is_written_out_is_read_back(table: dict[str, int], space: str) -> None:
    text = ",".join(f"{space}{name}{space}={space}{size}" for name, size in table.items())
    assert load_switch_points({"FMI_SWITCH_POINTS": text}) == SwitchPoints(**table)


@given(st.text(max_size=40).filter(lambda text: text.strip() and not re.search("[0-9]", text)))
def test_a_text_without_a_size_is_a_config_error(text: str) -> None:
    with pytest.raises(ConfigError):
        load_switch_points({"FMI_SWITCH_POINTS": text})
