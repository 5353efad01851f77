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
