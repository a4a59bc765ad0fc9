"""The pages of runs whose ranks record their calls: what each does now, by server-sent events; profile and trace."""

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from http import HTTPStatus
from typing import TYPE_CHECKING, TypeVar

import jinja2
from aiohttp import web

from emulator.aws.gateway.browser_requests import PAGE_ROOT
from emulator.page.views import HEADERS, with_headers

if TYPE_CHECKING:
    from emulator.fmi.telemetry.history import History
    from emulator.fmi.telemetry.hub import Telemetry
    from emulator.fmi.telemetry.live import Live

_PAUSE_S = 0.5
_MOST_STREAMS = 20
_T = TypeVar("_T")
# This page alone has a script, which receives the events; both are the endpoint's own.
_POLICY = HEADERS["Content-Security-Policy"] + "; script-src 'self'; connect-src 'self'"


class Recordings:
    """The pages below ``recordings/``.

    Parameters
    ----------
    templates
        The page's templates.
    telemetry
        The runs; None if ranks cannot send their events to this endpoint.
    """

    def __init__(self, templates: jinja2.Environment, telemetry: "Telemetry | None") -> None:
        self._templates = templates
        self._telemetry = telemetry
        self._streams: set[asyncio.Task[None]] = set()

    def routes(self) -> list[web.AbstractRouteDef]:
        """Return the routes; none without telemetry."""
        if self._telemetry is None:
            return []
        views = {
            "recordings/live.js": self._script,
            "recordings/{job}": self._page,
            "recordings/{job}/events": self._events,
            "recordings/{job}/trace.json": self._trace,
        }
        return [web.get(PAGE_ROOT + path, view) for path, view in views.items()]

    async def close(self) -> None:
        """End the streams of events."""
        for stream in self._streams:
            stream.cancel()
        await asyncio.gather(*self._streams, return_exceptions=True)

    async def _page(self, request: web.Request) -> web.Response:
        from emulator.fmi.telemetry.live import Live
        from emulator.fmi.telemetry.profile import profile, profile_text

        job, live = request.match_info["job"], Live()

        def read(history: "History") -> dict[str, object]:
            has_ended = history.has_ended
            return {
                "ranks": live.ranks(history, time.time_ns()),
                "started": min((rank.started for rank in history.ranks.values() if rank.started), default=0) / 1e9,
                "has_ended": has_ended,
                "dropped": history.dropped,
                "failures": [
                    f"rank {rank.rank}: {failure.error}" for rank in history.ranks.values() for failure in rank.failures
                ],
                "profile": profile_text(profile(history)) if has_ended else "",
            }

        values = await self._read(job, read)
        if values is None:
            return await self._not_found(job)
        template = self._templates.get_template("recording.html")
        text = await asyncio.to_thread(template.render, refresh_s=None, job=job, **values)
        response = with_headers(web.Response(text=text, content_type="text/html"))
        response.headers["Content-Security-Policy"] = _POLICY
        return response

    async def _trace(self, request: web.Request) -> web.Response:
        from emulator.fmi.telemetry.trace import trace_lines

        job = request.match_info["job"]
        text = await self._read(job, lambda history: "".join(trace_lines(history)))
        if text is None:
            return await self._not_found(job)
        response = with_headers(web.Response(text=text, content_type="application/json"))
        response.headers["Content-Disposition"] = 'attachment; filename="trace.json"'
        return response

    async def _script(self, _: web.Request) -> web.Response:
        text = self._templates.get_template("live.js").render()
        return with_headers(web.Response(text=text, content_type="text/javascript"))

    async def _events(self, request: web.Request) -> web.StreamResponse:
        """Send what each rank does as server-sent events, until the run has ended or the reader leaves."""
        from emulator.fmi.telemetry.live import Live

        job = request.match_info["job"]
        if await self._read(job, lambda _: True) is None:
            return await self._not_found(job)
        if len(self._streams) >= _MOST_STREAMS:
            return web.Response(status=HTTPStatus.SERVICE_UNAVAILABLE, text="too many pages follow runs: close some\n")
        response = web.StreamResponse(headers={**HEADERS, "Content-Type": "text/event-stream"})
        await response.prepare(request)
        task = asyncio.ensure_future(self._send(response, job, Live()))
        self._streams.add(task)
        try:
            with suppress(ConnectionError, asyncio.CancelledError):
                await task
        finally:
            task.cancel()
            self._streams.discard(task)
        return response

    async def _send(self, response: web.StreamResponse, job: str, live: "Live") -> None:
        last = ""
        while True:
            found = await self._read(job, lambda history: (live.ranks(history, time.time_ns()), history.has_ended))
            if found is None:
                return
            ranks, has_ended = found
            text = json.dumps({"ranks": [asdict(rank) for rank in ranks], "ended": has_ended})
            if text != last:
                last = text
                await response.write(f"data: {text}\n\n".encode())
            if has_ended:
                return
            await asyncio.sleep(_PAUSE_S)

    async def _read(self, job: str, read: Callable[["History"], _T]) -> _T | None:
        """Return what `read` makes of a run's history, in a thread; None if there is no such run."""
        telemetry = self._telemetry
        assert telemetry is not None  # noqa: S101 - there are no routes without

        def work() -> _T | None:
            past = telemetry.past(job)
            if past is not None:
                return read(past)
            if job not in telemetry.jobs():
                return None
            with telemetry.history(job) as history:
                return read(history)

        return await asyncio.to_thread(work)

    async def _not_found(self, job: str) -> web.Response:
        render = self._templates.get_template("missing.html").render
        message = (
            f"Unknown run {job!r}: its ranks have recorded nothing here. Set FMI_TELEMETRY=bus in their environment."
        )
        text = await asyncio.to_thread(render, refresh_s=None, message=message)
        return with_headers(web.Response(text=text, content_type="text/html", status=HTTPStatus.NOT_FOUND))
