import copy
import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fmi_shim import config
from fmi_shim.config import DirectConfig, Sharing
from fmi_shim.errors import ConfigError

PUBLISHED = {
    "backends": {
        "S3": {"enabled": "true", "bucket_name": "b", "s3_region": "eu-central-1", "timeout": "100"},
        "Direct": {"enabled": "true", "host": "10.0.0.1", "port": "10000", "max_timeout": "1000"},
    },
    "model": {"Direct": {"bandwidth": "400.0", "resolve_host_dns": "true"}, "FaaS": {}},
    "somebody's": ["own", "keys"],
}


def loaded(tmp_path: Path, content: object, **environment: str) -> config.Config:
    path = tmp_path / "fmi.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return config.load(path, environment)


def load(tmp_path: Path, content: object, **environment: str) -> DirectConfig:
    direct = loaded(tmp_path, content, **environment).direct
    assert direct is not None
    return direct


def direct(**settings: Any) -> dict[str, Any]:
    return {"backends": {"Direct": {"enabled": True, **settings}}}


def test_the_published_shape_with_its_strings_is_read(tmp_path: Path) -> None:
    assert load(tmp_path, PUBLISHED) == DirectConfig("10.0.0.1", 10000, 1.0, framed=False)


def test_numbers_and_booleans_may_be_json_ones(tmp_path: Path) -> None:
    loaded = load(tmp_path, direct(host="h", port=1234, max_timeout=0, framed=True))
    assert loaded == DirectConfig("h", 1234, None, framed=True)


def test_missing_keys_have_fmis_defaults(tmp_path: Path) -> None:
    assert load(tmp_path, direct()) == DirectConfig("127.0.0.1", 10000, 1.0, framed=False)


def test_the_environment_overrides_the_file(tmp_path: Path) -> None:
    loaded = load(tmp_path, PUBLISHED, FMI_RENDEZVOUS="localhost:4711", FMI_FRAMED="1")
    assert loaded == DirectConfig("localhost", 4711, 1.0, framed=True)
    assert load(tmp_path, direct(framed=True), FMI_FRAMED="0").framed is False


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("port", "ten", "1 to 65535"),
        ("port", 0, "1 to 65535"),
        ("port", 70000, "1 to 65535"),
        ("port", True, "1 to 65535"),
        ("port", 10000.0, "1 to 65535"),
        ("max_timeout", -1, "0 to"),
        ("max_timeout", None, "0 to"),
        ("host", 5, "non-empty string"),
        ("host", "", "non-empty string"),
        ("enabled", "yes", "true, false"),
        ("framed", 2, "true, false"),
    ],
)
def test_the_error_of_a_wrong_type_has_key_value_and_expected_values(
    tmp_path: Path, key: str, value: object, allowed: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, direct(**{key: value}))
    assert f"invalid backends.Direct.{key} {value!r}: expected " in str(caught.value)
    assert allowed in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[]", "the configuration must be a JSON object, got \\[\\]"),
        ({"backends": []}, "backends must be a JSON object, got \\[\\]"),
        ({"backends": {"Direct": 1}}, "backends.Direct must be a JSON object, got 1"),
        (
            {"backends": {"Direct": {"enabled": False}}},
            "no channel is enabled: expected true for backends.Direct.enabled",
        ),
        ({}, "no channel is enabled: expected true for backends.Direct.enabled"),
    ],
)
def test_an_invalid_file_is_a_config_error(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, content)


def test_a_file_is_parsed_once_until_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "fmi.json"
    path.write_text(json.dumps(PUBLISHED))
    first = config.load(path, {})
    assert config.load(path, {"OTHER": "1"}) is first
    path.write_text(json.dumps(direct(host="moved")))
    moved = config.load(path, {}).direct
    assert moved is not None
    assert moved.host == "moved"


def test_a_missing_file_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere.json: the configuration cannot be read: No such file"):
        config.load(tmp_path / "nowhere.json", {})


@pytest.mark.parametrize("value", ["host", ":1", "host:", "host:0", "host:99999", "host:x"])
def test_an_invalid_rendezvous_variable_is_a_config_error(tmp_path: Path, value: str) -> None:
    with pytest.raises(ConfigError, match=r"invalid FMI_RENDEZVOUS .*: expected host:port"):
        load(tmp_path, direct(), FMI_RENDEZVOUS=value)


def test_sharing_depends_on_hint_framed_mode_and_environment(tmp_path: Path) -> None:
    sharing = lambda content, **environment: loaded(tmp_path, content, **environment).sharing  # noqa: E731
    assert sharing(direct()) is Sharing.never
    assert sharing(direct(framed=True)) is Sharing.if_fast
    assert sharing(direct(), FMI_FRAMED="1") is Sharing.if_fast
    assert sharing(direct(framed=True), FMI_CHANNEL="network") is Sharing.never
    assert sharing(direct(), FMI_CHANNEL="shm") is Sharing.always
    assert loaded(tmp_path, direct(), FMI_CHANNEL="shm").framed
    redis = {"backends": {"Redis": {"enabled": True, "framed": True}}}
    assert sharing(redis) is Sharing.never
    with pytest.raises(ConfigError, match=r"FMI_CHANNEL is shm, but backends\.Direct is not enabled"):
        sharing(redis, FMI_CHANNEL="shm")


def test_an_invalid_framed_variable_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="environment: invalid FMI_FRAMED 'maybe'"):
        load(tmp_path, direct(), FMI_FRAMED="maybe")


