import contextlib

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
def test_a_wrong_entry_is_told_with_what_is_allowed(entry: str) -> None:
    with pytest.raises(
        ConfigError, match=r"FMI_SWITCH_POINTS has the entry .*allowed are allreduce, reduce, allgather"
    ):
        load_switch_points({"FMI_SWITCH_POINTS": entry})


@given(st.text(max_size=40))
def test_any_text_is_a_table_or_a_config_error(text: str) -> None:
    with contextlib.suppress(ConfigError):
        assert load_switch_points({"FMI_SWITCH_POINTS": text}).allreduce >= 0
