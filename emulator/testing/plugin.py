"""The pytest plugin: the fixtures ``fmi_world`` and ``local_cloud``, and the marker ``fmi``.

pytest imports this module in every run, so it imports what worlds need when a test asks for one.
"""

from __future__ import annotations

import io
import itertools
import os
import pdb  # noqa: T100 - for --pdb
import secrets
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
from _pytest._code.code import ReprEntryNative, ReprExceptionInfo, ReprFileLocation, ReprTraceback
from _pytest._io import TerminalWriter

if TYPE_CHECKING:
    from emulator.cloud import LocalCloud
    from emulator.testing.run import Presentation
    from emulator.testing.services import Services
    from emulator.testing.world import World

MARKER = "fmi"
_MARKER_HELP = (
    "fmi(world_size=..., channel=..., framed=..., timeout=..., max_timeout=...): the settings of fmi_world; a list for "
    "world_size, channel (direct, shm, redis, s3) or framed runs the test with each of its values"
)
_SCOPES = ("function", "session")
_SCOPE_OPTION = "local_cloud_scope"
_PARAMETERS = ("world_size", "channel", "framed")
_SETTINGS = ("timeout", "max_timeout")
# A world's time limit ends before pytest-timeout's: it names the ranks that hang.
_SHARE_OF_TIMEOUT = 0.8
_PACKAGES = ("emulator", "fmi_shim", "inference", "rendezvous")


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Declare the options of setup.cfg, pytest.ini or pyproject.toml."""
    _import_unchanged(pluginmanager)
    parser.addini(
        _SCOPE_OPTION,
        "session: one local cloud for all tests, emptied after each; function: a new one for each test",
        default="session",
    )


def _import_unchanged(pluginmanager: pytest.PytestPluginManager) -> None:
    """Leave the assertions of our packages as they are; pytest would rewrite a whole distribution that has a plugin.

    Rewriting takes longer than importing, and CPython 3.11 fails when two threads of the local cloud parse at once
    (https://github.com/python/cpython/issues/106905).
    """
    hook = pluginmanager.rewrite_hook
    marked: set[str] = getattr(hook, "_must_rewrite", set())  # no public function takes a mark back
    marked -= {name for name in marked if name.partition(".")[0] in _PACKAGES}
    getattr(hook, "_marked_for_rewrite_cache", {}).clear()


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    config.addinivalue_line("markers", _MARKER_HELP)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test once for each combination of its marker's values."""
    marker = metafunc.definition.get_closest_marker(MARKER)
    if marker is None or "fmi_world" not in metafunc.fixturenames:
        return
    settings = _Settings.of_marker(marker, metafunc.definition.nodeid)
    combinations = settings.combinations()
    if len(combinations) > 1 or any(settings.is_listed):
        metafunc.parametrize("fmi_world", combinations, indirect=True, ids=[_name(*values) for values in combinations])


def _name(world_size: int | None, channel: str, framed: bool) -> str:
    size = "" if world_size is None else f"n{world_size}-"
    return f"{size}{channel}{'' if framed else '-raw'}"


class _Settings:
    """The values of a marker."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = {"world_size": None, "channel": "direct", "framed": True, **values}
        self.is_listed = [isinstance(self._values[name], list | tuple) for name in _PARAMETERS]

    @classmethod
    def of_marker(cls, marker: pytest.Mark | None, node: str) -> _Settings:
        """Return the settings of a test's marker.

        Raises
        ------
        pytest.UsageError
            If it has an argument that is not known, or a value that is not allowed.
        """
        if marker is None:
            return cls({})
        unknown = marker.kwargs.keys() - {*_PARAMETERS, *_SETTINGS}
        if marker.args or unknown:
            what = f"positional arguments {marker.args}" if marker.args else f"argument {', '.join(sorted(unknown))}"
            raise pytest.UsageError(
                f"{node}: invalid marker fmi: {what}: expected {', '.join((*_PARAMETERS, *_SETTINGS))} by name"
            )
        settings = cls(marker.kwargs)
        settings._check(node)
        return settings

    def _check(self, node: str) -> None:
        channels = ("direct", "shm", "redis", "s3")
        for size, channel, framed in itertools.product(*(self._each(name) for name in _PARAMETERS)):
            if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
                raise pytest.UsageError(f"{node}: invalid world_size {size!r}: expected a whole number from 1")
            if channel not in channels:
                raise pytest.UsageError(f"{node}: invalid channel {channel!r}: expected one of {', '.join(channels)}")
            if not isinstance(framed, bool):
                raise pytest.UsageError(f"{node}: invalid framed {framed!r}: expected True or False")
        if not self.combinations():
            raise pytest.UsageError(f"{node}: channel shm has no mode without headers: expected framed=True")

    def _each(self, name: str) -> Sequence[Any]:
        value = self._values[name]
        return value if isinstance(value, list | tuple) else (value,)

    def combinations(self) -> list[tuple[int | None, str, bool]]:
        """Return world size, channel and framed of each run. Shared memory is framed always."""
        return [
            (size, channel, framed)
            for size, channel, framed in itertools.product(*(self._each(name) for name in _PARAMETERS))
            if framed or channel != "shm"
        ]

    def seconds(self, name: str) -> float | None:
        """Return a time, s, or None if it is not set."""
        value = self._values.get(name)
        if value is None:
            return None
        from fmi_shim.faults import seconds

        return seconds(value)


@pytest.fixture(scope="session")
def _fmi_services() -> Iterator[Services]:
    from emulator.testing.services import Services

    services = Services()
    yield services
    services.close()


class WorldFactory:
    """The fixture ``fmi_world``: makes worlds with the settings of the test's marker.

    ``fmi_world(4)`` is a world of 4 ranks, ``fmi_world()`` one of the marker's ``world_size``.

    Attributes
    ----------
    world_size
        The marker's number of ranks; None without one.
    channel, framed
        The marker's channel and mode.
    """

    def __init__(
        self,
        request: pytest.FixtureRequest,
        services: Services,
        values: tuple[int | None, str, bool],
        presentation: Presentation,
    ) -> None:
        self.world_size, self.channel, self.framed = values
        self._request = request
        self._services = services
        self._presentation = presentation
        self._settings = _Settings.of_marker(request.node.get_closest_marker(MARKER), request.node.nodeid)
        self._thread = threading.get_ident()
        self.worlds: list[World] = []

    def __call__(
        self,
        size: int | None = None,
        *,
        timeout: float | str | None = None,
        max_timeout: float | str | None = None,
        env: dict[str, str] | None = None,
        faults: str = "",
        seed: int | None = None,
    ) -> World:
        """Return a world.

        Parameters
        ----------
        size
            Number of ranks; by default the marker's.
        timeout
            Seconds until all ranks must have ended, or a text such as ``"500ms"``; by default the marker's, or 30 s,
            but less than pytest-timeout's limit.
        max_timeout
            The longest wait of a rank for another one; by default the marker's, or 20 s.
        env
            Further variables of the ranks.
        faults
            What fails, for example ``"kill rank 2 at allreduce 3"``; the language is in docs/testing.md.
        seed
            Decides what the faults leave to chance; without one, another seed for each world, which errors name.

        Raises
        ------
        WorldUsageError
            If a value is invalid, or no size is known.
        """
        from emulator.testing.errors import WorldUsageError
        from emulator.testing.launch import channel_named
        from emulator.testing.services import MissingServiceError
        from emulator.testing.world import DEFAULT_MAX_TIMEOUT_S, World
        from fmi_shim.faults import seconds

        if threading.get_ident() != self._thread:
            raise WorldUsageError(
                f"fmi_world was used in thread {threading.current_thread().name!r}: expected the thread that runs the "
                "test, because ranks are forked from it; in other threads use emulator.launch"
            )
        size = self.world_size if size is None else size
        if size is None:
            raise WorldUsageError(
                "missing world size: expected fmi_world(4), or fmi_world() with @pytest.mark.fmi(world_size=4)"
            )
        limit = seconds(timeout) if timeout is not None else self._settings.seconds("timeout")
        longest = seconds(max_timeout) if max_timeout is not None else self._settings.seconds("max_timeout")
        world = World(
            size,
            self._services,
            channel_named(self.channel),
            self.framed,
            self._limit() if limit is None else limit,
            DEFAULT_MAX_TIMEOUT_S if longest is None else longest,
            dict(env or {}),
            self._presentation,
            (faults,) if faults else (),
            secrets.randbelow(2**31) if seed is None else seed,
        )
        try:
            self._services.access(world.channel, world.framed, world.max_timeout_s)
        except MissingServiceError as error:
            pytest.skip(str(error))
        self.worlds.append(world)
        return world

    def _limit(self) -> float:
        """Return the default time limit, below pytest-timeout's."""
        from emulator.testing.world import DEFAULT_LIMIT_S

        marker = self._request.node.get_closest_marker("timeout")
        config = self._request.config
        given: Any = None
        if marker is not None:
            given = marker.args[0] if marker.args else marker.kwargs.get("timeout")
        elif config.pluginmanager.hasplugin("timeout"):
            given = config.getoption("timeout", None) or config.getini("timeout")
        limit = float(given) if given else 0.0
        return min(DEFAULT_LIMIT_S, limit * _SHARE_OF_TIMEOUT) if limit > 0 else DEFAULT_LIMIT_S


@pytest.fixture
def fmi_world(request: pytest.FixtureRequest, _fmi_services: Services, _fmi_presentation: Presentation) -> WorldFactory:
    """Make worlds of ranks: ``fmi_world(4)(function, *arguments)`` returns the values by rank."""
    values = getattr(request, "param", None)
    if values is None:
        marker = request.node.get_closest_marker(MARKER)
        (values,) = _Settings.of_marker(marker, request.node.nodeid).combinations()
    return WorldFactory(request, _fmi_services, values, _fmi_presentation)


@pytest.fixture(scope="session")
def _fmi_presentation(request: pytest.FixtureRequest) -> Iterator[Presentation]:
    from emulator.testing.run import Presentation

    config = request.config
    # The workers of pytest-xdist have no terminal.
    has_terminal = not hasattr(config, "workerinput")
    terminal = _standard_descriptors(config) if has_terminal else ()
    yield Presentation(
        format=_formatter(config),
        debugger=_debugger(config) if has_terminal else None,
        post_mortem=bool(config.getoption("usepdb", False)),
        terminal=terminal,
        lend_terminal=lambda: _without_capture(config),
        on_quit=_quit,
        on_output=_print_output if config.getoption("capture", "fd") == "no" else None,
    )
    for descriptor in terminal:
        os.close(descriptor)


def _quit() -> NoReturn:
    pytest.exit("Quitting debugger")


def _print_output(rank: int, text: str) -> None:
    for line in text.splitlines():
        print(f"[{rank}] {line}")


def _debugger(config: pytest.Config) -> Callable[[], Any]:
    module, name = config.getoption("usepdb_cls", None) or ("pdb", "Pdb")
    if (module, name) == ("pdb", "Pdb"):
        return pdb.Pdb
    debugger: Callable[[], Any] = getattr(import_module(module), name)
    return debugger


@contextmanager
def _without_capture(config: pytest.Config) -> Iterator[None]:
    manager = config.pluginmanager.getplugin("capturemanager")
    if manager is None:
        yield
        return
    manager.suspend(in_=True)
    try:
        yield
    finally:
        manager.resume()


def _standard_descriptors(config: pytest.Config) -> tuple[int, ...]:
    """Return copies of the command's own standard descriptors, which pytest captures."""
    with _without_capture(config):
        return tuple(os.dup(descriptor) for descriptor in range(3))


def _formatter(config: pytest.Config) -> Callable[[BaseException], str]:
    from fmi_shim.errors import FmiError

    style: Any = config.getoption("tbstyle", "auto")
    style = "long" if style in ("auto", "no") else style
    shows_all = config.getoption("fulltrace", False)

    def format_as_pytest(error: BaseException) -> str:
        found = pytest.ExceptionInfo.from_exception(error)
        if not shows_all:
            own = found.traceback.filter(lambda entry: not _is_internal(str(entry.path)))
            found.traceback = own or found.traceback
        text = io.StringIO()
        # The causes of the library's errors are its own.
        has_chain = shows_all or not isinstance(error, FmiError)
        found.getrepr(showlocals=True, style=style, chain=has_chain).toterminal(TerminalWriter(text))
        return text.getvalue()

    return format_as_pytest


def _is_internal(path: str) -> bool:
    import fmi_shim

    return path.startswith((str(Path(__file__).parent), str(Path(fmi_shim.__file__).parent)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the traceback of the rank where a failure began in place of the test's, and the output by rank."""
    report = yield
    factory = getattr(item, "funcargs", {}).get("fmi_world")
    if not report.failed or not isinstance(factory, WorldFactory):
        return report
    errors: Any = sys.modules.get("emulator.testing.errors")
    if call.excinfo is not None and errors is not None and isinstance(call.excinfo.value, errors.WorldError):
        report.longrepr = _representation(call.excinfo)
    if call.when == "call" and factory.worlds:
        outputs = factory.worlds[-1].output
        report.sections += [(f"Captured output of rank {rank}", text) for rank, text in enumerate(outputs) if text]
    return report


def _representation(raised: pytest.ExceptionInfo[Any]) -> ReprExceptionInfo:
    """Return what pytest prints of a world's error."""
    error = raised.value
    call = next((entry for entry in reversed(raised.traceback) if not _is_internal(str(entry.path))), None)
    where = "" if call is None else f"\nthe world was started at {call.path}:{call.lineno + 1}\n"
    first = error.first
    path, line = first.path, first.line
    if not path and call is not None:
        path, line = str(call.path), call.lineno + 1
    crash = ReprFileLocation(path, line, error.summary())
    return ReprExceptionInfo(ReprTraceback([ReprEntryNative([f"{error}\n{where}"])], None, "native"), crash)


def _cloud_scope(fixture_name: str, config: pytest.Config) -> Any:
    scope = config.getini(_SCOPE_OPTION)
    if scope not in _SCOPES:
        raise pytest.UsageError(f"invalid {_SCOPE_OPTION} {scope!r}: expected one of {', '.join(_SCOPES)}")
    return scope


@pytest.fixture(scope=_cloud_scope)
def local_cloud(request: pytest.FixtureRequest) -> Iterator[LocalCloud]:
    """Run a local cloud: ``local_cloud.client("s3")`` is a boto3 client of it, and so is ``boto3.client("s3")``.

    The setting ``local_cloud_scope`` says whether all tests share one, which is emptied after each of them.
    """
    if request.scope == "session":
        services: Services = request.getfixturevalue("_fmi_services")
        yield services.cloud
        return
    from emulator.cloud import LocalCloud

    with LocalCloud() as cloud:
        yield cloud


@pytest.fixture(autouse=True)
def _local_cloud_environment(request: pytest.FixtureRequest) -> Iterator[None]:
    """Have boto3's default session reach the local cloud in the tests that use it, and empty the cloud after them."""
    if "local_cloud" not in request.fixturenames:
        yield
        return
    cloud: LocalCloud = request.getfixturevalue("local_cloud")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in cloud.environment.items():
            patch.setenv(name, value)
        # The default session keeps the credentials that it has found first.
        patch.setattr("boto3.DEFAULT_SESSION", None)
        yield
    if request.config.getini(_SCOPE_OPTION) == "session":
        cloud.reset()