def test_settings_are_read_as_published(tmp_path: Path) -> None:
    read = loaded(
        tmp_path,
        {
            "backends": {
                "S3": {"enabled": "true", "bucket_name": "b", "s3_region": "eu-west-1", "timeout": "50"},
                "Redis": {"enabled": True, "host": "h", "port": "6380", "timeout": 2, "max_timeout": 0},
            },
            "model": {
                "FaaS": {"gib_second_price": "0.5"},
                "S3": {"overhead": 7},
                "Redis": {
                    "bandwidth_single": "3.5",
                    "requests_per_hour": "10",
                    "include_infrastructure_costs": "false",
                },
            },
        },
        FMI_FRAMED="1",
    )
    assert read.direct is None
    assert read.s3 == config.S3Config(0.05, 1.0, True, "b", "eu-west-1")
    assert read.redis == config.RedisConfig(0.002, None, True, "h", 6380)
    assert read.framed
    assert (read.model.s3.overhead, read.model.s3.timeout, read.model.s3.max_timeout) == (7.0, 50, 1000)
    assert (read.model.redis.bandwidth_single, read.model.redis.requests_per_hour) == (3.5, 10)
    assert not read.model.redis.include_infrastructure_costs
    assert read.model.function.gib_second_price == 0.5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"backends": {"S3": {"enabled": True}}}, "invalid backends.S3.bucket_name '': expected a non-empty string"),
        (
            {"backends": {"Redis": {"enabled": True, "timeout": 0}}},
            "invalid backends.Redis.timeout 0: expected a whole",
        ),
        (
            {"backends": {"Redis": {"enabled": True}}, "model": {"formulas": "x"}},
            "invalid model.formulas 'x': expected",
        ),
        ({"backends": {"Redis": {"enabled": True}}, "model": {"S3": {"bandwidth": 0}}}, "expected a number above 0"),
        ({"backends": {"Redis": {"enabled": True}}, "model": {"S3": {"overhead": -1}}}, "expected a number from 0"),
        (
            {"backends": {"Redis": {"enabled": True}}, "model": {"S3": {"overhead": "a"}}},
            "invalid model.S3.overhead 'a'",
        ),
        ({"backends": {"Redis": {"enabled": True}, "Direct": {"enabled": True, "framed": True}}}, "all or none"),
    ],
)
def test_invalid_settings_are_config_errors(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        loaded(tmp_path, content)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
backends = st.sampled_from(["Direct", "Redis", "S3"])
keys = st.sampled_from(["enabled", "host", "port", "max_timeout", "framed", "bucket_name", "timeout", "other"])


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(json_values | st.builds(lambda name, d: {"backends": {name: d}}, backends, st.dictionaries(keys, json_values)))
def test_any_json_is_a_configuration_or_a_config_error(tmp_path: Path, content: object) -> None:
    require_sound(lambda: loaded(tmp_path, content))


def require_sound(load: Callable[[], config.Config]) -> None:
    """Load what must be a configuration of which each part can be used, or a ConfigError of one line."""
    try:
        read = load()
    except ConfigError as error:
        assert len(str(error)) < 1000
        assert "\n" not in str(error)
        return
    for server in (read.direct, read.redis):
        if server is not None:
            assert 1 <= server.port <= 65535
            server.host.encode("idna")
            assert server.max_timeout is None or 0 < server.max_timeout < 2**31
    assert read.s3 is None or read.s3.bucket_name


WHOLE = json.loads((Path(__file__).parents[2] / "examples" / "fmi.json").read_text())
STRANGE = [
    *(None, True, [], {}, [[]], {"": {}}, -1, 0, 2**64, 10**400, 0.5, 1e308, float("nan"), float("inf")),
    *("", " ", "x", "\0", "\ud800", "\u202e", "٣", "-0", "1e400", "0x10", "1_000", "true ", "127.0.0.1\n", "a..b"),
    "a" * 100_000,
]


def places(value: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places(inner, (*path, key))


def test_any_change_of_the_published_file_is_a_configuration_or_a_config_error(tmp_path: Path) -> None:
    for path in places(WHOLE):
        enabled = path[1] if path[:1] == ("backends",) and len(path) > 1 else "Direct"
        for strange in STRANGE:
            content = copy.deepcopy(WHOLE)
            content["backends"][enabled]["enabled"] = True
            at: Any = {"": content}
            for key in ("", *path)[:-1]:
                at = at[key]
            at[("", *path)[-1]] = strange
            whole = content if path else json.dumps(strange)
            require_sound(functools.partial(loaded, tmp_path, whole))


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 4000), st.binary(max_size=6), st.integers(0, 20))
def test_a_damaged_file_is_a_configuration_or_a_config_error(tmp_path: Path, at: int, noise: bytes, cut: int) -> None:
    data = bytearray(json.dumps(WHOLE).encode())
    at %= len(data)
    data[at : at + cut] = noise
    path = tmp_path / "damaged.json"
    path.write_bytes(data)
    require_sound(lambda: config.load(path, {}))


def test_a_file_of_extreme_depth_or_length_is_a_config_error(tmp_path: Path) -> None:
    for content in (
        "[" * 10**6,
        '{"a":' * 10**5,
        "9" * 10**6,
        '"' + "x" * 10**6,
        "-" * 10**5,
        '{"backends":{"S3":{}}' * 1000,
    ):
        with pytest.raises(ConfigError):
            loaded(tmp_path, content)


def test_a_duplicate_key_must_have_the_same_value(tmp_path: Path) -> None:
    twice = '{"backends": {"Direct": {"enabled": true, "port": 5, "port": %s}}}'
    assert load(tmp_path, twice % "5").port == 5
    with pytest.raises(ConfigError, match="duplicate key 'port' with the values 5 and 6"):
        load(tmp_path, twice % "6")
