"""The charts of the small samples, written once."""

import dataclasses

import pytest

from tests.scenes import small_finish
from workbench.export import write_charts
from workbench.pipelines.calibration import Lights


@pytest.fixture(scope="session")
def folder(result, tmp_path_factory):
    out = tmp_path_factory.mktemp("charts")
    whole = dataclasses.replace(result, lights=Lights(finished=small_finish()))
    write_charts(whole, out, progress=False)
    return out
