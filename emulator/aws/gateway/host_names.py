"""The names of Route 53's records with their addresses, as /etc/hosts can have them."""

import ipaddress
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

# A wildcard is no name of a host.
_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9])?")
# Records that lead to each other in a circle have no address.
_LONGEST_CHAIN = 8


@dataclass(frozen=True)
class Record:
    """A record, of which only what leads to an address matters.

    Parameters
    ----------
    name
        The name, with or without the final dot.
    values
        Addresses (A, AAAA), or the other name (CNAME and aliases).
    """

    name: str
    values: tuple[str, ...]


def addresses(records: Iterable[Record], known: Mapping[str, str]) -> dict[str, str]:
    """Return the address of each name that leads to one, the first where it has several.

    Parameters
    ----------
    records
        The records.
    known
        Addresses of names that are no records, such as load balancers'.
    """
    values = {_plain(record.name): record.values for record in records if record.values}
    found = {name: _address(name, values, known) for name in values if _NAME.fullmatch(name)}
    return {name: address for name, address in found.items() if address is not None}


def records_of_moto() -> list[Record]:
    """Return the records of all zones that moto has; none while nobody has used its Route 53."""
    models = sys.modules.get("moto.route53.models")
    if models is None:
        return []
    # Copies: moto's threads change the originals.
    backends = [backend for account in [*models.route53_backends.values()] for backend in [*account.values()]]
    zones = [zone for backend in backends for zone in [*backend.zones.values()]]
    found = [record for zone in zones for record in [*zone.rrsets] if record.type in ("A", "AAAA", "CNAME")]
    return [
        Record(record.name, (record.alias_target["DNSName"],) if record.alias_target else tuple(record.records))
        # Of a name with addresses of both versions, the last counts.
        for record in sorted(found, key=lambda record: record.type != "AAAA")
    ]


def _address(name: str, values: Mapping[str, tuple[str, ...]], known: Mapping[str, str]) -> str | None:
    for _ in range(_LONGEST_CHAIN):
        if name not in values:
            return known.get(name)
        name = _plain(values[name][0])
        try:
            return str(ipaddress.ip_address(name))
        except ValueError:
            pass
    return None


def _plain(name: str) -> str:
    return name.rstrip(".").lower().removeprefix("dualstack.")
