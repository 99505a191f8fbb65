"""The OHIF viewer, served from its unpacked package as it needs it: at the root, with our configuration.

OHIF's bundles are addressed from the root and its route is ``/viewer``. Nothing may need the network at run time and
nothing may be sent there, so its service worker and sign-in pages are not served and its Content-Security-Policy
names no host but our own. Its configuration has one data source with one address: ours. Data sources that take an
address from the query string are not configured.
"""

from __future__ import annotations

import base64
import hashlib
import mimetypes
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Final

from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.routing import Route

from dicomweb.problems import NotFound, answering_problems

_HASHED: Final = re.compile(r"\.[0-9a-f]{16,}\.|^[0-9a-f]{16,}\.")
_INLINE: Final = re.compile(rb"<script>(.*?)</script>", re.DOTALL)
_UNWANTED: Final = frozenset({"sw.js", "google.js", "silent-refresh.html", "_headers", "_redirects", "serve.json"})
_TYPES: Final[Mapping[str, str]] = {
    ".wasm": "application/wasm",
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".woff2": "font/woff2",
    ".json": "application/json",
    ".css": "text/css",
}
_STATIC: Final = Path(__file__).parent / "static"


class Viewer:
    """A folder that may hold the viewer. It is looked at when asked, so that installing it needs no restart."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()

    @property
    def installed(self) -> bool:
        """Whether studies can be opened."""
        return (self._folder / "index.html").is_file()

    def routes(self) -> list[Route]:
        """The viewer's own addresses; the last one takes every path that nothing else took."""
        return [
            Route("/app-config.js", self._configuration, methods=["GET"]),
            Route("/init-service-worker.js", _no_service_worker, methods=["GET"]),
            Route("/viewer", self._index, methods=["GET"]),
            Route("/viewer/{rest:path}", self._index, methods=["GET"]),
            Route("/{path:path}", answering_problems(self._file), methods=["GET"]),
        ]

    async def _configuration(self, request: Request) -> Response:
        return FileResponse(
            _STATIC / "app-config.js", media_type="text/javascript", headers={"Cache-Control": "no-cache"}
        )

    async def _index(self, request: Request) -> Response:
        if not self.installed:
            return RedirectResponse("/", 303)
        page = (self._folder / "index.html").read_bytes()
        headers = {"Cache-Control": "no-cache", "Content-Security-Policy": content_security_policy(page)}
        return Response(page, media_type="text/html", headers=headers)

    async def _file(self, request: Request) -> Response:
        path = self._path(PurePosixPath(request.path_params["path"]))
        if path is None:
            raise NotFound("There is no such page or file.")
        media_type = _TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        lasting = "public, max-age=31536000, immutable" if _HASHED.search(path.name) else "no-cache"
        headers = {"Cache-Control": lasting, "Content-Security-Policy": _WORKER_POLICY}
        compressed = path.with_name(path.name + ".gz")
        if "gzip" in request.headers.get("accept-encoding", "") and compressed.is_file():
            headers |= {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
            path = compressed
        return FileResponse(path, media_type=media_type, headers=headers)

    def _path(self, name: PurePosixPath) -> Path | None:
        """The file of that name that may be served; None for everything else a stranger may think of."""
        if name.name in _UNWANTED or name.suffix == ".html":
            return None
        try:
            path = (self._folder / name).resolve()
            return path if path.is_relative_to(self._folder) and path.is_file() else None
        except (OSError, ValueError):  # too long a name, or one with a null
            return None


def content_security_policy(page: bytes) -> str:
    """A policy for the viewer's page: its own inline scripts by their hashes, and no host but ours."""
    hashes = (base64.b64encode(hashlib.sha256(script).digest()).decode() for script in _INLINE.findall(page))
    return _policy(" ".join(f"'sha256-{one}'" for one in hashes))


def _policy(scripts: str) -> str:
    return (
        f"default-src 'none'; script-src 'self' 'wasm-unsafe-eval' blob: {scripts}; worker-src 'self' blob:; "
        "connect-src 'self' blob: data:; img-src 'self' blob: data:; style-src 'self' 'unsafe-inline'; "
        "font-src 'self' data:; manifest-src 'self'; media-src 'self' blob:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )


#: A worker is ruled by the policy its script came with. The image decoders in them make functions from strings.
_WORKER_POLICY: Final = _policy("'unsafe-eval'")


async def _no_service_worker(request: Request) -> Response:
    return Response("// The viewer is always served fresh: there is no service worker.\n", media_type="text/javascript")
