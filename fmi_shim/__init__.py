"""FMI, the FaaS Message Interface: collectives between functions over direct connections.

The names are those of the original Python module, so that ``import fmi`` may mean this package (see
``dropin``): `Communicator`, `types`, `datatypes`, `func`, `op` and `hints`. Errors are in
`fmi_shim.errors`.
"""

from fmi_shim.communicator import Communicator
from fmi_shim.forms import Datatype, TypeDescriptor
from fmi_shim.operators import Operator, ReduceFunction
from fmi_shim.policy import Hint

types = TypeDescriptor
datatypes = Datatype
func = ReduceFunction
op = Operator
hints = Hint

__all__ = ["Communicator", "datatypes", "func", "hints", "op", "types"]
