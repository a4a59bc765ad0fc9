"""Barrier: no rank returns before all ranks have called it."""

from __future__ import annotations

import numpy as np

from fmi_shim.channel import Channel
from fmi_shim.collectives import allreduce
from fmi_shim.operators import Array


def one_byte_allreduce(channel: Channel) -> None:
    """Allreduce one byte, as FMI does. Cost: ``lg p * alpha``, plus ``2 * alpha`` for other p."""
    allreduce.recursive_doubling(channel, np.ones(1, np.uint8), _keep_own)


def _keep_own(left: Array, right: Array, out: Array) -> None:
    """Combine nothing: only the receipt of the message matters."""
