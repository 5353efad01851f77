"""A small DNG to fill folders with."""

import numpy as np
import pytest

from workbench.ingest import DngMetadata, write_dng


def write_frame(path, level=600, shape=(32, 48), **changes):
    """A small DNG whose every pixel has one level."""
    path.parent.mkdir(parents=True, exist_ok=True)
    facts = {
        "cfa_pattern": "RGGB",
        "black_level": 600,
        "white_level": 16383,
        "iso": 100,
        "exposure": 1 / 8000,
        "make": "NIKON CORPORATION",
        "model": "NIKON D7000",
    }
    return write_dng(path, np.full(shape, level, np.uint16), DngMetadata(**{**facts, **changes}))


@pytest.fixture(name="frame")
def frame_writer():
    return write_frame
