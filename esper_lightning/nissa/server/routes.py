"""The endpoints."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from esper_lightning import __version__
from esper_lightning.leyline import InvalidArgument
from esper_lightning.nissa.alerts import Alert
from esper_lightning.nissa.server.documents import (
    Acknowledgement,
    Failure,
    Health,
    RunFigures,
    Status,
    openapi,
)
from esper_lightning.nissa.server.guard import body_of, has_token
from esper_lightning.nissa.server.mission import Mission
from esper_lightning.nissa.server.pages import pages
from esper_lightning.nissa.server.stream import MAX_WATCHED, is_full, stream

log = logging.getLogger(__name__)

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MAX_QUERY = 200
"""Characters of a search."""

MAX_FOUND = 1_000
"""Events that a search gives at most."""

NO_AUDIT = "the audit log cannot be written, and so nothing was changed; the server's log says why"

Endpoint = Callable[[Request], Awaitable[Response]]


def routes(mission: Mission) -> list[Route]:
    """All of them; nothing that is not here is answered."""
    api = _Api(mission)
    reads: Mapping[str, Endpoint] = {
        "/health": api.health,
        "/metrics": api.metrics,
        "/api/status": api.status,
        "/api/runs": api.runs,
        "/api/runs/{id}": api.run,
        "/api/metrics/summary": api.summary,
        "/api/alerts": api.alerts,
        "/api/events": api.events,
        "/api/stream": api.stream,
        "/openapi.json": api.openapi,
    }
    return [
        *(Route(path, endpoint, methods=["GET"]) for path, endpoint in reads.items()),
        Route("/api/alerts/{id}/ack", api.acknowledge, methods=["POST"]),
        Route("/", api.page, methods=["GET"]),
        Route("/{name}", api.page, methods=["GET"]),
    ]


def error_handlers() -> Mapping[Any, Any]:
    """Answers to what goes wrong: JSON that says what, and nothing of the inside."""

    async def http_error(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        headers = dict(error.headers or {})
        return _json(Failure(error=error.detail), status=error.status_code, headers=headers)

    async def unforeseen(_: Request, __: Exception) -> Response:
        return _json(Failure(error="the server failed; its log says why"), status=500)

    return {HTTPException: http_error, 500: unforeseen}


class _Api:
    """The endpoints of one mission."""

    def __init__(self, mission: Mission) -> None:
        self.mission = mission
        self._pages = pages()
        self._openapi = msgspec.json.encode(openapi())

    async def health(self, _: Request) -> Response:
        """Whether news are still heard."""
        is_well = not self.mission.feed.closed
        told = Health(status="ok" if is_well else "stopping", version=__version__)
        return _json(told, status=200 if is_well else 503)

    async def metrics(self, _: Request) -> Response:
        """For Prometheus."""
        body = await asyncio.to_thread(self.mission.exposition)
        return Response(body, headers={"content-type": METRICS_TYPE})

    async def status(self, _: Request) -> Response:
        """How mission control itself stands."""
        entries = self.mission.library.entries
        return _json(
            Status(
                version=__version__,
                uptime_s=time.monotonic() - self.mission.started,
                runs=len(entries),
                live=sum(entry.live for entry in entries),
                open=self.mission.library.num_open,
                viewers=self.mission.num_viewers,
                errors=self.mission.errors,
            )
        )

    async def runs(self, _: Request) -> Response:
        """The list of runs."""
        return _json(self.mission.library.entries)

    async def run(self, request: Request) -> Response:
        """Everything of one run."""
        patch = await asyncio.to_thread(self.mission.library.open, request.path_params["id"])
        if patch is None:
            raise HTTPException(404, "there is no such run; /api/runs lists those that are")
        return _json(patch)

    async def summary(self, _: Request) -> Response:
        """The figures of live runs, and of the latest one where none is live."""
        entries = self.mission.library.entries
        chosen = [entry for entry in entries if entry.live][:8] or list(entries[:1])
        figures = []
        for entry in chosen:
            patch = await asyncio.to_thread(self.mission.library.open, entry.id)
            if patch is not None and patch.head is not None:
                figures.append(RunFigures(id=entry.id, name=entry.name, head=patch.head))
        return _json(figures)

    async def alerts(self, _: Request) -> Response:
        """All alerts."""
        return _raw(await asyncio.to_thread(self.mission.alerts_now))

    async def acknowledge(self, request: Request) -> Response:
        """Somebody looks after an alert; what cannot be written down is not done."""
        alert_id = request.path_params["id"]
        client = request.client.host if request.client else ""
        who = ""

        def write(status: HTTPStatus, detail: str = "") -> None:
            try:
                self.mission.audit.write(
                    client=client,
                    action="acknowledge",
                    target=alert_id,
                    who=who,
                    status=int(status),
                    detail=detail,
                )
            except OSError as error:
                log.error("the audit log %s cannot be written: %s", self.mission.audit.path, error)
                raise HTTPException(503, NO_AUDIT) from error

        def acknowledge() -> Alert:
            return self.mission.alerts.acknowledge(
                alert_id, who, note=lambda _: write(HTTPStatus.OK)
            )

        if not has_token(request, self.mission.token):  # who has none is not even listened to
            status, why = HTTPStatus.UNAUTHORIZED, "this needs the token"
        elif (body := await body_of(request)) is None:
            status, why = HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the body is too long"
        else:
            try:
                who = msgspec.json.decode(body, type=Acknowledgement).who
                alert = await asyncio.to_thread(acknowledge)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                status, why = HTTPStatus.BAD_REQUEST, str(error)[:200]
            except InvalidArgument as error:
                status, why = HTTPStatus.CONFLICT, str(error)
            else:
                self.mission.tell_alerts(await asyncio.to_thread(self.mission.alerts_now))
                return _json(alert)
        await asyncio.to_thread(write, status, why)
        headers = {"www-authenticate": "Bearer"} if status == HTTPStatus.UNAUTHORIZED else {}
        return _json(Failure(error=why), status=int(status), headers=headers)

    async def events(self, request: Request) -> Response:
        """Events that have every word."""
        text, run_id = request.query_params.get("q", ""), request.query_params.get("run", "")
        given = request.query_params.get("limit", "50")
        limit = int(given) if given.isascii() and given.isdecimal() and len(given) < 6 else 0
        if len(text) > MAX_QUERY or len(run_id) > MAX_QUERY or not 1 <= limit <= MAX_FOUND:
            raise HTTPException(
                400, f"q and run have at most {MAX_QUERY} characters; limit is 1 to {MAX_FOUND}"
            )

        def search() -> bytes:
            return msgspec.json.encode(list(self.mission.events.search(text, limit, run_id=run_id)))

        return _raw(await asyncio.to_thread(search))

    async def stream(self, request: Request) -> Response:
        """The live stream."""
        runs = list(dict.fromkeys(request.query_params.getlist("run")))
        if len(runs) > MAX_WATCHED:
            raise HTTPException(400, f"a stream watches at most {MAX_WATCHED} runs")
        if is_full(self.mission):
            raise HTTPException(503, "too many people watch", headers={"retry-after": "30"})
        last = request.headers.get("last-event-id", "")
        return StreamingResponse(
            stream(self.mission, runs, last),
            media_type="text/event-stream",
            headers={"cache-control": "no-store", "x-accel-buffering": "no"},
        )

    async def openapi(self, _: Request) -> Response:
        """This interface as OpenAPI."""
        return _raw(self._openapi)

    async def page(self, request: Request) -> Response:
        """A file of the dashboard."""
        page = self._pages.get(request.path_params.get("name", "index.html"))
        if page is None:
            raise HTTPException(404, "there is nothing of this name")
        headers = {"etag": page.tag, "cache-control": "no-cache", "content-type": page.media_type}
        if request.headers.get("if-none-match") == page.tag:
            return Response(status_code=304, headers=headers)
        return Response(page.body, headers=headers)


def _json(told: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return _raw(msgspec.json.encode(told), status=status, headers=headers)


def _raw(body: bytes, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(
        body,
        status_code=status,
        media_type="application/json",
        headers={"cache-control": "no-store", **(headers or {})},
    )
