"""FMI, the FaaS Message Interface: collectives between functions over direct connections.

The names are those of the original Python module, so that ``import fmi`` may mean this package (see
``dropin``): `Communicator`, `types`, `datatypes`, `func`, `op` and `hints`. Errors are in
`fmi_shim.errors`.
"""

from fmi_shim.communicator import Communicator
from fmi_shim.operators import Operator, ReduceFunction
from fmi_shim.selection.policy import Hint
from fmi_shim.value_types import Datatype, TypeDescriptor

types = TypeDescriptor
datatypes = Datatype
func = ReduceFunction
op = Operator
hints = Hint

__all__ = ["Communicator", "datatypes", "func", "hints", "op", "types"]
