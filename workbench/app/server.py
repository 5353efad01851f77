"""The app's server: on this machine only, unless told otherwise; everything it needs it serves itself."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import threading
from collections.abc import Callable
from typing import Any

from ..core.errors import WorkbenchError
from .jobs import Runner

LOCAL = "127.0.0.1"
PORT = 5007


def origins(address: str, port: int) -> list[str]:
    """Return the addresses under which browsers may open the app's connection.

    Pages of other sites may not, even those that a browser on this machine shows.

    Examples
    --------
    >>> origins("127.0.0.1", 5007)
    ['127.0.0.1:5007', 'localhost:5007']
    """
    names = {address, "localhost" if _is_local(address) else address}
    if not _is_local(address):
        names |= {"localhost", LOCAL, socket.gethostname(), socket.getfqdn()}
        with contextlib.suppress(OSError):
            names |= set(socket.gethostbyname_ex(socket.gethostname())[2])
        names.discard("0.0.0.0")
    return sorted(f"{name}:{port}" for name in names)


def _is_local(address: str) -> bool:
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def free_port(address: str, port: int) -> int:
    """Return the port if nobody has it, else the next free one; 0 asks for any.

    Raises
    ------
    WorkbenchError
        If this machine has no such address, or no port near is free.
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
    raise WorkbenchError(f"no port from {port} to {port + 19} is free; name another with --port")


def _closed_tabs_are_no_news(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Keep what was under way to a tab that has closed out of the log."""
    from tornado.websocket import WebSocketClosedError

    if not isinstance(context.get("exception"), WebSocketClosedError):
        loop.default_exception_handler(context)


def serve(
    folder: str = "",
    results: str = "",
    *,
    address: str = LOCAL,
    port: int = PORT,
    show: bool = True,
    say: Callable[[str], Any] = print,
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
    say
        Is told the address once the server listens.

    Raises
    ------
    WorkbenchError
        If it cannot listen there.
    """
    import holoviews as hv
    import panel as pn

    from . import viewer
    from .page import STYLE, build

    port = free_port(address, port)
    hv.extension("bokeh", logo=False)
    pn.extension(raw_css=[], throttled=True)
    pn.config.raw_css = [STYLE]
    threading.Thread(target=viewer.warm, name="warm", daemon=True).start()
    runner = Runner()
    server = pn.serve(
        {"/": lambda: build(runner, folder, results)},
        address=address, port=port, websocket_origin=origins(address, port), show=show, start=False, verbose=False,
        title="Astrophoto Workbench",
    )  # fmt: skip
    server.io_loop.asyncio_loop.set_exception_handler(_closed_tabs_are_no_news)
    shown = "localhost" if address in ("0.0.0.0", "::") else address
    say(f"http://{shown}:{port}/")
    try:
        server.start()
        server.io_loop.start()
    except KeyboardInterrupt:
        pass
    finally:
        runner.close()
        with contextlib.suppress(AssertionError):  # it may have stopped already
            server.stop()
