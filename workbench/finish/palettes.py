"""A colour picture of stacks through several filters: RGB, LRGB, narrowband palettes, mixtures of one's own.

A colour is a sum of filters, C = Σ w F, its variance Σ w² Var F.  All filters are first brought to one exposure time
and, but for plain RGB, to one brightness of the stars, so that a weight of one means the same for each.

With a luminance L the colours keep their differences and get its detail: C' = C + a (L - S), S the mean of the colours.
That is linear: stars keep their light and, as far as L sees the mean of the colours, their colour.  The share
a = Var S/(Var S + Var L) is the one with the least noise.  Where L is missing or saturated, a = 0 and the colours stay.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from scipy.spatial import cKDTree

from ..core.errors import WorkbenchError
from ..core.settings import filter_name
from .photometry import bright_stars, find_picture_stars, photometry
from .picture import check_picture, make_picture

Palette = dict[str, dict[str, float]]  # of each channel of the picture, and of L: weight of each filter

LETTERS = {"L": "L", "R": "R", "G": "G", "B": "B", "H": "Ha", "S": "SII", "O": "OIII", "N": "NII"}
_AUTO = ("LRGB", "RGB", "SHO", "HOO")  # the first for which all filters are there
_FEWEST_STARS = 5  # for a ratio of brightness
_TOGETHER = 2.0  # [px] within which two stacks show the same star


def parse_palette(text: str) -> Palette:
    """Return what makes each colour: of letters such as ``SHO`` or ``LRGB``, or of sums.

    Letters name the filters of red, green and blue, after an L for the luminance: L, R, G, B, H (Ha), S (SII),
    O (OIII), N (NII).

    Raises
    ------
    WorkbenchError
        If the text is neither.

    Examples
    --------
    >>> parse_palette("HOO")
    {'R': {'Ha': 1.0}, 'G': {'OIII': 1.0}, 'B': {'OIII': 1.0}}
    >>> parse_palette("R=0.8*R+0.2*Ha, G=G, B=B")["R"]
    {'R': 0.8, 'Ha': 0.2}
    """
    letters = text.strip().upper()
    if re.fullmatch(f"L?[{''.join(LETTERS)}]{{3}}", letters):
        channels = "LRGB"[-len(letters) :]
        return {channel: {LETTERS[letter]: 1.0} for channel, letter in zip(channels, letters, strict=True)}
    palette: Palette = {}
    for part in text.split(","):
        channel, _, terms = part.partition("=")
        palette[channel.strip().upper()] = weights = {}
        for term in terms.split("+"):
            weight, _, name = term.rpartition("*")
            try:
                weights[filter_name(name)] = float(weight or 1)
            except ValueError:
                weights[""] = math.nan
    good = all(name and math.isfinite(weight) for weights in palette.values() for name, weight in weights.items())
    if not good or set(palette) - {"L"} != {"R", "G", "B"}:
        raise WorkbenchError(
            f"palette {text!r} is not known; give auto, letters of filters for red, green and blue ({', '.join(_AUTO)},"
            " ...), or sums: R=0.8*SII+0.2*Ha, G=Ha, B=OIII"
        )
    return palette


def choose_palette(names: list[str]) -> str:
    """Return the palette for the filters that there are: LRGB, RGB, SHO or HOO.

    Examples
    --------
    >>> choose_palette(["OIII", "Ha"])
    'HOO'
    """
    for palette in _AUTO:
        if {LETTERS[letter] for letter in palette} <= set(names):
            return palette
    raise WorkbenchError(
        f"{', '.join(names)} make no palette by themselves (R, G, B with or without L; SII, Ha, OIII; Ha, OIII do): "
        "give one, such as R=Ha, G=0.5*Ha+0.5*OIII, B=OIII, or finish one stack alone"
    )


def compose(
    stacks: Mapping[str, xr.Dataset], palette: str = "auto", weights: Mapping[str, float] | None = None
) -> xr.Dataset:
    """Compose a linear colour picture of mono stacks on one pixel grid, by the name of their filter.

    Parameters
    ----------
    stacks
        Linear mono pictures (see `make_picture`), as `read_picture` gives them.
    palette
        See `parse_palette`; ``auto`` takes the one that uses most of the filters.
    weights
        By filter: how much brighter than the others' its stars are made (1).  Of L: its share of the luminance, 0 to 1;
        else that with the least noise.

    Returns
    -------
    A picture (R, G, B) with its variance in the stacks' units.  Its attribute ``balanced`` is true where the colours
    are a choice, by the weights or of narrow bands, that a white balance would undo.

    Raises
    ------
    WorkbenchError
        If a filter of the palette is missing, a stack is not mono, or the stacks have different grids or units.

    Examples
    --------
    >>> y, x = np.mgrid[:64, :64]
    >>> stacks = {name: make_picture(level + x) for name, level in {"r": 3.0, "g": 2.0, "b": 1.0}.items()}
    >>> picture = compose(stacks)
    >>> picture.signal.values[:, 0, 0].tolist(), picture.attrs["palette"]
    ([3.0, 2.0, 1.0], 'RGB')
    """
    given = {_plain(name): stack for name, stack in stacks.items()}
    palette = choose_palette(list(given)) if palette == "auto" else palette
    sums = parse_palette(palette)
    chosen = {_plain(name): float(weight) for name, weight in (weights or {}).items()}
    used = list(dict.fromkeys(name for terms in sums.values() for name in terms))
    _require_known(palette, sums, used, given, chosen)
    planes = {name: given[name] for name in used}
    _require_alike(planes)
    factors, history = _one_exposure(planes)
    planes = _scaled(planes, factors)
    ratios, lines = _filter_ratios(planes, max(sums["G"], key=sums["G"].__getitem__))
    if chosen or palette.upper() != "RGB":
        planes, weighted = _weighted(planes, ratios, chosen)
        history += lines + weighted
    colours = {channel: _sum(planes, terms) for channel, terms in sums.items()}
    picture = _stacked([colours[channel] for channel in "RGB"])
    if "L" in colours:
        picture, line = _with_luminance(picture, colours["L"], chosen.get("L"))
        history.append(line)
    narrow = not set(used) <= set("LRGB")
    first = planes[used[0]].attrs
    attrs = {key: first[key] for key in ("units", "camera", "object") if key in first}
    attrs |= {"palette": palette, "balanced": narrow or bool(set(chosen) - {"L"}), "exposure": _longest(planes)}
    left = [name for name in given if name not in used]
    history = [f"Composed as {palette} from the stacks of {', '.join(used)}.", *history]
    history += [f"Not used: {', '.join(left)}."] if left else []
    return picture.assign_attrs(picture.attrs | attrs, history=history)


def _weighted(
    planes: Mapping[str, xr.Dataset], ratios: Mapping[str, float], chosen: Mapping[str, float]
) -> tuple[dict[str, xr.Dataset], list[str]]:
    """Bring planes to one brightness of their stars, times the weights that were chosen; what is said of these."""
    brighter = {name: weight for name, weight in chosen.items() if name != "L"}
    said = ", ".join(f"{name} {weight:g}" for name, weight in brighter.items())
    factors = {name: ratios[name] * brighter.get(name, 1.0) for name in planes}
    return _scaled(planes, factors), [f"Weights: {said}."] if said else []


def _require_known(
    palette: str, sums: Palette, used: Sequence[str], given: Mapping[str, Any], chosen: Mapping[str, float]
) -> None:
    """Raise a WorkbenchError where the palette needs a filter that is not given, or a weight is of none of its."""
    if missing := [name for name in used if name not in given]:
        raise WorkbenchError(
            f"the palette {palette} needs {' and '.join(missing)}; the stacks are of {', '.join(given)}"
        )
    if unknown := [name for name in chosen if name not in used and not (name == "L" and "L" in sums)]:
        raise WorkbenchError(f"a weight of {unknown[0]} is given, which the palette {palette} does not use")


def _plain(name: str) -> str:
    """The name of a filter without its bandwidth."""
    return filter_name(re.sub(r"[ _-]*\d+(\.\d+)? *nm\b", "", name, flags=re.IGNORECASE))


def _require_alike(stacks: Mapping[str, xr.Dataset]) -> None:
    """Refuse stacks that are not mono, or differ in size, units or the frame whose grid they have."""
    first = next(iter(stacks))
    for name, stack in stacks.items():
        check_picture(stack)
        if stack.sizes["channel"] != 1:
            raise WorkbenchError(f"the stack of {name} has colours of its own; finish it by itself")
        for what, mine, its in (
            ("size", *(f"{one.sizes['x']} x {one.sizes['y']}" for one in (stacks[first], stack))),
            ("pixel grid", *(one.attrs.get("reference", "") for one in (stacks[first], stack))),
            ("units", *(one.attrs["units"] for one in (stacks[first], stack))),
        ):
            if mine and its and mine != its:
                raise WorkbenchError(
                    f"the stacks of {first} and {name} have different {what} ({mine} and {its}): stack the lights of "
                    "all filters in one run, which puts them on one grid"
                )


def _one_exposure(stacks: Mapping[str, xr.Dataset]) -> tuple[dict[str, float], list[str]]:
    """By what each stack is multiplied to have the longest one's exposure; what is said of it."""
    longest = _longest(stacks)
    if math.isnan(longest):
        return dict.fromkeys(stacks, 1.0), ["Exposure times are not known: the stacks are taken as they are."]
    factors = {name: longest / float(stack.attrs["exposure"]) for name, stack in stacks.items()}
    changed = [f"{name} times {factor:.4g}" for name, factor in factors.items() if abs(factor - 1) > 1e-6]
    return factors, [f"Brought to {longest:g} s: {', '.join(changed)}."] if changed else []


