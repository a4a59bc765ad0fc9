"""``fmi.json``: the published configuration, typed, with the parameters of the cost model.

Numbers may be JSON numbers or strings, booleans may be ``true`` or ``"true"``; unknown keys are ignored, as FMI
does. The environment overrides the file: ``FMI_RENDEZVOUS=host:port`` the server's address,
so that a script with a hard-coded host runs locally, ``FMI_FRAMED=1|0`` the framed mode, and ``FMI_CHANNEL`` the use
of shared memory: see `Sharing`.
"""

from __future__ import annotations

import enum
import functools
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from fmi_shim import prices
from fmi_shim.errors import ConfigError
from fmi_shim.typed_json import HOST, Section, is_host, is_integer, shown
from rendezvous.protocol import DEFAULT_PORT, Endpoint

RENDEZVOUS_VARIABLE = "FMI_RENDEZVOUS"
FRAMED_VARIABLE = "FMI_FRAMED"
CHANNEL_VARIABLE = "FMI_CHANNEL"
_VARIABLES = (RENDEZVOUS_VARIABLE, FRAMED_VARIABLE, CHANNEL_VARIABLE)

_DEFAULT_MAX_TIMEOUT_MS = 1000  # config/fmi.json of FMI
_LONGEST_MS = 2**31 - 1
_FROM_BACKENDS = ("timeout", "max_timeout", "full_duplex")


class ChannelName(enum.Enum):
    """A channel, by its key in ``fmi.json``; in alphabetic order, in which FMI compares them."""

    Direct = "Direct"
    Redis = "Redis"
    S3 = "S3"
    SharedMemory = "SharedMemory"
    """Not FMI's: for ranks on one host."""


class Formulas(enum.Enum):
    """Which model: FMI's published formulas, or those with their units and counts corrected."""

    compat = "compat"
    corrected = "corrected"


class Sharing(enum.Enum):
    """When memory that all ranks share on one host is used, by the value of ``FMI_CHANNEL``."""

    always = "shm"
    """In place of all channels; an error where the ranks share none."""
    never = "network"
    """As on AWS, where no two functions share memory."""
    if_fast = ""
    """Where they do, are framed, and the hint is ``fast``."""


@dataclass(frozen=True, slots=True)
class DirectConfig:
    """Settings of the Direct channel.

    Attributes
    ----------
    host, port
        The rendezvous server; a name is resolved whatever ``model.Direct.resolve_host_dns`` says, since the
        original takes a name without it for the address 255.255.255.255.
    max_timeout
        Longest wait for a peer in seconds, None to wait for ever. (Milliseconds in the file, 0 for ever.)
    framed
        Whether messages between ranks carry a header. All ranks must agree.
    """

    host: str
    port: int
    max_timeout: float | None
    framed: bool


@dataclass(frozen=True, slots=True)
class ObjectConfig:
    """Settings that the object channels share.

    Attributes
    ----------
    poll
        Longest pause between two polls for an object in seconds. (``timeout``, milliseconds, in the file; FMI
        pauses so long each time.)
    max_timeout
        Longest wait for an object in seconds, None to wait for ever. (Milliseconds in the file, 0 for ever.)
    framed
        Whether objects begin with a header. All ranks must agree.
    """

    poll: float
    max_timeout: float | None
    framed: bool


@dataclass(frozen=True, slots=True)
class S3Config(ObjectConfig):
    """Settings of the S3 channel: the bucket, which must exist, and its region."""

    bucket_name: str
    region: str


