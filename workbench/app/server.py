"""The app's server, on this machine only by default, who may use it, and the page that every tab of a browser gets."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import secrets
import socket
import threading
import webbrowser
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import holoviews as hv
import panel as pn
from tornado.httputil import HTTPHeaders, HTTPServerRequest
from tornado.routing import Matcher, Rule
from tornado.web import Application, OutputTransform, RequestHandler

from ..charts import theme
from ..core.errors import WorkbenchError
from ..export.pages import DARK
from . import viewer
from .components import Screen
from .jobs import Runner
from .pages import PAGES
from .session import Session

LOCAL = "127.0.0.1"
PORT = 5007
_MESSAGES = "bokeh.server.protocol_handler"  # its logger, of browsers' messages that raised an error
_REFRESH = 300  # between two looks at the jobs [ms]
_TEMPLATE, _STYLE = (Path(__file__).with_name(name) for name in ("page.html", "page.css"))
# colours of the page, those of Panel's widgets among them
_LIGHT_COLOURS = {
    "color-scheme": "light", "--wb-page": "#f6f8fa", "--wb-ink": theme.INK, "--wb-muted": theme.MUTED,
    "--wb-line": "#dfe6ec", "--wb-soft": "#e9eef3", "--wb-link": "#00639c", "--wb-good": "#00674b",
    "--wb-bad": "#a33100", "--wb-focus": "#0072b2", "--wb-edge": "#8a97a3", "--wb-caret": "#14202b",
}  # fmt: skip
_DARK_COLOURS = {
    "color-scheme": "dark", "--wb-page": "#0c1319", "--wb-ink": DARK[theme.INK], "--wb-muted": DARK[theme.MUTED],
    "--wb-line": DARK[theme.GRID], "--wb-soft": "#1d2a34", "--wb-link": "#6cb8ec", "--wb-good": "#5fd3ae",
    "--wb-bad": "#ff9d75", "--wb-focus": "#6cb8ec", "--wb-edge": "#667886",
    "--wb-caret": "#e4eaf0", "--design-background-color": DARK[theme.PAPER],
    "--design-background-text-color": DARK[theme.INK], "--design-surface-color": "#1d2a34",
    "--design-surface-text-color": DARK[theme.INK], "--bokeh-bg-color": DARK[theme.PAPER],
    "--bokeh-border-color": "#3b4b58", "--bokeh-icon-color": DARK[theme.MUTED],
}  # fmt: skip
_TABS = """
.bk-tab { font-size: 15px; padding: 8px 16px; } .bk-tab.bk-active { font-weight: 600; color: var(--wb-ink); }
@media (max-width: 700px) {
  .bk-header, .bk-headers-wrapper, .bk-headers { flex-wrap: wrap; overflow: visible; height: auto; }
  .bk-tab { padding: 6px 9px; }
}
"""


def _declared(colours: dict[str, str]) -> str:
    return " ".join(f"{name}: {value};" for name, value in colours.items())


def build_page(runner: Runner, folder: str = "", results: str = "") -> pn.Template:
    """Return a new page; every tab of a browser gets one of its own.

    Parameters
    ----------
    runner
        The server's jobs, which all pages share.
    folder, results
        What to open at once; the page's address may name another folder (``?folder=...``).
    """
    screen = Screen()
    session = Session(runner, screen)
    pages = [page(session) for page in PAGES]
    tabs = pn.Tabs(*((page.name, page.panel) for page in pages), sizing_mode="stretch_width", stylesheets=[_TABS])

    def show_chosen(*_: Any) -> None:  # the keyboard must not reach what is hidden
        for number, page in enumerate(pages):
            page.panel.visible = number == tabs.active

    def refresh() -> None:
        for page in pages if screen.width else ():  # a page that is not drawn yet takes no changes
            page.refresh()

    async def open_first() -> None:
        asked = {key: value[0].decode() for key, value in (pn.state.session_args or {}).items() if value}
        first = asked.get("folder", folder)
        await screen.known()
        wanted = first, asked.get("results", results)
        if first and (wanted == (folder, results) or wanted in runner.opened):
            await pages[0].open_folder(*wanted)
        elif first:  # anybody can write an address
            pages[0].propose(*wanted)

    def remember(*_: Any) -> None:
        """Keep the folder in the page's address, so that a tab that is loaded again opens it again."""
        if pn.state.location is not None and session.folder is not None:
            here = {"folder": str(session.folder.root), "results": str(session.results)}
            runner.opened.add((here["folder"], here["results"]))
            pn.state.location.update_query(**here)

    tabs.param.watch(show_chosen, "active")
    show_chosen()
    session.param.watch(remember, ["folder", "results"])
    pn.state.onload(open_first)
    pn.state.add_periodic_callback(refresh, period=_REFRESH)
    template = pn.Template(_TEMPLATE.read_text(encoding="utf-8"), nb_template=None, location=True)
    template.add_variable("light", _declared({"--wb-font": theme.FONT, **_LIGHT_COLOURS}))
    template.add_variable("dark", _declared(_DARK_COLOURS))
    template.add_panel("screen", screen)
    template.add_panel("pages", tabs)
    return template


