"""What surrounds every answer: an access event, metrics, security headers, and limits. Pure ASGI, nothing is buffered.

An access event names the resource by its UIDs and never by what was searched for: no query string, no body, no value
of a data set. Middleware that wraps responses as a whole would break back-pressure, so this one only listens.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

import anyio
import structlog
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dicomweb.reading import UNNAMED
from runtime.metrics import HTTP_REQUESTS, HTTP_SECONDS
from schemas.identifiers import is_conforming_uid, is_tenant

TARGET_MAX_BYTES: Final = 32_768
LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_SECURITY_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-embedder-policy", b"require-corp"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
)
_CLOSED: Final = b"default-src 'none'; frame-ancestors 'none'"
#: RFC 9110 9.1 and RFC 5789; any other word is a stranger's own, and not repeated.
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})
_UID_NAMES: Final = {"study": "study_instance_uid", "series": "series_instance_uid", "instance": "sop_instance_uid"}
_log = structlog.get_logger()


class ClientTooSlow(Exception):
    """The next piece of an answer was not read in time: it is broken off, and what it held is freed."""


@dataclass(slots=True)
class _Answer:
    """What is known of an answer while it goes out."""

    status: int = 500
    sent_bytes: int = 0
    started: bool = False
    began_s: float = field(default_factory=time.monotonic)


class AccessMiddleware:
    """Around the whole application; `hosts` are the names it may be addressed by, or None for any.

    A server on loopback is reachable for every page a browser shows, by a name that its owner points to 127.0.0.1;
    checking the Host field is what keeps such pages out.
    """

    def __init__(
        self, app: ASGIApp, *, hosts: frozenset[str] | None, tenant: str, send_timeout_s: float = float("inf")
    ) -> None:
        self._app = app
        self._hosts = hosts
        self._tenant = tenant
        self._send_timeout_s = send_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer()
        listening = _listening(send, answer, self._send_timeout_s)
        try:
            refusal = self._refusal(scope)
            if refusal:
                await _refuse(listening, *refusal)
            else:
                await self._app(scope, receive, listening)
        except ClientTooSlow:
            _log.info("answer_broken_off", reason="not read in time")
        except Exception as error:  # noqa: BLE001 - whatever it is, the client is told, and not by a stack trace
            # The type alone: a message may quote what was read.
            _log.error("read_failed", error=type(error).__name__)
            # Of an answer that has begun nothing more is sent: the server breaks it off, as it is not complete.
            if not answer.started:
                await _refuse(listening, 500, "The server could not answer this; the reason is in its log.")
        finally:
            self._record(scope, answer)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        target_bytes = len(scope.get("raw_path") or b"") + len(scope.get("query_string", b""))
        if target_bytes > TARGET_MAX_BYTES:
            return 414, "The address is too long."
        if self._hosts is not None and _host(scope) not in self._hosts:
            return 421, "This server answers on loopback only, and not by this name."
        return None

    def _record(self, scope: Scope, answer: _Answer) -> None:
        found = scope.get("route")
        route = found.path if isinstance(found, Route) else ""
        service = service_of(scope["method"], scope["path"], route)
        elapsed_s = time.monotonic() - answer.began_s
        HTTP_REQUESTS.labels(service, f"{answer.status // 100}xx").inc()
        HTTP_SECONDS.labels(service).observe(elapsed_s)
        if service in ("health", "metrics", "asset"):
            return
        event = "instances_stored" if service == "stow" and answer.status < 400 else "resource_read"
        _log.info(event, service=service, **self._fields(scope, answer, route, elapsed_s))

    # What was asked for in vain is named only if it looks like a UID: anything may stand in an address.
    def _fields(self, scope: Scope, answer: _Answer, route: str, elapsed_s: float) -> dict[str, object]:
        parameters = scope.get("path_params", {})
        tenant = parameters.get("tenant", self._tenant)
        uids = {name: str(parameters[key]) for key, name in _UID_NAMES.items() if key in parameters}
        return {
            "method": scope["method"] if scope["method"] in _METHODS else "other",
            "route": route,
            "principal": UNNAMED,
            "tenant": tenant if is_tenant(tenant) else "",
            **{name: uid for name, uid in uids.items() if answer.status < 400 or is_conforming_uid(uid)},
            "status": answer.status,
            "sent_bytes": answer.sent_bytes,
            "elapsed_ms": round(1000 * elapsed_s, 1),
        }


def service_of(method: str, path: str, route: str) -> str:
    """The bounded name of what was asked: a metric label."""
    if path.startswith("/health"):
        return "health"
    if path == "/metrics":
        return "metrics"
    if "/dicom-web" in path:
        if not route:
            return "unknown"
        if method == "POST" and not route.startswith("/search/"):
            return "stow"
        if "/frames/" in route:
            return "frames"
        if "/bulkdata/" in route:
            return "bulkdata"
        if route.endswith("/metadata"):
            return "metadata"
        return "qido" if route.rsplit("/", 1)[-1] in ("studies", "series", "instances") else "wado"
    if route in ("/", "/list", "/list/version"):
        return "list"
    return "viewer" if path.startswith("/viewer") else "asset"


def loopback_hosts(bind_address: str) -> frozenset[str]:
    """The names a server bound to loopback may be addressed by."""
    return LOOPBACK_NAMES | {bind_address}


def _host(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"host":
            try:
                return (urlsplit(f"//{value.decode('latin-1')}").hostname or "").lower()
            except ValueError:
                return ""
    return ""


def _listening(send: Send, answer: _Answer, timeout_s: float) -> Send:
    async def listening(message: Message) -> None:
        if message["type"] == "http.response.start":
            answer.started, answer.status = True, message["status"]
            message = {**message, "headers": _hardened(list(message.get("headers", [])))}
        elif message["type"] == "http.response.body":
            answer.sent_bytes += len(message.get("body", b""))
        try:
            with anyio.fail_after(timeout_s):
                await send(message)
        except TimeoutError:
            raise ClientTooSlow from None

    return listening


def _hardened(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    present = {name.lower() for name, _ in headers}
    headers += [pair for pair in _SECURITY_HEADERS if pair[0] not in present]
    if b"content-security-policy" not in present:
        headers.append((b"content-security-policy", _CLOSED))
    if b"cache-control" not in present:
        headers.append((b"cache-control", b"no-store"))
    return headers


async def _refuse(send: Send, status: int, sentence: str) -> None:
    body = json.dumps({"error": sentence}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
