"""The options that slow the network between ranks, and that put them behind NATs."""

import argparse
from collections.abc import Callable
from typing import Any

from emulator.aws.sandboxes.nat import Nat
from fmi_shim.faults import bits_per_second, seconds, share
from fmi_shim.link_model import LinkConditions
from fmi_shim.network_presets import NETWORK_PRESETS, network_faults

_NO_NAT = "none"


def add_network_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of links and NATs."""
    network = parser.add_argument_group(
        "network",
        "Links between ranks over direct TCP are as fast as given here, for processes and containers alike.",
    )
    network.add_argument(
        "--network",
        choices=sorted(NETWORK_PRESETS),
        help="links with published figures: aws: " + NETWORK_PRESETS["aws"].source,
    )
    network.add_argument(
        "--network-latency", type=_duration, metavar="TIME", help="one-way delay of each message, for example 2ms"
    )
    network.add_argument(
        "--network-jitter", type=_duration, metavar="TIME", help="longest additional delay, for example 0.5ms"
    )
    network.add_argument(
        "--network-bandwidth", type=_bandwidth, metavar="RATE", help="bits per second of each direction, e.g. 600mbit"
    )
    network.add_argument(
        "--network-loss", type=_loss, metavar="PERCENT", help="share of lost segments, at which TCP stalls, e.g. 0.1%%"
    )
    add_nat_option(network)


def add_nat_option(parser: Any) -> None:
    """Add the option of NATs to a parser or a group."""
    parser.add_argument(
        "--nat",
        choices=(_NO_NAT, *(kind.value for kind in Nat)),
        default=_NO_NAT,
        help="the NAT that each function is behind, in a network namespace of its own, which takes root: cone keeps "
        "ports, so that ranks connect by hole punching; symmetric draws another port for each destination, so that "
        "they need the rendezvous server's relay (default %(default)s)",
    )


def nat(options: argparse.Namespace) -> Nat | None:
    """Return the NAT that ``--nat`` selects."""
    return None if options.nat == _NO_NAT else Nat(options.nat)


def link_faults(options: argparse.Namespace) -> tuple[str, ...]:
    """Return the links that the options select, in the language of faults."""
    preset = NETWORK_PRESETS[options.network].conditions if options.network else LinkConditions()
    conditions = LinkConditions(
        preset.delay if options.network_latency is None else options.network_latency,
        preset.jitter if options.network_jitter is None else options.network_jitter,
        options.network_bandwidth or preset.rate,
        preset.loss if options.network_loss is None else options.network_loss,
    )
    return network_faults(conditions)


def _duration(text: str) -> float:
    return _as_argument(seconds, text)


def _bandwidth(text: str) -> float:
    return _as_argument(bits_per_second, text)


def _loss(text: str) -> float:
    return _as_argument(share, text)


def _as_argument(parse: Callable[[str], float], text: str) -> float:
    try:
        return parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
