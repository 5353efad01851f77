"""The server: which addresses may connect, and which port it takes."""

import pytest

from workbench.app.server import free_port, origins
from workbench.core.errors import WorkbenchError


def test_only_this_machine_is_let_in_unless_asked():
    assert origins("localhost", 80) == ["localhost:80"]
    assert all(not origin.startswith("0.0.0.0") for origin in origins("0.0.0.0", 80))


def test_a_port_that_is_taken_is_passed_over():
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert free_port("127.0.0.1", port) != port
    with pytest.raises(WorkbenchError, match="cannot listen there"):
        free_port("203.0.113.7", 5007)


def test_the_last_message_of_a_closed_tab_leaves_no_traceback(caplog):
    """A real connection whose session is gone; other errors of messages are logged as before."""
    import asyncio
    import logging

    from bokeh.document import Document
    from bokeh.protocol import Protocol
    from bokeh.server.connection import ServerConnection
    from bokeh.server.protocol_handler import ProtocolHandler
    from bokeh.server.session import ServerSession

    from workbench.app.server import _MESSAGES, _of_an_open_tab

    def handle() -> str:
        caplog.clear()
        asyncio.run(ProtocolHandler().handle(Protocol().create("PULL-DOC-REQ"), connection))
        return caplog.text

    connection = ServerConnection(Protocol(), None, None, ServerSession("tab", Document()))
    connection.detach_session()
    assert "AssertionError" in handle()
    logger = logging.getLogger(_MESSAGES)
    logger.addFilter(_of_an_open_tab)
    try:
        assert handle() == ""
        connection._session = object()  # something unforeseen
        assert "AttributeError" in handle()
    finally:
        logger.removeFilter(_of_an_open_tab)
