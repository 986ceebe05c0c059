"""Who may use the server: keys as bearer tokens, compared in constant time, before anything of a request is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from hmac import compare_digest

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from umbel.serve.errors import ApiError, api_response

OPEN_PATHS = frozenset({"/health", "/ping"})
"""What answers without a key: whether the server is there, for load balancers."""
COOKIE = "umbel_key"
"""The cookie that may hold the key for pages in a browser, which cannot send headers."""
EVERYONE = "everyone"


class RequireKey:
    """Refuses requests without one of the `keys`; without keys, lets all in. The tenant of a request, a name that
    stands for its key, is `request.scope["tenant"]`. `sign_in` is what browsers get that ask for a page without one."""

    def __init__(self, app: ASGIApp, keys: Sequence[str] = (), sign_in: Callable[[], Response] | None = None):
        self.app, self._sign_in = app, sign_in
        self._digests = {sha256(key.encode()).digest(): tenant_of(key) for key in keys}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        scope["tenant"] = tenant = self._tenant(scope)
        if tenant is None and scope["path"] not in OPEN_PATHS:
            await self._refusal(scope)(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response:
        if self._sign_in is not None and scope["method"] == "GET" and b"text/html" in _header(scope, b"accept"):
            return self._sign_in()
        message = "the API key is missing or wrong: send Authorization: Bearer KEY"
        refusal = api_response(ApiError(401, "invalid_api_key", message))
        refusal.headers["WWW-Authenticate"] = "Bearer"
        return refusal

    def _tenant(self, scope: Scope) -> str | None:
        if not self._digests:
            return EVERYONE
        given = sha256(_key_in(scope)).digest()
        found = None
        for digest, tenant in self._digests.items():  # all of them, so that time says nothing of which
            if compare_digest(digest, given):
                found = tenant
        return found


def tenant_of(key: str) -> str:
    """A name that stands for a key in stores and figures, and does not give it away."""
    return sha256(b"umbel tenant " + key.encode()).hexdigest()[:16]


def tenant_in(request: Request) -> str | None:
    """Whose KV the rows of a request may share: those of its key; None where there are no keys, for that of all."""
    tenant: str = request.scope["tenant"]
    return None if tenant == EVERYONE else tenant


def _header(scope: Scope, name: bytes) -> bytes:
    """The value of a header, b"" where it is not sent."""
    return next((value for found, value in scope["headers"] if found == name), b"")


def _key_in(scope: Scope) -> bytes:
    """The key that a request gives, b"" for none."""
    headers = dict(scope["headers"])
    scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer":
        return key.strip()
    for part in headers.get(b"cookie", b"").split(b";"):
        name, _, value = part.strip().partition(b"=")
        if name == COOKIE.encode() and scope["method"] in ("GET", "HEAD"):  # another site cannot have it change things
            return value
    return b""
