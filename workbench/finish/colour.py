"""Colour: from the camera's three channels to linear sRGB, on data that stay linear.

A white balance is three multipliers, estimated from the stars, from a region or taken from the camera; the matrix
is the camera's own.  `apply_colour` applies both at once.  Whatever these steps did to the channels stands in the
attribute ``colour_transform`` (3 x 3), so that photometry can be checked against it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
import xarray as xr
from PIL import ImageCms
from scipy import ndimage

from ..core.errors import WorkbenchError
from ..core.kernels import kernel
from ..core.statistics import MEDIAN_ERROR, mad_std
from ..core.values import unit_text
from .photometry import bright_stars, find_picture_stars, photometry
from .picture import check_picture, in_bands, note, plane
from .sky import find_sky, measure_sky
from .zero_point import catalogue_photometry, measured_balance

BALANCES = ("catalogue", "stars", "region", "daylight", "none")
# Linear sRGB to CIE XYZ, white D65 (IEC 61966-2-1).
SRGB_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
_FEWEST_STARS = 5


def white_balance(
    picture: xr.Dataset,
    method: str = "stars",
    *,
    region: Sequence[int] | None = None,
    stars: xr.Dataset | None = None,
) -> xr.Dataset:
    """Estimate the multipliers that make something white.

    Parameters
    ----------
    method
        ``catalogue``: a star of the Sun's colour becomes white, by the catalogued stars of a solved picture
        (`zero_point.measured_balance`).  ``stars``: the median colour of up to 300 unsaturated, isolated stars becomes
        white.  ``region``: the mean of a box over its surroundings' zero, so after the background is gone.
        ``daylight``: the camera's own multipliers, from the file.  ``none``: all 1.
    region
        ``(top, bottom, left, right)`` [px], for ``region``.
    stars
        From `find_picture_stars`; found when not given.

    Returns
    -------
    Dataset over channel: ``multiplier`` (green is 1) and ``multiplier_error`` (standard error of the fit or median of
    the stars, of the mean of the region; 0 where it is given); attributes ``method``, ``stars`` used.

    Raises
    ------
    WorkbenchError
        If the picture is mono, has too few stars, a dark region, or a file that names no multipliers.
    """
    check_picture(picture)
    if method not in BALANCES:
        raise WorkbenchError(f"white balance {method!r} is none of {', '.join(BALANCES)}")
    if method != "none" and picture.sizes["channel"] != 3:
        raise WorkbenchError("a mono picture has no white balance; use 'none'")
    multipliers, errors, used = np.ones(picture.sizes["channel"]), np.zeros(picture.sizes["channel"]), 0
    if method == "catalogue":
        table = catalogue_photometry(picture, find_picture_stars(picture) if stars is None else stars)
        multipliers, errors, used = measured_balance(table)
    elif method == "stars":
        multipliers, errors, used = _star_balance(picture, stars)
    elif method == "region":
        multipliers, errors = _region_balance(picture, region)
    elif method == "daylight":
        named = np.asarray(picture.attrs.get("daylight_multipliers", ()), float).ravel()
        if named.size not in (3, 4) or not np.all(np.isfinite(named[:3])) or np.any(named[:3] <= 0):
            raise WorkbenchError(
                "this picture's file names no daylight multipliers of the camera; balance by 'stars' or a 'region'"
            )
        multipliers = named[:3] / named[1]
    return xr.Dataset(
        {
            "multiplier": ("channel", multipliers, {"units": "1", "long_name": "white balance multiplier"}),
            "multiplier_error": ("channel", errors, {"units": "1", "long_name": "standard error"}),
        },
        coords={"channel": picture["channel"].values},
        attrs={"method": method, "stars": used},
    )


def _star_balance(picture: xr.Dataset, stars: xr.Dataset | None) -> tuple[np.ndarray, np.ndarray, int]:
    """Multipliers, their errors, and the number of stars used."""
    stars = find_picture_stars(picture) if stars is None else stars
    chosen = bright_stars(stars, picture["signal"].shape[1:], count=300)
    table = photometry(picture, chosen["x"].values, chosen["y"].values, stars.attrs["searched_fwhm"])
    flux, error = table["flux"].values, table["flux_error"].values
    with np.errstate(invalid="ignore", divide="ignore"):
        good = (flux > 0).all(axis=1)
        if np.isfinite(error).any():
            good &= (flux > 10 * error).all(axis=1)  # a logarithm of noise is biased
        index = np.log(flux[:, [1]] / flux)[good]
    if len(index) < _FEWEST_STARS:
        raise WorkbenchError(
            f"only {len(index)} unsaturated stars can be measured in all channels, {_FEWEST_STARS} are needed for a"
            " white balance: use the camera's ('daylight') or a region's"
        )
    middle = np.median(index, axis=0)
    error = MEDIAN_ERROR * mad_std(index, axis=0) / np.sqrt(len(index))
    multipliers = np.exp(middle)
    return multipliers, multipliers * error, len(index)


def _region_balance(picture: xr.Dataset, region: Sequence[int] | None) -> tuple[np.ndarray, np.ndarray]:
    if region is None or len(region) != 4:
        raise WorkbenchError("a white balance from a region needs its box: (top, bottom, left, right) in pixels")
    top, bottom, left, right = region
    cut = picture["signal"].values[:, top:bottom, left:right].reshape(3, -1)
    cut = cut[:, np.isfinite(cut).all(axis=0)].astype(float)
    if cut.shape[1] < 4:
        raise WorkbenchError(f"the region {tuple(region)} holds fewer than four pixels of this picture")
    mean, error = cut.mean(axis=1), cut.std(axis=1) / np.sqrt(cut.shape[1])
    if np.any(mean <= 5 * error):
        raise WorkbenchError(
            f"the region {tuple(region)} has means {', '.join(f'{value:.3g}' for value in mean)}: too dark to be made"
            " white; choose a brighter one"
        )
    relative = error / mean
    return mean[1] / mean, mean[1] / mean * np.hypot(relative, relative[1]) * (1, 0, 1)


def camera_matrix(picture: xr.Dataset) -> np.ndarray | None:
    """Return the matrix from white-balanced camera channels to linear sRGB, or None where the file names none.

    From the attribute ``color_matrix`` (CIE XYZ D65 to camera, 3 x 3, as in DNG and LibRaw): its product with
    sRGB → XYZ, each row scaled to sum 1 so that white stays white, inverted (the way of dcraw and LibRaw).

    Examples
    --------
    >>> from workbench.finish import make_picture
    >>> matrix = np.linalg.inv(SRGB_TO_XYZ)  # a camera that sees sRGB
    >>> picture = make_picture(np.ones((3, 4, 4)), attrs={"color_matrix": matrix})
    >>> bool(np.allclose(camera_matrix(picture), np.eye(3)))
    True
    """
    found = picture.attrs.get("color_matrix")
    if found is None or picture.sizes["channel"] != 3:
        return None
    xyz_to_camera = np.asarray(found, float)
    if xyz_to_camera.size == 12:
        xyz_to_camera = xyz_to_camera.reshape(4, 3)[:3]
    if xyz_to_camera.size != 9:
        raise WorkbenchError(f"a colour matrix has 3 x 3 numbers; this picture's has {xyz_to_camera.size}")
    to_camera = xyz_to_camera.reshape(3, 3) @ SRGB_TO_XYZ
    sums = to_camera.sum(axis=1, keepdims=True)
    if not np.all(np.isfinite(to_camera)) or np.any(sums <= 0) or np.linalg.cond(to_camera) > 1e4:
        return None  # a matrix of zeros, as files of unknown cameras have it
    return np.linalg.inv(to_camera / sums)


def apply_colour(
    picture: xr.Dataset, balance: xr.Dataset | None = None, matrix: np.ndarray | None = None
) -> xr.Dataset:
    """Balance the channels and mix them by a matrix, on linear data: signal' = M diag(m) signal.

    The variance follows as Σ T² variance (the stack's channels are independent; afterwards they are not, and
    each channel's variance is its own share of the whole).

    Parameters
    ----------
    balance
        From `white_balance`.
    matrix
        Camera to linear sRGB, from `camera_matrix`; None leaves the camera's own colours.
    """
    check_picture(picture)
    channels = picture.sizes["channel"]
    multipliers = np.ones(channels) if balance is None else balance["multiplier"].values
    transform = (np.eye(channels) if matrix is None else np.asarray(matrix, float)) @ np.diag(multipliers)
    changed = {
        name: plane(_mix(picture[name].values, (transform**power).astype(np.float32)), name)
        for name, power in (("signal", 1), ("variance", 2))
        if name in picture
    }
    errors = np.zeros(channels) if balance is None else balance["multiplier_error"].values
    pairs = zip(multipliers, errors, strict=True)
    words = ", ".join(f"{value:.4f} ± {error:.4f}" if error > 0 else f"{value:.4f}" for value, error in pairs)
    source = "" if balance is None else f" from {balance.attrs['method']}"
    source += f" ({balance.attrs['stars']} stars)" if balance is not None and balance.attrs.get("stars") else ""
    whole = transform @ np.asarray(picture.attrs.get("colour_transform", np.eye(channels)), float)
    return note(
        picture.assign(changed),
        f"Colour: white balance {words}{source}; "
        + ("the camera's own colours kept." if matrix is None else "camera to linear sRGB by its matrix."),
        colour_transform=whole.tolist(),
        colour_space="camera" if matrix is None else "linear sRGB",
    )


def _mix(values: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """The channels (channel, y, x) mixed by a matrix, float32."""
    if len(values) == 1:
        return values * matrix[0, 0]
    out = np.empty(values.shape, np.float32)
    in_bands(lambda rows: _mix_rows(values[:, rows], matrix, out[:, rows]), values.shape[1])
    return out


@kernel(fastmath={"contract", "nsz"})
def _mix_rows(values, matrix, out):
    for row in range(values.shape[1]):
        for channel in range(3):
            a, b, c = matrix[channel, 0], matrix[channel, 1], matrix[channel, 2]
            for column in range(values.shape[2]):
                out[channel, row, column] = (
                    a * values[0, row, column] + b * values[1, row, column] + c * values[2, row, column]
                )


def neutralise_background(picture: xr.Dataset) -> xr.Dataset:
    """Make the empty sky grey: shift each channel so that all have the sky's mean level.

    The sky is measured in cells without stars and nebula (`find_sky`).  An offset per channel and nothing else: star
    fluxes, colours and variances stay.
    """
    check_picture(picture)
    sky = measure_sky(picture)
    is_sky = find_sky(sky, degree=1)["is_sky"].values
    levels = np.array([np.median(level[is_sky]) for level in sky["level"].values])
    shift = (levels - levels.mean()).astype(np.float32)
    changed = picture["signal"].values - shift[:, None, None]
    words = ", ".join(f"{-value:+.4g}" for value in shift)
    return note(
        picture.assign(signal=plane(changed, "signal")),
        f"Background neutralised: channels shifted by {words} {unit_text(picture.attrs.get('units', ''))}.",
    )


def mend_cores(picture: xr.Dataset) -> xr.Dataset:
    """Give clipped star cores the colour of what surrounds them, so that they do not turn magenta or green.

    Where a channel is ``saturated`` its value is only a lower limit.  With the colour c of the brightest pixels in a
    ring of 2 px around the clipped ones, the brightness is at least I = max(signal/c) over the channels; the core
    becomes I · c.  Nothing else changes; star fluxes of clipped stars do, and they are never measured.
    """
    check_picture(picture)
    if picture.sizes["channel"] != 3 or "saturated" not in picture:
        return picture
    clipped = (picture["saturated"].values > 0).any(axis=0)
    if not clipped.any():
        return picture
    signal = picture["signal"].values.copy()
    labels, count = ndimage.label(clipped, structure=np.ones((3, 3)))
    mended = 0
    for number, box in enumerate(ndimage.find_objects(labels), 1):
        wide = tuple(slice(max(s.start - 3, 0), s.stop + 3) for s in box)
        core = labels[wide] == number
        around = ndimage.binary_dilation(core, iterations=2) & (labels[wide] == 0)
        values = signal[:, wide[0], wide[1]]
        around &= np.isfinite(values).all(axis=0)
        # weighted by brightness: next to the core; further out each channel rings in its own way from resampling
        light = np.maximum(values[:, around].sum(axis=0, dtype=float), 0) ** 2
        colour = values[:, around] @ light
        if not around.any() or colour.max() <= 0:
            continue
        colour = np.maximum(colour / colour.max(), 0.05)[:, None]
        inside = core & np.isfinite(values).all(axis=0)
        values[:, inside] = (values[:, inside] / colour).max(axis=0) * colour
        mended += int(inside.sum())
    return note(
        picture.assign(signal=plane(signal, "signal")),
        f"Clipped cores: {mended} pixels in {count} places given the colour of their surroundings.",
    )


def remove_green(picture: xr.Dataset, *, amount: float = 1.0) -> xr.Dataset:
    """Remove a green cast: green is lowered to the mean of red and blue where it exceeds it ("average neutral").

    G' = G - amount · max(0, G - (R + B)/2 - 2σ), σ the noise of that excess from the variance, so that noise on a
    grey sky is not turned magenta.  Few things in the sky are green; planetary nebulae and comets are: this step
    takes their colour, which `check_photometry` reports.  It is not linear and is off by default.  The history
    says how many pixels changed and how much light went.
    """
    check_picture(picture)
    if picture.sizes["channel"] != 3:
        raise WorkbenchError("a mono picture has no green cast")
    if not 0 <= amount <= 1:
        raise WorkbenchError(f"the amount of green to remove lies between 0 and 1; got {amount:g}")
    signal = picture["signal"].values
    variance = picture["variance"].values if "variance" in picture else np.zeros_like(signal, shape=(3, 0, 0))
    changed = signal.copy()
    parts = in_bands(
        lambda rows: _lower_green(signal[:, rows], variance[:, rows], np.float32(amount), changed[1, rows]),
        signal.shape[1],
    )
    known, lowered, light, total = np.sum(parts, axis=0)
    share, part = lowered / max(known, 1), light / (total or 1.0)
    return note(
        picture.assign(signal=plane(changed, "signal")),
        f"Green cast: amount {amount:g}, green lowered in {share:.1%} of the pixels, {part:.2%} of its light removed.",
    )


@kernel()
def _lower_green(signal, variance, amount, out):
    """Lower green into `out` (y, x); returns how many pixels are known, and lowered, and the light removed, and all."""
    half, quarter, two = np.float32(0.5), np.float32(0.25), np.float32(2.0)
    known, lowered, light, total = 0, 0, 0.0, 0.0
    for row in range(out.shape[0]):
        for column in range(out.shape[1]):
            green = signal[1, row, column]
            excess = green - half * (signal[0, row, column] + signal[2, row, column])
            if variance.size:
                between = variance[0, row, column] + variance[2, row, column]
                excess -= two * np.sqrt(variance[1, row, column] + quarter * between)
            if not np.isfinite(excess):
                out[row, column] = np.nan
                continue
            removed = amount * max(excess, np.float32(0.0))
            out[row, column] = green - removed
            known += 1
            lowered += removed > 0
            light += removed
            total += abs(green)
    return known, lowered, light, total


def srgb_profile(channels: int = 3) -> bytes:
    """Return the sRGB profile, the same bytes always; for one channel its curve as a grey profile.

    Made by Little CMS (Pillow); the date and platform that it stamps into the header are cleared.
    """
    rgb = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    rgb[24:36] = struct.pack(">6H", 2000, 1, 1, 0, 0, 0)
    rgb[40:44] = b"\0\0\0\0"
    if channels == 3:
        return bytes(rgb)
    count = struct.unpack(">I", rgb[128:132])[0]
    tags = {}
    for number in range(count):
        name, offset, size = struct.unpack(">4sII", rgb[132 + 12 * number : 144 + 12 * number])
        tags[name] = bytes(rgb[offset : offset + size])
    kept = {b"desc": tags[b"desc"], b"cprt": tags[b"cprt"], b"wtpt": tags[b"wtpt"], b"kTRC": tags[b"rTRC"]}
    table, body = struct.pack(">I", len(kept)), b""
    start = 132 + 12 * len(kept)
    for name, content in kept.items():
        table += struct.pack(">4sII", name, start + len(body), len(content))
        body += content + b"\0" * (-len(content) % 4)
    rgb[16:20] = b"GRAY"
    rgb[0:4] = struct.pack(">I", start + len(body))
    return bytes(rgb[:128]) + table + body
