"""What the endpoints take and give, and its description as OpenAPI."""

from typing import Any

import msgspec

from esper_lightning import __version__
from esper_lightning.nissa.alerts import Alert
from esper_lightning.nissa.events.store import FoundEvent
from esper_lightning.nissa.server.library import Entry
from esper_lightning.nissa.server.views import HeadView, RunPatch


class Acknowledgement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who looks after an alert."""

    who: str


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why a request was refused."""

    error: str


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """``status`` is ``ok`` or ``stopping``."""

    status: str
    version: str


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """How mission control itself stands.

    Attributes:
        runs: in the list, of which ``live`` go on and ``open`` are in memory.
        viewers: open streams.
        errors: looks for news that failed.
    """

    version: str
    uptime_s: float
    runs: int
    live: int
    open: int
    viewers: int
    errors: int


class RunFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One run in figures."""

    id: str
    name: str
    head: HeadView


_GIVEN: dict[str, Any] = {
    "/health": ("Whether it is well.", Health),
    "/api/status": ("How mission control itself stands.", Status),
    "/api/runs": ("The list of runs, the latest first.", list[Entry]),
    "/api/runs/{id}": ("Everything of one run.", RunPatch),
    "/api/metrics/summary": ("Figures of the runs that go on.", list[RunFigures]),
    "/api/alerts": ("All alerts, the active ones first.", list[Alert]),
    "/api/events": ("Events that have every word of q, or the latest.", list[FoundEvent]),
}

_TEXTS = {
    "/metrics": ("For Prometheus.", "text/plain"),
    "/api/stream": (
        "Server-sent events runs, alerts and run; Last-Event-ID takes it up again.",
        "text/event-stream",
    ),
    "/openapi.json": ("This document.", "application/json"),
    "/": ("The dashboard.", "text/html"),
}

_PARAMETERS: dict[str, list[dict[str, Any]]] = {
    "/api/events": [
        {"name": "q", "in": "query", "schema": {"type": "string", "maxLength": 200}},
        {"name": "run", "in": "query", "schema": {"type": "string", "maxLength": 200}},
        {
            "name": "limit",
            "in": "query",
            "schema": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 50},
        },
    ],
    "/api/stream": [
        {
            "name": "run",
            "in": "query",
            "schema": {"type": "array", "maxItems": 5, "items": {"type": "string"}},
        },
        {"name": "Last-Event-ID", "in": "header", "schema": {"type": "string"}},
    ],
}

_ID = {"name": "id", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}


def openapi() -> dict[str, Any]:
    """The interface as an OpenAPI 3.1 document."""
    kinds = [kind for _, kind in _GIVEN.values()] + [Alert, Acknowledgement, Failure]
    schemas, components = msgspec.json.schema_components(
        kinds, ref_template="#/components/schemas/{name}"
    )
    shape = dict(zip([*_GIVEN, "alert", "acknowledgement", "failure"], schemas, strict=True))

    def content(schema: Any, media_type: str = "application/json") -> dict[str, Any]:
        return {media_type: {"schema": schema}}

    def refused(why: str) -> dict[str, Any]:
        return {"description": why, "content": content(shape["failure"])}

    paths: dict[str, Any] = {}
    for path, (text, _) in _GIVEN.items():
        responses = {"200": {"description": text, "content": content(shape[path])}}
        paths[path] = {"get": {"summary": text, "responses": responses}}
    for path, (text, media_type) in _TEXTS.items():
        schema = {} if media_type == "application/json" else {"type": "string"}
        responses = {"200": {"description": text, "content": content(schema, media_type)}}
        paths[path] = {"get": {"summary": text, "responses": responses}}
    for path, parameters in _PARAMETERS.items():
        paths[path]["get"]["parameters"] = parameters
        paths[path]["get"]["responses"]["400"] = refused("An argument is not allowed.")
    paths["/api/stream"]["get"]["responses"]["503"] = refused("Too many people watch.")
    paths["/api/runs/{id}"]["get"]["parameters"] = [_ID]
    paths["/api/runs/{id}"]["get"]["responses"]["404"] = refused("There is no such run.")
    paths["/health"]["get"]["responses"]["503"] = {
        "description": "It is stopping.",
        "content": content(shape["/health"]),
    }
    paths["/api/alerts/{id}/ack"] = {
        "post": {
            "summary": "Somebody looks after an alert.",
            "parameters": [_ID],
            "security": [{"token": []}],
            "requestBody": {"required": True, "content": content(shape["acknowledgement"])},
            "responses": {
                "200": {"description": "The alert.", "content": content(shape["alert"])},
                "400": refused("The body is no acknowledgement."),
                "401": refused("The token is missing or wrong."),
                "409": refused("No alert of this id is firing, or nobody is named."),
                "413": refused("The body is too long."),
                "503": refused("The audit log cannot be written; nothing was changed."),
            },
        }
    }
    for path in paths.values():
        for operation in path.values():
            operation["responses"]["429"] = refused("Too many requests.")
    return {
        "openapi": "3.1.0",
        "info": {"title": "Mission control", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }
