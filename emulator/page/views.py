"""The routes of the page, what each shows, and how it is sent."""

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import jinja2
from aiohttp import web

from emulator.aws.credentials import Credentials
from emulator.aws.gateway.browser_requests import PAGE_ROOT
from emulator.aws.lambda_.core.function_registry import FunctionRegistry
from emulator.aws.lambda_.core.history import InvocationRecord, InvocationStatus
from emulator.aws.lambda_.core.invocations import LambdaService
from emulator.aws.lambda_.core.references import Reference
from emulator.aws.stepfunctions.core.records import ExecutionRecord
from emulator.errors import ApiError
from emulator.fmi.event_rank import rank_of
from emulator.fmi.sweep import shown
from emulator.fmi.sweep.table import parse_csv
from emulator.page.archive import RunArchive
from emulator.page.phases import PhaseLog
from emulator.page.runs import Run, RunState, group_runs
from emulator.page.storage import Storage
from emulator.page.timeline import Timeline, timeline
from fmi_shim.log_lines import Phase

_RUNS_SHOWN = 50
_CALLS_SHOWN = 200
# While something runs, the browser reloads the page after this many seconds.
_REFRESH_S = 2
_ARCHIVE_S = 1.0
_INLINE_TYPES = {"png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg"}
_TEXT_TYPES = {"json", "txt", "csv", "ecsv", "md", "py", "log"}
_FAILED = (InvocationStatus.FAILED, InvocationStatus.TIMED_OUT, InvocationStatus.THROTTLED)
# The page needs no script, fetches nothing from other sites and may not be framed by them.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
# An object's content is not trusted: the browser shows it in a sandbox, without an origin.
_OBJECT_HEADERS = {**HEADERS, "Content-Security-Policy": "default-src 'none'; sandbox; frame-ancestors 'none'"}


