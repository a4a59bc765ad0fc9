"""The backend ``fmi`` of torch.distributed: a process group whose collectives are those of a communicator.

torch calls `register` when it is imported (entry point ``torch.backends``), so that a program needs no import of ours.
torch's ``Backend`` cannot be subclassed in Python; ``ProcessGroup`` can, see
https://github.com/pytorch/pytorch/blob/main/torch/testing/_internal/distributed/multi_threaded_pg.py.
"""

from functools import partial
from importlib import import_module

import torch.distributed as dist

from fmi_shim.torch_backend.creation import create_group
from fmi_shim.torch_backend.process_group import NAME
from fmi_shim.torch_backend.store import rendezvous_in_s3


def register() -> None:
    """Register the backend ``fmi``, and a store for the ranks of a run; called by torch when it is imported."""
    if NAME in dist.Backend.backend_list:
        return
    dist.Backend.register_backend(NAME, create_group, extended_api=True, devices=["cpu"])
    # No public function replaces a handler, and the package hides the module behind a function of its name.
    handlers = import_module("torch.distributed.rendezvous")._rendezvous_handlers  # noqa: SLF001
    handlers["env"] = partial(rendezvous_in_s3, handlers["env"])
