"""Worlds of ranks in ``unittest``."""

from __future__ import annotations

import unittest
from collections.abc import Callable
from typing import Any, ClassVar

from emulator.testing.launch import channel_named, shared_services
from emulator.testing.run import Presentation
from emulator.testing.world import DEFAULT_LIMIT_S, DEFAULT_MAX_TIMEOUT_S, World


class FmiTestCase(unittest.TestCase):
    """A test case that runs functions on worlds of ranks.

    Attributes
    ----------
    channel, framed, timeout, max_timeout
        The settings of the worlds of a class, see `emulator.launch`.

    Examples
    --------
    >>> class TestSum(FmiTestCase):
    ...     def test_sum(self):
    ...         def rank(comm):
    ...             return comm.rank
    ...         self.assertEqual(self.fmi_world(4)(rank), [0, 1, 2, 3])
    """

    channel: ClassVar[str] = "direct"
    framed: ClassVar[bool] = True
    timeout: ClassVar[float] = DEFAULT_LIMIT_S
    max_timeout: ClassVar[float] = DEFAULT_MAX_TIMEOUT_S

    def fmi_world(self, size: int) -> World:
        """Return a world of `size` ranks, to be called with a function; see `World`."""
        channel = channel_named(self.channel)
        return World(size, shared_services(), channel, self.framed, self.timeout, self.max_timeout, {}, Presentation())

    def assert_rank_values(self, expected: list[Any], function: Callable[..., Any], *arguments: Any) -> None:
        """Run a function on one rank for each expected value, and compare the values it returns."""
        self.assertEqual(expected, self.fmi_world(len(expected))(function, *arguments))