class Page:
    """The page.

    Parameters
    ----------
    functions
        The registry of functions.
    service
        The service that records their invocations.
    executions
        Returns the executions of the state machines.
    phases
        The times of the ranks' phases.
    url
        The endpoint's URL.
    credentials
        A key of the endpoint.
    recorded
        Returns the runs whose ranks have recorded what they do, the latest last.
    archive
        The runs of earlier endpoints, and where those of this one are kept; None to forget them.

    Attributes
    ----------
    templates
        The page's templates.
    """

    def __init__(
        self,
        functions: FunctionRegistry,
        service: LambdaService,
        executions: Callable[[], Sequence[ExecutionRecord]],
        phases: PhaseLog,
        url: str,
        credentials: Credentials,
        recorded: Callable[[], Sequence[str]],
        archive: RunArchive | None = None,
    ) -> None:
        self._functions = functions
        self._service = service
        self._executions = executions
        self._phases = phases
        self._url = url
        self._credentials = credentials
        self._recorded = recorded
        self._archive = archive
        self._archived: object = None
        self._storage: Storage | None = None
        self.templates = jinja2.Environment(
            loader=jinja2.PackageLoader("emulator.page"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.templates.filters.update(clock=_clock, instant=_instant, seconds=_seconds, size=_size)
        self.templates.globals.update(root=PAGE_ROOT, endpoint=url)

    def routes(self) -> list[web.AbstractRouteDef]:
        """Return the page's routes."""
        pages = {
            "": self._overview,
            "runs/{key}": self._run,
            "functions/{name}": self._function,
            "logs/{name}": self._log,
            "buckets/{name}": self._bucket,
            "objects/{name}": self._object,
            "sweeps/{name}": self._sweep,
            "style.css": self._style,
        }
        return [
            web.get("/_emulator", _redirect),
            *(web.get(PAGE_ROOT + path, view) for path, view in pages.items()),
            web.get(PAGE_ROOT + "{page:.*}", _missing),
        ]

    async def _overview(self, _: web.Request) -> web.Response:
        calls, runs = self._service.recent(), self._runs()
        by_function: dict[str, list[InvocationRecord]] = {}
        for call in calls:
            by_function.setdefault(call.function, []).append(call)
        return await self._html(
            "overview.html",
            refresh=any(call.ended is None for call in calls) or any(run.state is RunState.RUNNING for run in runs),
            runs=runs[:_RUNS_SHOWN],
            recorded=list(reversed(self._recorded()))[:_RUNS_SHOWN],
            functions=[
                (function, _call_counts(by_function.get(function.spec.name, []))) for function in self._functions.all()
            ],
            buckets=await self._query(Storage.buckets),
            now=time.time(),
        )

    async def _run(self, request: web.Request) -> web.Response:
        key = request.match_info["key"]
        run = next((run for run in self._runs() if run.key == key), None)
        if run is None:
            return await self._not_found(
                f"Unknown run {key!r}: the endpoint keeps the latest 10,000 invocations, and 200 runs with --state."
            )
        return await self._html(
            "run.html",
            refresh=run.state is RunState.RUNNING,
            run=run,
            now=time.time(),
            timeline=await self._drawn(run.calls, run.started, run.ended),
        )

    async def _function(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        try:
            function = self._functions.get(Reference.parse(name))
        except ApiError as error:
            return await self._not_found(error.message)
        calls = [call for call in self._service.recent() if call.function == name][-_CALLS_SHOWN:]
        running = any(call.ended is None for call in calls)
        latest = calls[-1].received if calls else 0.0
        # With calls from long before the latest, the bars would be dots.
        drawn = [call for call in calls if latest - call.received < 600]
        ended = None if running else max((call.ended or 0.0 for call in drawn), default=0.0)
        return await self._html(
            "function.html",
            refresh=running,
            function=function,
            reserved=self._functions.reserved(Reference.parse(name).key),
            timeline=await self._drawn(drawn, drawn[0].received if drawn else 0.0, ended),
        )

    async def _drawn(self, calls: Sequence[InvocationRecord], start: float, ended: float | None) -> Timeline:
        start = min([start, *(call.received for call in calls)])
        end = ended if ended is not None else time.time()
        return await asyncio.to_thread(timeline, calls, self._phases_of, start, end)

    async def _log(self, request: web.Request) -> web.Response:
        name, request_id = request.match_info["name"], request.query.get("request", "")
        call = None
        if request_id:
            past = [] if self._archive is None else [call for run in self._archive.past for call in run.calls]
            calls = [*self._service.recent(), *past]
            call = next((call for call in calls if call.request_id == request_id), None)
            if call is None or not call.log_stream:
                return await self._not_found(f"Unknown request {request_id!r} of function {name}: no log.")
            group, stream, began, ended = call.log_group, call.log_stream, call.received, call.ended
            lines = await self._query(lambda storage: storage.lines_of(group, stream, began, ended))
            lines = [line for line in lines if line.request_id in ("", request_id)]
        else:
            lines = await self._query(lambda storage: storage.lines(name))
        rank = None if call is None else rank_of(call).rank
        return await self._html("log.html", refresh=False, name=name, call=call, rank=rank, lines=lines)

    async def _bucket(self, request: web.Request) -> web.Response:
        bucket, prefix = request.match_info["name"], request.query.get("prefix", "")
        token = request.query.get("token", "")
        listing = await self._query(lambda storage: storage.listing(bucket, prefix, token))
        if listing is None:
            return await self._not_found(f"Unknown bucket {bucket!r}.")
        steps = prefix.split("/")[:-1]
        crumbs = [(step, "/".join(steps[: index + 1]) + "/") for index, step in enumerate(steps)]
        return await self._html(
            "bucket.html", refresh=False, bucket=bucket, prefix=prefix, crumbs=crumbs, listing=listing
        )

    async def _object(self, request: web.Request) -> web.Response:
        bucket, key = request.match_info["name"], request.query.get("key", "")
        content = await self._query(lambda storage: storage.content(bucket, key))
        if content is None:
            return await self._not_found(
                f"Object s3://{bucket}/{key} does not exist, or is too large to show: use aws s3 cp."
            )
        ending = key.rpartition(".")[2].lower()
        kind = _INLINE_TYPES.get(ending, "text/plain" if ending in _TEXT_TYPES else "application/octet-stream")
        response = web.Response(body=content, content_type=kind, charset="utf-8" if kind == "text/plain" else None)
        response.headers.update(_OBJECT_HEADERS)
        if kind == "application/octet-stream":
            response.headers["Content-Disposition"] = "attachment"
        return response

    async def _sweep(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        table = await self._query(lambda storage: storage.content(shown.BUCKET, f"{name}/{shown.TABLE}"))
        content = await self._query(lambda storage: storage.content(shown.BUCKET, f"{name}/{shown.STATUS}"))
        if table is None or content is None:
            return await self._not_found(f"Unknown sweep {name!r}.")
        try:
            rows, status = parse_csv(table.decode()), shown.SweepStatus.parse(content)
        except (ValueError, KeyError) as error:
            return await self._not_found(f"Sweep {name!r} is not one that fmi-emulator sweep wrote: {error!r}.")
        listing = await self._query(lambda storage: storage.listing(shown.BUCKET, f"{name}/", ""))
        figures = [item.key for item in listing.objects if item.key.endswith(".png")] if listing else []
        return await self._html(
            "sweep.html", refresh=bool(status.current), name=name, sweep=status, rows=rows, figures=figures
        )

    async def _style(self, _: web.Request) -> web.Response:
        text = self.templates.get_template("style.css").render()
        return with_headers(web.Response(text=text, content_type="text/css"))

    def _runs(self) -> list[Run]:
        runs = group_runs(self._executions(), self._service.recent())
        past = [] if self._archive is None else self._archive.past
        own = {run.key for run in runs}
        return sorted([*runs, *(run for run in past if run.key not in own)], key=lambda run: run.started, reverse=True)

    async def archive_runs(self) -> None:
        """Keep the runs that end, each second, until this is cancelled."""
        while True:
            await asyncio.sleep(_ARCHIVE_S)
            self.archive_ended_runs()

    def archive_ended_runs(self) -> None:
        """Keep the runs that have ended since the last time."""
        executions, calls = self._executions(), self._service.recent()
        seen = [len(executions), sum(one.stopped_at is None for one in executions), calls[-1:]]
        state = [*seen, sum(call.ended is None for call in calls)]
        if self._archive is not None and state != self._archived:
            self._archived = state
            self._archive.keep(group_runs(executions, calls))

    def _phases_of(self, call: InvocationRecord) -> list[Phase]:
        if call.started is None:
            return []
        return self._phases.phases(call.log_stream, call.started, call.ended or time.time())

    async def _query(self, query: Callable[[Storage], Any]) -> Any:
        """Query the endpoint in another thread: it answers in this one."""

        def run() -> Any:
            if self._storage is None:
                self._storage = Storage(self._url, self._credentials)
            return query(self._storage)

        return await asyncio.to_thread(run)

    async def _html(self, template: str, *, refresh: bool, status: int = HTTPStatus.OK, **values: Any) -> web.Response:
        """Return a page. It is rendered in a thread, since a thousand rows take a second."""
        render = self.templates.get_template(template).render
        text = await asyncio.to_thread(render, refresh_s=_REFRESH_S if refresh else None, **values)
        return with_headers(web.Response(text=text, content_type="text/html", status=status))

    async def _not_found(self, message: str) -> web.Response:
        return await self._html("missing.html", refresh=False, status=HTTPStatus.NOT_FOUND, message=message)


async def _redirect(_: web.Request) -> web.Response:
    return web.Response(status=HTTPStatus.MOVED_PERMANENTLY, headers={"Location": PAGE_ROOT})


async def _missing(request: web.Request) -> web.Response:
    return web.Response(
        status=HTTPStatus.NOT_FOUND, text=f"unknown page {request.path}: see {PAGE_ROOT}\n", headers=HEADERS
    )


def with_headers(response: web.Response) -> web.Response:
    """Add the headers of every page to a response, and return it."""
    response.headers.update(HEADERS)
    return response


def _call_counts(calls: Sequence[InvocationRecord]) -> dict[str, Any]:
    """Return the counts of a function's invocations."""
    return {
        "calls": len(calls),
        "running": sum(call.ended is None for call in calls),
        "failed": sum(call.status in _FAILED for call in calls),
        "cold": sum(call.cold for call in calls),
        "last": max((call.received for call in calls), default=None),
    }


def _clock(timestamp: float | datetime) -> str:
    at = timestamp if isinstance(timestamp, datetime) else datetime.fromtimestamp(timestamp, UTC)
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _instant(timestamp_ms: int) -> str:
    return f"{datetime.fromtimestamp(timestamp_ms / 1000, UTC):%m-%d %H:%M:%S.%f}"[:-3]


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return "\N{EN DASH}"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 100:
        return f"{seconds:.2f} s"
    return f"{seconds:.0f} s"


def _size(size: int) -> str:
    amount = float(size)
    for unit in ("B", "KB", "MB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GB"
