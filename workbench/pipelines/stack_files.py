"""What a stacking run keeps on disk between its stages, so that an interrupted one goes on where it stopped.

A result counts only when its file is whole (written aside, then renamed) and belongs to the same frames and settings.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import xarray as xr

from ..core.files import aside
from ..stack.engine import Plan
from ..stack.fits_out import Layout
from ..stack.survey import FrameSurvey


def write_whole(path: Path, data: bytes) -> None:
    """Write aside, then rename: the file is whole or not there."""
    with aside(path) as part:
        part.write_bytes(data)


def save_survey(path: Path, survey: FrameSurvey) -> None:
    """Keep what the first pass found on a light."""
    stars = {f"star_{name}": survey.stars[name].values for name in survey.stars}
    with aside(path) as part:
        np.savez(part, level=survey.level, noise=survey.noise, attrs=json.dumps(survey.stars.attrs), **stars)


def load_survey(work: Path, number: int) -> FrameSurvey | None:
    """Return what the first pass found on a light; None where it has not been there."""
    path = work / "survey" / f"{number}.npz"
    if not path.exists():
        return None
    with np.load(path) as kept:
        stars = {name[5:]: ("star", kept[name]) for name in kept.files if name.startswith("star_")}
        attrs = json.loads(str(kept["attrs"]))
        return FrameSurvey(xr.Dataset(stars, attrs=attrs), kept["level"], kept["noise"])


def plan_digest(plan: Plan) -> str:
    """Return a digest of a plan: the same means the same stack."""
    frames = [
        [f.name, f.transform.to_dict(), f.scale, f.level.tolist(), f.weight.tolist(), f.group, f.factor]
        for f in plan.frames
    ]
    text = json.dumps([frames, plan.shape, plan.cfa_pattern, plan.method, plan.thresholds])
    return hashlib.sha256(text.encode()).hexdigest()


def bands_done(journal: Path, layout: Layout, digest: str) -> set[int]:
    """Bands that an interrupted run has finished: their chi-square file is written after their pixels are."""
    marker = journal / "plan.json"
    whole = layout.path.is_file() and layout.path.stat().st_size == layout.total
    if not (whole and marker.is_file() and marker.read_text() == digest):
        return set()
    return {int(path.stem) for path in journal.glob("[0-9]*.npy")}


def keep_chi(journal: Path, number: int, chi: np.ndarray) -> None:
    """Keep a band's chi-square sums; that the file is there says that the band's pixels are written."""
    with aside(journal / f"{number}.npy") as part:
        np.save(part, chi)