def _longest(stacks: Mapping[str, xr.Dataset]) -> float:
    return max((float(stack.attrs.get("exposure") or np.nan) for stack in stacks.values()), key=lambda t: (t != t, t))


def _scaled(stacks: Mapping[str, xr.Dataset], factors: Mapping[str, float]) -> dict[str, xr.Dataset]:
    return {name: _sum({name: stack}, {name: factors[name]}) for name, stack in stacks.items()}


def _sum(stacks: Mapping[str, xr.Dataset], terms: Mapping[str, float]) -> xr.Dataset:
    """The weighted sum of some stacks, with its variance; samples of the weightiest, saturated where any is."""
    parts = [(np.float32(weight), stacks[name]) for name, weight in terms.items()]
    main = max(parts, key=lambda part: abs(part[0]))[1]
    data: dict[str, Any] = {"signal": sum(weight * part["signal"].values for weight, part in parts)}
    if all("variance" in part for _, part in parts):
        data["variance"] = sum(weight**2 * part["variance"].values for weight, part in parts)
    if "coverage" in main:
        data["coverage"] = main["coverage"].values
    if any("saturated" in part for _, part in parts):
        clipped = [part["saturated"].values > 0 for _, part in parts if "saturated" in part]
        data["saturated"] = np.logical_or.reduce(clipped)
    return make_picture(**data, attrs=main.attrs)


