"""Who may use the app: those who have the token of the address that the terminal shows, from the app's own pages."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlencode, urlsplit

from tornado.httputil import HTTPHeaders, HTTPServerRequest
from tornado.routing import Matcher, Rule
from tornado.web import Application, OutputTransform, RequestHandler

_REFUSED = "This app is somebody's own. Open it by the address, with its token, that the terminal shows.\n"


class Gate(Matcher):
    """Takes the requests that the app's pages must not answer.

    Other machines' names for this one (DNS rebinding), other sites' scripts (a websocket without the app's own origin)
    and other users of the machine (no token) are refused.

    Parameters
    ----------
    hosts
        Names with the port under which browsers may reach the app.
    token
        Is in the address at first, then in a cookie that no other site's page can send.
    """

    def __init__(self, hosts: Iterable[str], token: str, port: int) -> None:
        self.hosts, self.token, self.cookie = set(hosts), token, f"workbench-{port}"

    def match(self, request: HTTPServerRequest) -> dict[str, Any] | None:
        """Return None for a request that may pass."""
        cookie = request.cookies.get(self.cookie)
        known = cookie is not None and self.is_token(cookie.value)
        passes = known and self.is_own(request) and "token" not in request.arguments
        return None if passes else {"target_kwargs": {"gate": self}}

    def is_token(self, text: str) -> bool:
        """Return whether a text is the token."""
        return secrets.compare_digest(text.encode(), self.token.encode())

    def is_own(self, request: HTTPServerRequest) -> bool:
        """Return whether a request is to one of the app's names and, where it can do something, from its pages."""
        harmless = request.method in ("GET", "HEAD") and request.headers.get("Upgrade", "").lower() != "websocket"
        origin = urlsplit(request.headers.get("Origin", "")).netloc.lower()
        return request.host.lower() in self.hosts and (harmless or origin in self.hosts)


class Entry(RequestHandler):
    """Changes the token of the address into a cookie; refuses all else."""

    def initialize(self, gate: Gate) -> None:
        """Take the gate that sent the request here."""
        self.gate = gate

    def prepare(self) -> None:
        """Answer, whatever the method."""
        gate, request = self.gate, self.request
        given = self.get_query_argument("token", "")
        if request.method != "GET" or not gate.is_own(request) or not gate.is_token(given):
            self.set_status(403)
            self.set_header("Content-Type", "text/plain; charset=utf-8")
            self.finish(_REFUSED)
            return
        self.set_cookie(gate.cookie, gate.token, httponly=True, samesite="Strict")
        others = {key: self.get_query_arguments(key) for key in request.query_arguments if key != "token"}
        self.redirect(request.path + (f"?{urlencode(others, doseq=True)}" if others else ""))


class _Headers(OutputTransform):
    """Forbids other sites to frame the app's pages and to learn their addresses."""

    def transform_first_chunk(
        self, status_code: int, headers: HTTPHeaders, chunk: bytes, finishing: bool
    ) -> tuple[int, HTTPHeaders, bytes]:
        headers["Content-Security-Policy"] = "frame-ancestors 'none'"
        headers["X-Frame-Options"] = "DENY"
        headers["Referrer-Policy"] = "no-referrer"
        return status_code, headers, chunk


def close_gate(application: Application, gate: Gate) -> None:
    """Let an application answer only what the gate lets pass."""
    application.default_router.rules.insert(0, Rule(gate, Entry))
    application.add_transform(_Headers)