@dataclass(frozen=True, slots=True)
class RedisConfig(ObjectConfig):
    """Settings of the Redis channel: the server's address."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class FunctionModel:
    """``model.FaaS``: USD for a GiB-second."""

    gib_second_price: float = prices.USD_PER_GB_SECOND


@dataclass(frozen=True, slots=True)
class S3Model:
    """``model.S3``: MB/s, ms, USD a GB, USD a request; ``timeout``, ``max_timeout`` of ``backends.S3``, ms."""

    bandwidth: float = 50.0
    overhead: float = 40.4
    transfer_price: float = 0.0
    download_price: float = prices.PUBLISHED_S3_DOWNLOAD_USD
    upload_price: float = prices.PUBLISHED_S3_UPLOAD_USD
    timeout: int = 100
    max_timeout: int = 1000


@dataclass(frozen=True, slots=True)
class RedisModel:
    """``model.Redis``: MB/s of a flow and of all, ms, USD a GB, USD an hour; ``timeout`` of ``backends.Redis``, ms."""

    bandwidth_single: float = 100.0
    bandwidth_multiple: float = 400.0
    overhead: float = 5.2
    transfer_price: float = 0.0
    instance_price: float = prices.PUBLISHED_REDIS_USD_PER_HOUR
    requests_per_hour: int = 1000
    include_infrastructure_costs: bool = True
    timeout: int = 1


@dataclass(frozen=True, slots=True)
class DirectModel:
    """``model.Direct``: MB/s, ms, USD a GB, USD an hour; and whether exchanges go both ways at once (framed)."""

    bandwidth: float = 400.0
    overhead: float = 0.34
    transfer_price: float = 0.0
    vm_price: float = prices.PUBLISHED_VM_USD_PER_HOUR
    requests_per_hour: int = 1000
    include_infrastructure_costs: bool = True
    full_duplex: bool = False


@dataclass(frozen=True, slots=True)
class SharedMemoryModel:
    """``model.SharedMemory``: MB/s of copies while all ranks copy, ms until all ranks have reached a round.

    Fitted, in November 2026, to ``benchmarks.comparison --contestants shm --worlds 4`` on 2 cores, medians of 9 turns:
    a barrier 5.1 us and an allreduce of 8 bytes 6.6 us; of 16 MiB an allreduce 7.2 ms, a reduce 5.1 and a bcast 4.6,
    where the formulas say 6.7, 6.7 and 5.6. Busy cores halve the bandwidth, and so do cores that share no cache;
    processors with more memory channels copy faster.
    """

    bandwidth: float = 6000.0
    overhead: float = 0.005


@dataclass(frozen=True, slots=True)
class Model:
    """All parameters, and the formulas to put them in."""

    formulas: Formulas = Formulas.corrected
    function: FunctionModel = FunctionModel()
    direct: DirectModel = DirectModel()
    redis: RedisModel = RedisModel()
    s3: S3Model = S3Model()
    shared_memory: SharedMemoryModel = SharedMemoryModel()


Parameters = TypeVar("Parameters", FunctionModel, DirectModel, RedisModel, S3Model, SharedMemoryModel)


@dataclass(frozen=True, slots=True)
class Config:
    """All of ``fmi.json``.

    Attributes
    ----------
    direct, redis, s3
        The enabled channels' settings, None for those that are not.
    model
        The parameters of the choice between them.
    framed
        Whether messages carry headers, on every channel.
    sharing
        When shared memory is used; its ranks connect as `direct` configures.
    rendezvous
        The rendezvous server, where Direct or the environment names one.
    """

    direct: DirectConfig | None
    redis: RedisConfig | None
    s3: S3Config | None
    model: Model
    framed: bool
    sharing: Sharing
    rendezvous: Endpoint | None


def load(path: str | os.PathLike[str], environment: Mapping[str, str] = os.environ) -> Config:
    """Read the file at `path`, and `environment`.

    Raises
    ------
    ConfigError
        If the file cannot be read, is no JSON object, has a value of a wrong type (the message names key,
        value and what is allowed), enables no channel, or enables channels of which only some are framed.
    """
    return parse(_read(Path(path)), str(path), environment)


def parse(text: bytes, source: str, environment: Mapping[str, str] = os.environ) -> Config:
    """Return what `text`, the content of an ``fmi.json``, and `environment` say; errors name `source`. See `load`."""
    settings = tuple((name, environment[name]) for name in _VARIABLES if name in environment)
    return _parsed(text, source, settings)


@functools.lru_cache(16)
def _parsed(text: bytes, path: str, settings: tuple[tuple[str, str], ...]) -> Config:
    """Return what `text` says. The same is parsed once, in a zygote once for all the ranks that it forks."""
    root, environment = Section(_decoded(text, path), "", path), dict(settings)
    backends = root.section("backends")
    direct, redis, s3 = _direct(backends, environment), _redis(backends), _s3(backends)
    if environment.get(FRAMED_VARIABLE):
        framed = Section(dict(settings), "", "environment").boolean(FRAMED_VARIABLE, default=False)
        direct = direct and replace(direct, framed=framed)
        redis = redis and replace(redis, framed=framed)
        s3 = s3 and replace(s3, framed=framed)
    modes = {channel.framed for channel in (direct, redis, s3) if channel is not None}
    if not modes:
        raise ConfigError(
            f"{path}: no channel is enabled: expected true for backends.Direct.enabled, backends.Redis.enabled or "
            'backends.S3.enabled, e.g. {"backends": {"Direct": {"enabled": true, "host": "127.0.0.1", "port": 10000}}}'
        )
    if len(modes) > 1:
        raise ConfigError(f"{path}: framed is true for some of the enabled backends: expected all or none")
    model = _model(root.section("model"), direct, redis, s3)
    framed = modes.pop()
    sharing = _sharing(environment)
    if sharing is Sharing.always and direct is None:
        raise ConfigError(
            f"{path}: {CHANNEL_VARIABLE} is shm, but backends.Direct is not enabled: expected the address of the "
            "rendezvous server there"
        )
    if sharing is Sharing.if_fast and (direct is None or not framed):
        sharing = Sharing.never
    rendezvous = None if direct is None else Endpoint(direct.host, direct.port)
    if rendezvous is None and environment.get(RENDEZVOUS_VARIABLE):
        rendezvous = Endpoint(*_host_and_port(environment[RENDEZVOUS_VARIABLE]))
    return Config(direct, redis, s3, model, framed or sharing is Sharing.always, sharing, rendezvous)


def _sharing(environment: Mapping[str, str]) -> Sharing:
    channel = environment.get(CHANNEL_VARIABLE, "")
    try:
        return Sharing(channel)
    except ValueError:
        raise ConfigError(
            f"environment: invalid {CHANNEL_VARIABLE} {channel!r}: expected shm, network, or nothing"
        ) from None


def _direct(backends: Section, environment: Mapping[str, str]) -> DirectConfig | None:
    section = backends.section("Direct")
    if not section.boolean("enabled", default=False):
        return None
    host = section.host("host", default="127.0.0.1")
    port = section.integer("port", default=DEFAULT_PORT, lowest=1, highest=65535)
    if environment.get(RENDEZVOUS_VARIABLE):
        host, port = _host_and_port(environment[RENDEZVOUS_VARIABLE])
    return DirectConfig(host, port, _max_timeout(section), section.boolean("framed", default=False))


def _redis(backends: Section) -> RedisConfig | None:
    section = backends.section("Redis")
    if not section.boolean("enabled", default=False):
        return None
    return RedisConfig(
        poll=_poll(section, RedisModel().timeout),
        max_timeout=_max_timeout(section),
        framed=section.boolean("framed", default=False),
        host=section.host("host", default="127.0.0.1"),
        port=section.integer("port", default=6379, lowest=1, highest=65535),
    )


def _s3(backends: Section) -> S3Config | None:
    section = backends.section("S3")
    if not section.boolean("enabled", default=False):
        return None
    return S3Config(
        poll=_poll(section, S3Model().timeout),
        max_timeout=_max_timeout(section),
        framed=section.boolean("framed", default=False),
        bucket_name=section.text("bucket_name", default=""),
        region=section.text("s3_region", default="us-east-1"),
    )


def _poll(section: Section, default: int) -> float:
    return section.integer("timeout", default, lowest=1, highest=_LONGEST_MS) / 1000


def _max_timeout(section: Section) -> float | None:
    milliseconds = section.integer("max_timeout", _DEFAULT_MAX_TIMEOUT_MS, lowest=0, highest=_LONGEST_MS)
    return milliseconds / 1000 if milliseconds else None


def _model(section: Section, direct: DirectConfig | None, redis: RedisConfig | None, s3: S3Config | None) -> Model:
    """Return the model's parameters, with the published value where one is left out."""
    published = Model()
    formulas = section.one_of("formulas", [known.value for known in Formulas], published.formulas.value)
    section.section("Direct").boolean("resolve_host_dns", default=True)
    model = Model(
        Formulas(formulas),
        _parameters(section.section("FaaS"), published.function),
        _parameters(section.section("Direct"), published.direct),
        _parameters(section.section("Redis"), published.redis),
        _parameters(section.section("S3"), published.s3),
        _parameters(section.section("SharedMemory"), published.shared_memory),
    )
    if direct is not None:
        model = replace(model, direct=replace(model.direct, full_duplex=direct.framed))
    if redis is not None:
        model = replace(model, redis=replace(model.redis, timeout=round(redis.poll * 1000)))
    if s3 is not None:
        longest = round((s3.max_timeout or 0) * 1000)
        model = replace(model, s3=replace(model.s3, timeout=round(s3.poll * 1000), max_timeout=longest))
    return model