def _stacked(planes: list[xr.Dataset]) -> xr.Dataset:
    """One picture of three mono ones."""
    names = [name for name in ("signal", "variance", "coverage", "saturated") if all(name in one for one in planes)]
    data: dict[str, Any] = {name: np.concatenate([one[name].values for one in planes]) for name in names}
    return make_picture(**data)


def _filter_ratios(stacks: Mapping[str, xr.Dataset], anchor: str) -> tuple[dict[str, float], list[str]]:
    """By what each stack is multiplied to have stars as bright as those of `anchor`; what is said of it.

    Raises
    ------
    WorkbenchError
        If the stars of two stacks do not lie in the same places.
    """
    stars = {name: find_picture_stars(stack) for name, stack in stacks.items()}
    centre = max(stars, key=lambda name: stars[name].sizes["star"])
    factors, lines = dict.fromkeys(stacks, 1.0), []
    for name, own in stars.items():
        _require_same_places(centre, stars[centre], name, own)
        ratio, count = _filter_ratio(stacks[centre], stacks[name], stars[centre])
        if count >= _FEWEST_STARS:
            factors[name] = ratio
        elif name != centre:
            lines.append(f"{name}: {count} stars shared with {centre}, too few to compare brightness: taken as it is.")
    factors = {name: factor / factors[anchor] for name, factor in factors.items()}
    changed = [f"{name} times {factor:.4g}" for name, factor in factors.items() if name != anchor]
    return factors, [f"Stars as bright as those of {anchor}: {', '.join(changed)}.", *lines]


