"""Networks with published figures, and the faults that make links as slow."""

from __future__ import annotations

from dataclasses import dataclass

from fmi_shim.link_model import LinkConditions


@dataclass(frozen=True)
class NetworkPreset:
    """A network.

    Attributes
    ----------
    conditions
        Its links.
    source
        Its figures and where they were published.
    """

    conditions: LinkConditions
    source: str


NETWORK_PRESETS = {
    "aws": NetworkPreset(
        LinkConditions(delay=0.34e-3, rate=3.2e9),
        "0.34 ms a message and 400 MB/s, as in model.Direct of the fmi.json that FMI publishes",
    )
}
"""By name: ``aws`` is a link between two functions. The source states neither jitter nor loss."""


def network_faults(conditions: LinkConditions) -> tuple[str, ...]:
    """Return the faults, in the language of `fmi_shim.faults`, that slow all links as given."""
    found = []
    if conditions.delay or conditions.jitter:
        jitter = f" jitter {_milliseconds(conditions.jitter)}" if conditions.jitter else ""
        found.append(f"slow link all by {_milliseconds(conditions.delay)}{jitter}")
    if conditions.rate:
        found.append(f"limit link all to {conditions.rate / 1e3:.3f}kbit")
    if conditions.loss:
        found.append(f"lose link all {conditions.loss * 100:.6f}%")
    return tuple(found)


def _milliseconds(duration: float) -> str:
    return f"{duration * 1e3:.9g}ms"
