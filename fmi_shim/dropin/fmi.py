"""Makes ``import fmi`` mean `fmi_shim`: put this file's folder, or a copy of the file, on ``sys.path``."""

from fmi_shim import Communicator, datatypes, func, hints, op, types

__all__ = ["Communicator", "datatypes", "func", "hints", "op", "types"]
