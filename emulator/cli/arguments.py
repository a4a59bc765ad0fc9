"""What arguments may be: whole numbers within AWS's limits."""

import argparse

from emulator import limits

PRELOAD_HELP = "module that sandboxes share instead of importing it each, such as torch; may be repeated"


def world_size(text: str) -> int:
    """Read a number of ranks."""
    return _within(text, range(1, limits.CONCURRENT_EXECUTIONS + 1))


def rank(text: str) -> int:
    """Read a rank."""
    return _within(text, range(limits.CONCURRENT_EXECUTIONS))


def memory_mb(text: str) -> int:
    """Read a function's memory, MB."""
    return _within(text, limits.MEMORY_MB)


def timeout_s(text: str) -> int:
    """Read a function's longest time, seconds."""
    return _within(text, limits.TIMEOUT_S)


def positive(text: str) -> int:
    """Read a whole number from 1."""
    return _within(text, range(1, 2**31))


def port(text: str) -> int:
    """Read a TCP port; 0 means a free one."""
    return _within(text, range(65536))


def _within(text: str, allowed: range) -> int:
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a whole number, got {text!r}") from None
    if value not in allowed:
        raise argparse.ArgumentTypeError(f"expected a whole number from {allowed[0]} to {allowed[-1]}, got {text}")
    return value
