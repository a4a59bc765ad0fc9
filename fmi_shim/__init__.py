"""FMI, the FaaS Message Interface: collectives between functions over direct connections.

The names are those of the original Python module, so that ``import fmi`` may mean this package (see
``dropin``): `Communicator`, `types`, `datatypes`, `func`, `op` and `hints`. Errors are in
`fmi_shim.errors`.

The names are imported on first use. So a program that needs only `fmi_shim.errors` or `fmi_shim.log_lines`, such as
the emulator's commands, does not import numpy.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fmi_shim.communicator import Communicator
    from fmi_shim.operators import Operator as op  # noqa: N813 - the original module's name
    from fmi_shim.operators import ReduceFunction as func  # noqa: N813
    from fmi_shim.requests import Request
    from fmi_shim.selection.policy import Hint as hints  # noqa: N813
    from fmi_shim.value_types import Datatype as datatypes  # noqa: N813
    from fmi_shim.value_types import TypeDescriptor as types  # noqa: N813

__all__ = ["Communicator", "Request", "datatypes", "func", "hints", "op", "types"]

_DEFINED_IN = {
    "Communicator": "communicator.Communicator",
    "Request": "requests.Request",
    "datatypes": "value_types.Datatype",
    "func": "operators.ReduceFunction",
    "hints": "selection.policy.Hint",
    "op": "operators.Operator",
    "types": "value_types.TypeDescriptor",
}


def __getattr__(name: str) -> Any:
    if name not in _DEFINED_IN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, defined = _DEFINED_IN[name].rpartition(".")
    value = getattr(import_module(f"{__name__}.{module}"), defined)
    globals()[name] = value
    return value
