# SPDX-License-Identifier: MIT
"""Serves the web page under /ui/: a fixed list of static files, with headers that make the browser block any other
content.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from aiohttp import web

from . import params
from .access import Right
from .errors import Fault
from .routes import Route, get

#: Media types of the served files, by file name; the name "" is the page itself. A request for a name that is not
#: listed here does not reach the file system.
_SCRIPT = "text/javascript; charset=utf-8"
FILES = {
    "": "text/html; charset=utf-8",
    "app.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
    "api.js": _SCRIPT,
    "app.js": _SCRIPT,
    "copy.js": _SCRIPT,
    "document.js": _SCRIPT,
    "documents.js": _SCRIPT,
    "dom.js": _SCRIPT,
    "files.js": _SCRIPT,
    "findings.js": _SCRIPT,
    "fleet.js": _SCRIPT,
    "format.js": _SCRIPT,
    "history.js": _SCRIPT,
    "holders.js": _SCRIPT,
    "live.js": _SCRIPT,
    "plot.js": _SCRIPT,
    "rows.js": _SCRIPT,
    "runs.js": _SCRIPT,
    "signin.js": _SCRIPT,
    "store.js": _SCRIPT,
    "stream.js": _SCRIPT,
    "table.js": _SCRIPT,
    "tree.js": _SCRIPT,
    "trouble.js": _SCRIPT,
    "zones.js": _SCRIPT,
}
_PAGE = "index.html"
_PREFIX = "/ui/"

#: Paths served without a token: the files contain no data, and a browser that opens the page has no token yet.
PUBLIC = frozenset(_PREFIX + name for name in FILES)

#: The page may run its own scripts and connect to this member only. The page may not be framed and may not submit
#: forms. Since no Trusted Types policy is allowed, a browser rejects every attempt to turn text into markup or code.
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    # The browser revalidates its cache each time, so after an upgrade the browser never combines an old script with a
    # new page.
    "Cache-Control": "no-cache",
}


def directory() -> Path:
    """Return the directory, inside this package, that contains the page's files."""
    return Path(__file__).parent.parent / "web"


class Page:
    """Handlers of /ui/ and the files below it. The constructor raises ``OSError`` if a file is missing from the
    package.
    """

    def __init__(self) -> None:
        self._files: dict[str, tuple[bytes, str]] = {}
        for name in FILES:
            content = (directory() / (name or _PAGE)).read_bytes()
            self._files[name] = (content, f'"{hashlib.blake2b(content, digest_size=12).hexdigest()}"')

    def routes(self) -> list[Route]:
        """Paths and handlers."""
        return [get(Right.PUBLIC, "/ui/", self.file), get(Right.PUBLIC, "/ui/{file}", self.file)]

    async def file(self, request: web.Request) -> web.Response:
        """Return one of the files, or 304 if the browser's cached copy is current."""
        params.query(request, ())
        name = request.match_info.get("file", "")
        # "/ui/" serves the page, whose name is ""; the pattern "/ui/{file}" cannot match an empty name.
        found = self._files.get(name)
        if found is None:
            raise Fault(404, "not_found", "no resource at this path", headers=HEADERS)
        content, etag = found
        headers = {**HEADERS, "ETag": etag}
        if params.matches(request.headers.get("If-None-Match"), etag):
            return web.Response(status=304, headers=headers)
        return web.Response(body=content, headers={**headers, "Content-Type": FILES[name]})
