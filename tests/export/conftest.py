"""The charts of the small samples, written once."""

import pytest

from workbench.export import write_charts


@pytest.fixture(scope="session")
def folder(result, tmp_path_factory):
    out = tmp_path_factory.mktemp("charts")
    write_charts(result, out, progress=False)
    return out
