"""What an audit of a flat found, in sentences."""

from __future__ import annotations

import math

import numpy as np
import xarray as xr

from ..core.statistics import weighted_by_errors
from ..core.values import value_text

ADDED_NOISE = 0.05  # "enough" flats: they add no more than this to the noise of the whole night's background
MOVED = 0.3  # dust of which this share of its shadow stays in the lights has moved
BRIGHTER = 1.5  # times its depth: a place that is brighter than without dust shows a star
NO_OFFSET = 0.5  # of the light in flats: no camera's offset is so much of it
UNEVEN = 0.01  # a correction off by more than this, from centre to corner, is reported
TINTED = 0.02  # a colour that shades this much more than green is reported
LEAKED = 0.4  # about -1: the lens model takes a part of the shape that light in the flats alone has
EXPLAINED = 0.5  # of the background's unevenness: nebulae agree with the flat's shape by chance, and less
_VERDICTS = ("flattens", "look", "fails")


def findings_of(result: xr.Dataset) -> tuple[list[str], list[str], str]:
    """Return the sentences on an audit, those of them that are failures, and the verdict, the worst of all."""
    findings = _findings(result)
    worst = max((verdict for verdict, _ in findings), key=_VERDICTS.index)
    return [text for _, text in findings], [text for verdict, text in findings if verdict == "fails"], worst


def _findings(result: xr.Dataset) -> list[tuple[str, str]]:
    """Return verdicts and sentences."""
    depth = float(result["falloff"].max())
    height, width = (float(result[name][-1] + result[name][0]) for name in ("by", "bx"))
    offset = np.hypot(float(result["centre_y"].mean()) - height / 2, float(result["centre_x"].mean()) - width / 2)
    findings = [
        f"the corners get {depth:.0%} less light; the centre of vignetting lies {offset:.0f} px from the frame's"
    ]
    in_lights = _findings_in_lights(result, depth) if "correction" in result else []
    later = []
    if (largest := float(np.abs(result["tint"]).max())) > TINTED:
        later.append(f"the colours shade differently, by up to {largest:.1%} in the corners; the flat takes that out")
    if result.sizes["mote"]:
        later.append(f"{result.sizes['mote']} dust shadows, the deepest {float(result['dust_depth'].max()):.1%}")
    prnu, noise = (float(result[name].mean()) for name in ("prnu", "flat_noise"))
    later.append(f"PRNU {prnu:.2%}, noise of the master {noise:.2%} a pixel")
    return [("flattens", findings[0]), *in_lights, *(("flattens", text) for text in later)]


def _offset_cause(result: xr.Dataset, k: float) -> str:
    """Say which offset in the lights or in the flats leaves an exponent k of the flat in the lights."""
    offset, error = weighted_by_errors(result["offset"].values, result["offset_error"].values)
    lights = f"the offset that was subtracted from them is {value_text(abs(offset), error, 'e-')} too "
    if k < 0:
        return f"{lights}low (darks or bias of another offset setting?), or the flat was applied twice"
    level = result.attrs["level"]
    lights += "high (darks or bias of another offset setting, or light that leaked into the darks?)"
    if k > NO_OFFSET:
        return lights
    share = f"{k * level / (1 + k):,.0f} ADU" if math.isfinite(level) else f"{k / (1 + k):.0%} of their level"
    return f"{lights}, or an offset of {share} was left in the flats"


def _findings_in_lights(result: xr.Dataset, depth: float) -> list[tuple[str, str]]:
    """Return verdicts and sentences on what the flat leaves in the lights."""
    findings = []
    k, error = weighted_by_errors(result["correction"].values, result["correction_error"].values)
    measured = f"k = {k:+.3f} ± {error:.3f}"
    if abs(k) * depth > UNEVEN and abs(k) > 4 * error:
        word = "under" if k > 0 else "over"
        text = f"the lights are {word}-corrected by {abs(k):.0%} of the flat ({measured}): {_offset_cause(result, k)}"
        findings.append(("fails", text))
    elif math.isfinite(k):
        findings.append(("flattens", f"the pixels' own response is taken out: {measured}"))
    smooth = np.abs(result["smooth_correction"])
    left = float(smooth.max()) * depth
    own, share, shape = (float(result[name].median()) for name in ("shape_left", "shape_share", "shape"))
    if abs(own + 1) < LEAKED and share > EXPLAINED and shape > UNEVEN:
        text = (
            f"the flat has a shape of {shape:.1%} that is not a lens's, and just that makes the background of the "
            f"lights uneven (k = {own:+.2f} of it): light came into the flats that does not come into the lights"
        )
        findings.append(("fails", text))
    elif left > UNEVEN and bool((smooth > 3 * result["smooth_correction_error"]).any()):
        text = (
            f"a smooth shape like that of the vignetting stays in the background, {left:.1%} in the corners: a "
            "nebula or moonlight does that, and so does stray light in flats or lights"
        )
        findings.append(("look", text))
    dust, known = result["dust_left"].values, result["dust_left_error"].values
    moved = int(((np.abs(dust) > np.maximum(MOVED, 5 * known)) & (dust > -BRIGHTER)).sum())
    if moved > 1 or moved == dust.size == 1:
        shadows = f"{moved} of {dust.size} dust shadows"
        findings.append(("fails", f"{shadows} are not taken out: dust moved between flats and lights"))
    elif moved:
        knot = "dust moved between flats and lights, or a knot of nebula lies there"
        findings.append(("look", f"1 of {dust.size} dust shadows is not taken out: {knot}"))
    need, have = int(result["enough"].max()), int(result.attrs["frames"])
    if need > have:
        more = f"more than {ADDED_NOISE:.0%} to the noise of these lights; {need} would be enough"
        findings.append(("look", f"{have} flats add {more}"))
    else:
        few = f"{have} flats are enough for these lights: {need} or more add less than {ADDED_NOISE:.0%} to the noise"
        findings.append(("flattens", few))
    return findings
