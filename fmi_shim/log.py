"""The library's log: with FMI_LOG, its records go to standard error, one line each that begins with the rank."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping

from fmi_shim.errors import ConfigError, FmiError, PeerLostError

LOG_VARIABLE = "FMI_LOG"
_LEVELS = ("debug", "info", "warning")

_log = logging.getLogger("fmi_shim")


class _StandardErrorHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to what `sys.stderr` is at the time of each record; AWS Lambda's runtime replaces it."""

    def emit(self, record: logging.LogRecord) -> None:
        self.setStream(sys.stderr)
        super().emit(record)


_handler = _StandardErrorHandler()
_handler.setFormatter(logging.Formatter("fmi %(levelname)s: %(message)s"))


def configure_log(environment: Mapping[str, str] = os.environ) -> None:
    """Set the log's level as FMI_LOG says; without it, the program's own configuration of `logging` applies.

    Raises
    ------
    ConfigError
        If FMI_LOG is none of ``debug``, ``info`` and ``warning``.
    """
    level = environment.get(LOG_VARIABLE, "")
    if not level:
        return
    if level not in _LEVELS:
        raise ConfigError(f"environment: invalid {LOG_VARIABLE} {level!r}: expected one of {', '.join(_LEVELS)}")
    _log.setLevel(level.upper())
    _log.propagate = False
    if _handler not in _log.handlers:
        _log.addHandler(_handler)


def log_failure(rank: int, error: BaseException) -> None:
    """Log how the communicator of `rank` failed: a lost peer, an abort that it received, and what it sends itself."""
    if isinstance(error, FmiError) and error.reported_by is not None:
        _log.info("rank %d: received an abort from rank %d: %s", rank, error.reported_by, error.message)
        return
    if isinstance(error, PeerLostError):
        _log.info("rank %d: lost rank %s", rank, error.origin)
    _log.info("rank %d: sends an abort: %s: %s", rank, type(error).__name__, error)