def _parameters(section: Section, published: Parameters) -> Parameters:
    read: dict[str, Any] = {}
    for field in fields(published):
        default = getattr(published, field.name)
        if field.name in _FROM_BACKENDS:
            continue
        if isinstance(default, bool):
            read[field.name] = section.boolean(field.name, default)
        elif isinstance(default, int):
            read[field.name] = section.integer(field.name, default, lowest=1, highest=_LONGEST_MS)
        else:
            read[field.name] = section.number(field.name, default, above_zero=field.name.startswith("bandwidth"))
    return replace(published, **read)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: the configuration cannot be read: {error.strerror or error}") from error


def _decoded(text: bytes, path: str) -> object:
    try:
        return json.loads(text, object_pairs_hook=_without_contradiction)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: the configuration is not valid JSON: {error}") from error


def _without_contradiction(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return the pairs of an object, in which a key may be repeated with its value alone."""
    found = dict(pairs)
    for key, value in pairs:
        if found[key] != value:
            raise ValueError(
                f"duplicate key {shown(key)} with the values {shown(value)} and {shown(found[key])}: expected one"
            )
    return found


def _host_and_port(text: str) -> tuple[str, int]:
    host, separator, port = text.rpartition(":")
    if not separator or not host or not is_integer(port) or not 1 <= int(port) <= 65535:
        raise ConfigError(
            f"environment: invalid {RENDEZVOUS_VARIABLE} {text!r}: expected host:port, e.g. 127.0.0.1:10000"
        )
    if not is_host(host):
        raise ConfigError(f"environment: invalid host in {RENDEZVOUS_VARIABLE} {text!r}: expected {HOST}")
    return host, int(port)
