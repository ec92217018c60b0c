"""
The page at `/` and the files it is made of, with the headers that keep a browser from loading anything else.

The files speak to the public API like any other client; nothing here knows what they show. All of them are revalidated
by ETag, so that a new version is a new page at once, and all their links are relative, so that any prefix will do.
"""

import mimetypes
from pathlib import Path

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

STATIC = Path(__file__).parent / "static"
ASSETS = "/assets"
HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self'",
            "font-src 'self'",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
mimetypes.add_type("text/javascript", ".js")  # as the standard has it; Python 3.11 and some systems say otherwise
mimetypes.add_type("font/woff2", ".woff2")  # unknown where the system has no list of types, as in slim images


class _Files(StaticFiles):
    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(HEADERS)
        return response


def add_page(app: FastAPI) -> None:
    """Serve the page at `/` and its files under ASSETS."""
    pages = _Files(directory=STATIC)

    async def page(request: Request) -> Response:
        return await pages.get_response("index.html", request.scope)

    app.add_route("/", page, include_in_schema=False)
    app.mount(ASSETS, _Files(directory=STATIC / "assets"))