def _require_same_places(centre: str, reference: xr.Dataset, name: str, stars: xr.Dataset) -> None:
    places, own = (np.stack([s["x"].values, s["y"].values], 1) for s in (reference, stars.isel(star=slice(40))))
    if min(len(places), len(own)) < _FEWEST_STARS:
        return
    near = np.isfinite(cKDTree(places).query(own, distance_upper_bound=_TOGETHER)[0])
    if near.mean() < 1 / 3:
        raise WorkbenchError(
            f"the stacks of {centre} and {name} do not show the same stars in the same places (only {near.sum()} of "
            f"{len(own)}): they have different pixel grids; stack the lights of all filters in one run, which puts "
            "them on one"
        )


def _filter_ratio(first: xr.Dataset, second: xr.Dataset, stars: xr.Dataset) -> tuple[float, int]:
    """By what the second mono picture is multiplied to have stars as bright as the first's, and of how many.

    The median ratio of the bright stars that are significant and unsaturated in both.  Every star counts alike: through
    two filters stars differ by their colours, far more than by the noise that `align.star_ratio` weights frames of one
    filter with.
    """
    chosen = bright_stars(stars, first["signal"].shape[1:], count=300)
    x, y = np.rint(chosen["x"].values).astype(int), np.rint(chosen["y"].values).astype(int)
    good = np.ones(x.size, bool)
    if "saturated" in second:
        good &= ~(second["saturated"].values[0, y, x] > 0)
    flux = []
    for picture in (first, second):
        table = photometry(picture, chosen["x"].values, chosen["y"].values, stars.attrs["searched_fwhm"])
        doubt = np.where(np.isfinite(table["flux_error"]), table["flux_error"], table["background_error"])[:, 0]
        flux.append(table["flux"].values[:, 0])
        with np.errstate(invalid="ignore"):
            good &= flux[-1] > 10 * doubt
    return (float(np.median(flux[0][good] / flux[1][good])) if good.any() else math.nan), int(good.sum())


def _with_luminance(picture: xr.Dataset, light: xr.Dataset, share: float | None) -> tuple[xr.Dataset, str]:
    """Return the picture with the detail of a luminance, and a line for the history; see the module."""
    signal = picture["signal"].values
    mean = _mean(picture)
    ratio, count = _filter_ratio(mean, light, find_picture_stars(mean))
    if count < _FEWEST_STARS:
        raise WorkbenchError(
            f"{count} stars are bright enough in the luminance and the colours, {_FEWEST_STARS} are needed to bring "
            "both to one brightness; compose without L (--palette RGB)"
        )
    light = _sum({"L": light}, {"L": ratio})
    known = "variance" in mean and "variance" in light
    if share is None:
        noise = [float(np.nanmedian(one["variance"].values)) if known else 1.0 for one in (mean, light)]
        share = noise[0] / (noise[0] + noise[1]) if known else 0.75
    if not 0 <= share <= 1:
        raise WorkbenchError(f"the weight of L is its share of the luminance, 0 to 1; got {share:g}")
    detail = light["signal"].values - mean["signal"].values
    usable = np.isfinite(detail)
    if "saturated" in light:
        usable &= ~(light["saturated"].values > 0)
    if usable.any():
        detail -= np.median(detail[usable])  # the sky of L is not that of the colours
    part = np.where(usable, np.float32(share), np.float32(0))
    mixed = picture.assign(signal=picture["signal"].copy(data=signal + part * np.where(usable, detail, 0)))
    if known:
        own = picture["variance"].values
        added = part**2 * (np.where(usable, light["variance"].values, 0) + mean["variance"].values)
        mixed["variance"] = picture["variance"].copy(data=own * (1 - 2 * part / len(own)) + added)
    return mixed, f"Luminance: {share:.0%} of L, the rest of R, G and B; L times {ratio:.4g} ({count} stars)."


def _mean(picture: xr.Dataset) -> xr.Dataset:
    """The mean of the channels as a mono picture."""
    data = {"signal": picture["signal"].values.mean(0)}
    if "variance" in picture:
        data["variance"] = picture["variance"].values.sum(0) / 9
    if "saturated" in picture:
        data["saturated"] = picture["saturated"].values.any(0)
    return make_picture(**data)