def origins(address: str, port: int) -> list[str]:
    """Return the addresses under which browsers may connect to the app.

    Pages of other sites may not, even those that a browser on this machine shows.

    Examples
    --------
    >>> origins("127.0.0.1", 5007)
    ['127.0.0.1:5007', 'localhost:5007']
    """
    names = {f"[{address}]" if ":" in address else address, "localhost" if _is_local(address) else address}
    if not _is_local(address):
        names |= {"localhost", LOCAL, socket.gethostname(), socket.getfqdn()}
        with contextlib.suppress(OSError):
            names |= set(socket.gethostbyname_ex(socket.gethostname())[2])
        names.discard("0.0.0.0")
    return sorted(f"{name.lower()}:{port}" for name in names)


def _is_local(address: str) -> bool:
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def free_port(address: str, port: int) -> int:
    """Return the port if it is free, else the next free one; 0 asks for any.

    Raises
    ------
    WorkbenchError
        If this machine does not have this address, or no port near is free.
    """
    for tried in range(port, port + 20) if port else (0,):
        try:
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((address, tried))
                return int(probe.getsockname()[1])
        except OSError as problem:
            if problem.errno not in (13, 48, 98, 10013, 10048):  # taken or not allowed: another may be free
                raise WorkbenchError(f"{address}: this machine cannot listen there ({problem.strerror})") from problem
    raise WorkbenchError(f"no port from {port} to {port + 19} is free; choose another with --port")


def _ignore_closed_tabs(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Keep what was being sent to a tab that has closed out of the log."""
    from tornado.websocket import WebSocketClosedError

    if not isinstance(context.get("exception"), WebSocketClosedError):
        loop.default_exception_handler(context)


def _of_an_open_tab(record: logging.LogRecord) -> bool:
    """Whether a record is of a tab that is open; Bokeh asserts a session for the last messages of one that closed."""
    return record.exc_info is None or not isinstance(record.exc_info[1], AssertionError)


def serve(
    folder: str = "",
    results: str = "",
    *,
    address: str = LOCAL,
    port: int = PORT,
    show: bool = True,
    report: Callable[[str], Any] = print,
) -> None:
    """Serve the app until interrupted.

    Parameters
    ----------
    folder, results
        What a new page opens at once; empty for nothing.
    address
        127.0.0.1 for this machine only; 0.0.0.0 for every machine that can reach this one.
    port
        If it is taken, the next free one.
    show
        Open a browser.
    report
        Called with the address, its token in it, once the server listens.

    Raises
    ------
    WorkbenchError
        If it cannot listen there.
    """
    port = free_port(address, port)
    hv.extension("bokeh", logo=False)
    pn.extension(raw_css=[], throttled=True)
    pn.config.raw_css = [_STYLE.read_text(encoding="utf-8")]
    threading.Thread(target=viewer.warm, name="warm", daemon=True).start()
    runner, hosts = Runner(), origins(address, port)
    gate = Gate(hosts, secrets.token_urlsafe(24), port)
    server = pn.serve(
        {"/": lambda: build_page(runner, folder, results)},
        address=address, port=port, websocket_origin=hosts, show=False, start=False, verbose=False,
        title="Astrophoto Workbench",
    )  # fmt: skip
    server.io_loop.asyncio_loop.set_exception_handler(_ignore_closed_tabs)
    logging.getLogger(_MESSAGES).addFilter(_of_an_open_tab)
    name = "localhost" if address in ("0.0.0.0", "::") else f"[{address}]" if ":" in address else address
    where = f"http://{name}:{port}/?token={gate.token}"
    report(where)
    try:
        close_gate(server._tornado, gate)  # bokeh shows its application nowhere else
        server.start()
        if show:
            webbrowser.open(where)
        server.io_loop.start()
    except KeyboardInterrupt:
        pass
    finally:
        runner.close()
        with contextlib.suppress(AssertionError):  # it may have stopped already
            server.stop()


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
