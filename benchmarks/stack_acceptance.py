"""What a stack must hold, measured against the truth of a simulated night (virtual sky, virtual camera).

    python benchmarks/stack_acceptance.py NIGHT [--out stack.fits] [--json results.json]

NIGHT is a folder that `workbench.simulate.night.write_night` made.  Prints each quantity with what it must be.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
from astropy.io import fits
from scipy.ndimage import binary_dilation
from scipy.optimize import least_squares

from workbench.align import Transform
from workbench.core.mosaic import channel_index
from workbench.core.values import attribute_dict
from workbench.pipelines.stacking import stack_folder
from workbench.simulate.night import Night, open_night
from workbench.simulate.sky import picture, render, replace_stars, star_table, to_pixels, to_sky
from workbench.stack import area_variance, open_stack
from workbench.stack.normalise import AREA

BLOCK = 32
LEAST = {8: 0.85, AREA: 0.85, BLOCK: 0.85, 64: 0.6, 128: 0.4}  # share of an area's pixels that lies far from stars
SHARE = {"R": 0.25, "G": 0.5, "B": 0.25, "mono": 1.0}  # of the mosaic's pixels


def truth_of_the_sky(night: Night, reference: int) -> np.ndarray:
    """The nebula alone in the reference frame's light [e-], (channel, y, x)."""
    view = replace(night.views[reference], background=(0.0, 0.0, 0.0), trails=())
    return picture(replace_stars(night.sky, nebula=1.0), view).values * view.exposure * flat_mean(night)[:, None, None]


def flat_mean(night: Night) -> np.ndarray:
    """The mean response of each colour's pixels, by which flats of mean 1 a plane scale the electrons (channel)."""
    response = night.through * night.sensor.illumination() * night.sensor.response_map
    cell = np.array([0, 1, 1, 2])[channel_index(night.sensor.cfa_pattern)]
    means = [[] for _ in range(3)]
    for (row, column), colour in np.ndenumerate(cell):
        means[colour].append(float(response[row::2, column::2].mean()))
    return np.array([np.mean(values) for values in means])


def starless(night: Night, reference: int, shape: tuple[int, int], least: float, reach: float) -> np.ndarray:
    """Where no star of at least `least` e- lies within a reach that grows with its flux [px]."""
    view = night.views[reference]
    free = np.ones(shape, bool)
    stars = star_table(night.sky, view, border=-40)
    for star in stars:
        electrons = float(star["flux"].max()) * view.exposure
        if electrons < least:
            continue
        radius = reach * (electrons / least) ** 0.3
        y0, y1 = max(0, int(star["y"] - radius)), min(shape[0], int(star["y"] + radius) + 2)
        x0, x1 = max(0, int(star["x"] - radius)), min(shape[1], int(star["x"] + radius) + 2)
        if y1 > y0 and x1 > x0:
            y, x = np.mgrid[y0:y1, x0:x1]
            free[y0:y1, x0:x1] &= (y - star["y"]) ** 2 + (x - star["x"]) ** 2 > radius**2
    return free


def block_sums(values: np.ndarray, good: np.ndarray, side: int) -> np.ndarray:
    """Sums of the good values of a plane in whole blocks of `side` pixels (row, column)."""
    rows, columns = (size // side for size in good.shape)
    parts = np.where(good, values, 0)[: rows * side, : columns * side].reshape(rows, side, columns, side)
    return parts.sum((1, 3), dtype=float)


def block_means(
    residual: np.ndarray, variance: np.ndarray, good: np.ndarray, side: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean residual of the good pixels of each block, its variance, and their share of the block."""
    count = np.maximum(block_sums(good, good, side), 1)
    return block_sums(residual, good, side) / count, block_sums(variance, good, side) / count**2, count / side**2


def smooth_residual(residual: np.ndarray, good: np.ndarray, cell: int = 8) -> np.ndarray:
    """Residual less a second-order surface: the sky's own background is nobody's truth after normalisation.

    It is fitted to all good pixels, by their means in cells: that of a sample of the pixels has noise of its own, which
    would count as a residual of wide areas.
    """
    height, width = residual.shape
    count = block_sums(good, good, cell)
    values = block_sums(residual, good, cell) / np.maximum(count, 1)

    def terms(y, x):
        u, v = x / width - 0.5, y / height - 0.5
        return np.stack([np.ones_like(u), u, v, u * u, u * v, v * v], -1)

    design = terms(*(np.mgrid[: count.shape[0], : count.shape[1]] * cell + (cell - 1) / 2))
    use, root = count > cell * cell / 2, np.sqrt(count)
    for _ in range(4):
        fit, *_ = np.linalg.lstsq(design[use] * root[use, None], values[use] * root[use], rcond=None)
        left = (values - design @ fit) * root
        use &= np.abs(left) < 4 * np.std(left[use])
    y, x = np.mgrid[:height, :1], np.mgrid[:1, :width]
    u, v = x[1] / width - 0.5, y[0] / height - 0.5
    return residual - (fit[0] + fit[1] * u + fit[2] * v + fit[3] * u * u + fit[4] * u * v + fit[5] * v * v)


def mean_chi_square(mean: np.ndarray, variance: np.ndarray, alike: float = 1.0) -> tuple[float, float]:
    """Mean of mean²/variance, outliers left out, and its error; so many values are `alike` that one is worth them."""
    chi = mean**2 / variance
    chi = chi[chi < 25]
    return float(chi.mean()), math.sqrt(2 * alike / chi.size)


def pixel_chi_square(residual: np.ndarray, single: np.ndarray, good: np.ndarray, channel: str) -> tuple[float, float]:
    """Mean of residual² over the variance of single pixels (y, x), with its error.

    Resampling shares each sample out: so many pixels are worth as many samples as the channel has among them.
    """
    chi = (residual[good] ** 2 / single[good]).astype(float)
    chi = chi[chi < 25]
    return float(chi.mean()), math.sqrt(2 / (chi.size * SHARE[channel]))


def nearby_chi_square(residual: np.ndarray, variance: np.ndarray, good: np.ndarray) -> tuple[float, float]:
    """Chi-square of areas of 16 x 16 pixels against the mean of the four areas 32 pixels away, with its error.

    Their noise is a quarter of the area's own; only what varies over shorter distances is left.
    """
    mean, expected, share = block_means(residual, variance, good, AREA)
    inner, shifts = np.s_[2:-2, 2:-2], ((-2, 0), (2, 0), (0, -2), (0, 2))
    chosen = share > LEAST[AREA]
    around = [np.stack([np.roll(part, shift, (0, 1))[inner] for shift in shifts]) for part in (mean, expected, chosen)]
    use = chosen[inner] & around[2].all(0)
    difference, noise = mean[inner] - around[0].mean(0), expected[inner] + around[1].sum(0) / 16
    # differences have areas in common: 1 + 4 · 0.4² + ... = 1.7 of them are worth one
    return mean_chi_square(difference[use], noise[use], 1.7)


def ideal_variance(night: Night, used: list[int], reference: int, nebula: np.ndarray) -> np.ndarray:
    """Variance of the ideal inverse-variance combination, as equivalent white noise (channel, y, x) [e-²].

    Of sky background, nebula, dark signal and read noise; no star light, and masters without noise.
    """
    sensor = night.sensor
    dark = sensor.mean_dark_current(night.settings.temperature)
    flat = night.through * sensor.illumination()
    mean = flat_mean(night)
    nebula = nebula / mean[:, None, None] / night.views[reference].transparency
    height, width = night.sky.shape
    v, u = np.mgrid[:height, :width]
    weights = np.zeros((3, height, width), np.float32)
    for number in used:
        view = night.views[number]
        scale = night.views[reference].transparency / view.transparency
        for place in range(3):
            tilt = 1 + view.gradient[place, 0] * (v / height - 0.5) + view.gradient[place, 1] * (u / width - 0.5)
            light = view.background[place] * view.exposure * tilt + nebula[place] * view.transparency
            sample = light / flat + (sensor.read_noise(night.settings.iso) ** 2 + dark * view.exposure) / flat**2
            weights[place] += 1.0 / (scale**2 * sample)
    share = np.array([0.25, 0.5, 0.25])
    return (mean**2 / share)[:, None, None] / weights


def gaussian_fwhm(image: np.ndarray, x: float, y: float, reach: int, moffat_beta: float) -> float:
    """FWHM of a star by a pixel-integrated Moffat of the night's beta, free centre, width, flux, background."""
    x0, y0 = round(x), round(y)
    part = image[y0 - reach : y0 + reach + 1, x0 - reach : x0 + reach + 1].astype(float)
    v, u = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(float)
    nodes, gauss = np.polynomial.legendre.leggauss(3)

    def model(p):
        alpha = abs(p[2]) / (2 * math.sqrt(2 ** (1 / moffat_beta) - 1))
        total = 0.0
        for a, wa in zip(nodes / 2, gauss / 2, strict=True):
            for b, wb in zip(nodes / 2, gauss / 2, strict=True):
                total = total + wa * wb * (1 + ((u + a - p[0]) ** 2 + (v + b - p[1]) ** 2) / alpha**2) ** -moffat_beta
        return p[3] * total + p[4]

    start = [x - x0, y - y0, 3.0, float(part.max() - np.median(part)), float(np.median(part))]
    fit = least_squares(lambda p: (model(p) - part).ravel(), start, method="lm")
    return abs(fit.x[2])


def measure(night: Night, out: Path) -> dict[str, dict]:
    with fits.open(out, memmap=True) as hdus:
        signal = np.array(hdus[0].data, np.float32)
        variance = np.array(hdus["VARIANCE"].data, np.float32)
        coverage = np.array(hdus["COVERAGE"].data)
        low, high = np.array(hdus["REJECTED_LOW"].data), np.array(hdus["REJECTED_HIGH"].data)
        header, table = hdus[0].header, hdus["FRAMES"].data
        names = [str(name).strip() for name in table["file"]]
        used = [night.lights.index(name) for name, flag in zip(names, table["used"], strict=True) if flag]
        transforms = {
            night.lights.index(name): Transform.from_dict(json.loads(str(text)))
            for name, text, flag in zip(names, table["transform"], table["used"], strict=True)
            if flag
        }
        scales = {night.lights.index(name): s for name, s in zip(names, table["scale"], strict=True)}
    reference = night.lights.index(header["REFFRAME"])
    shape = signal.shape[1:]
    results: dict[str, dict] = {}

    def say(name, value, must, ok):
        results[name] = {"value": value, "must": must, "ok": bool(ok)}
        text = ", ".join(f"{v:.4g}" for v in np.atleast_1d(value))
        print(f"{'ok  ' if ok else 'FAIL'} {name:58s} {text:32s} must {must}", flush=True)

    errors = alignment(night, transforms, reference)
    say(
        "alignment error over the field, median and worst [px]",
        errors,
        "<= 0.02, 0.04",
        errors[0] <= 0.02 and errors[1] <= 0.04,
    )
    nebula = truth_of_the_sky(night, reference)
    free = starless(night, reference, shape, 60.0, 7.0)
    inner = np.zeros(shape, bool)
    edge = 96
    inner[edge:-edge, edge:-edge] = True
    full = inner & (coverage >= 0.8 * len(used)).all(0)

    # background noise, and the variance of single pixels and of areas
    opened, good = open_stack(out), free & full
    shares = attribute_dict(opened.attrs, "pixel_variance_share")
    ideal = ideal_variance(night, used, reference, nebula)
    ratios, chis, found = [], [], []
    for c, name in enumerate("RGB"):
        residual = smooth_residual(signal[c] - nebula[c], good)
        mean, least, share = block_means(residual, ideal[c], good, BLOCK)
        ratios.append(math.sqrt(mean_chi_square(mean[share > LEAST[BLOCK]], least[share > LEAST[BLOCK]])[0]))
        single = shares[name] * (variance[c] - opened["shared_variance"][c].values)
        found.append((f"chi-square of single pixels {name}", pixel_chi_square(residual, single, good, name), 0))
        near = nearby_chi_square(residual, variance[c], good)
        found.append((f"chi-square of 16-px areas {name}, against those 32 px away", near, 2))
        for side, enough in LEAST.items():
            mean, expected, share = block_means(residual, area_variance(opened, side)[c].values, good, side)
            chi = mean_chi_square(mean[share > enough], expected[share > enough])
            found.append((f"chi-square of {side}-px areas {name}", chi, 2))
            if side == BLOCK:
                chis.append(chi[0])
    say("noise in 32-px blocks over the ideal, R G B", ratios, "<= 1.05", max(ratios) <= 1.05)
    say("chi-square of the variance in 32-px blocks, R G B", chis, "0.95 to 1.05", all(0.95 <= x <= 1.05 for x in chis))
    for title, (chi, error), errors in found:
        must = "0.97 to 1.03" if errors == 0 else "|x - 1| <= 0.03 + 2 se"
        say(title, [chi, error], must, abs(chi - 1) <= 0.03 + errors * error)

    view = night.views[reference]
    stars = star_table(night.sky, view, border=60)
    exposure = view.exposure

    # FWHM: isolated bright stars in the stack, over the mean of the frames' own
    flux = stars["flux"] * exposure * flat_mean(night)
    xs, ys = stars["x"], stars["y"]
    isolated = []
    for k in np.argsort(-flux[:, 1]):
        if not 8_000 < flux[k, 1] < 60_000:
            continue
        near = (np.hypot(xs - xs[k], ys - ys[k]) < 25) & (np.arange(len(xs)) != k)
        if not near.any() or flux[near, 1].sum() < 0.005 * flux[k, 1]:
            isolated.append(k)
    beta = night.views[0].beta
    expected = np.mean([night.views[n].fwhm for n in used])
    ratio = [
        np.median([gaussian_fwhm(signal[c], xs[k], ys[k], 9, beta) for k in isolated[:60]]) / expected for c in range(3)
    ]
    say("FWHM over the mean of the frames' PSF, R G B", ratio, "<= 1.05", max(ratio) <= 1.05)

    # star flux: difference images against an aperture with its local sky
    bins = [(1_500, 5_000), (5_000, 20_000), (20_000, 110_000)]
    worst = []
    v, u = np.mgrid[-26:27, -26:27]
    for low_flux, high_flux in bins:
        for c in range(3):
            errors, sigmas = [], []
            for k in np.flatnonzero((flux[:, c] >= low_flux) & (flux[:, c] < high_flux))[:4000]:
                near = (np.hypot(xs - xs[k], ys - ys[k]) < 30) & (np.arange(len(xs)) != k)
                if near.any() and flux[near, c].sum() > 0.002 * flux[k, c]:
                    continue
                x0, y0 = round(xs[k]), round(ys[k])
                part = signal[c, y0 - 26 : y0 + 27, x0 - 26 : x0 + 27] - nebula[c, y0 - 26 : y0 + 27, x0 - 26 : x0 + 27]
                r = np.hypot(u - (xs[k] - x0), v - (ys[k] - y0))
                aperture, ring = r <= 14, (r > 18) & (r <= 25)
                sky = np.median(part[ring])
                # the share of the light in the aperture, from the mix of the frames' profiles
                inside = moffat_share(night, used, 14.0) - moffat_ring(night, used, 18.0, 25.0) * aperture.sum()
                got = (part[aperture] - sky).sum() / inside
                errors.append(got / flux[k, c] - 1)
                var = variance[c, y0 - 26 : y0 + 27, x0 - 26 : x0 + 27][aperture].sum()
                sigmas.append(math.sqrt(var * (1 + 1.57 * aperture.sum() / ring.sum())) / flux[k, c])
            if len(errors) < 5:
                continue
            errors, sigmas = np.array(errors), np.array(sigmas)
            w = 1 / (sigmas**2 + 0.005**2)
            keep = np.abs(errors - np.median(errors)) < 5 * np.hypot(sigmas, 0.01)
            mean = (w * errors)[keep].sum() / w[keep].sum()
            se = 1 / math.sqrt(w[keep].sum())
            worst.append((low_flux, "RGB"[c], len(errors), mean, se))
    for low_flux, name, count, mean, se in worst:
        limit = 0.005 + 2 * se
        say(
            f"star flux {name} from {low_flux} e- ({count} stars)",
            [mean, se],
            "|x| <= 0.5 % + 2 se",
            abs(mean) <= limit,
        )

    # trails and cosmic rays: what is left of them in the stack
    trail_left(night, used, reference, signal, nebula, free, scales, table, names, say)
    cosmic_left(night, used, reference, signal, variance, nebula, scales, table, names, say)
    false_rejections(night, used, reference, signal, low, high, coverage, full, scales, table, names, say)
    return results


def moffat_share(night: Night, used: list[int], radius: float) -> float:
    """The mean share of a star's light within a radius (Moffat: 1 - (1 + r²/α²)^(1-β))."""
    shares = []
    for n in used:
        view = night.views[n]
        alpha = view.fwhm / (2 * math.sqrt(2 ** (1 / view.beta) - 1))
        shares.append(1 - (1 + radius**2 / alpha**2) ** (1 - view.beta))
    return float(np.mean(shares))


def moffat_ring(night: Night, used: list[int], inner: float, outer: float) -> float:
    """The mean light of a star in one pixel of a ring."""
    return (moffat_share(night, used, outer) - moffat_share(night, used, inner)) / (math.pi * (outer**2 - inner**2))


def to_reference(night: Night, number: int, reference: int, x: np.ndarray, y: np.ndarray):
    """True positions in the reference of detector positions in a frame."""
    return to_pixels(night.sky, night.views[reference], *to_sky(night.sky, night.views[number], x, y))


def trail_left(night, used, reference, signal, nebula, free, scales, table, names, say) -> None:
    """Light left along the trails' centre lines, over what an unrejected frame would leave there."""
    shape = signal.shape[1:]
    for c in range(3):
        left, weight = [], []
        for n in used:
            for trail in night.views[n].trails:
                length = math.hypot(trail.x1 - trail.x0, trail.y1 - trail.y0)
                s = np.arange(0, length, 1.0) / length
                x, y = trail.x0 + s * (trail.x1 - trail.x0), trail.y0 + s * (trail.y1 - trail.y0)
                nx, ny = -(trail.y1 - trail.y0) / length, (trail.x1 - trail.x0) / length
                values, sides = [], []
                for offset in (0.0, 12.0, -12.0, 15.0, -15.0):
                    rx, ry = to_reference(night, n, reference, x + offset * nx, y + offset * ny)
                    i, j = np.rint(rx).astype(int), np.rint(ry).astype(int)
                    ok = (i > 20) & (j > 20) & (i < shape[1] - 20) & (j < shape[0] - 20)
                    line = np.full(x.size, np.nan)
                    line[ok] = (signal[c] - nebula[c])[j[ok], i[ok]]
                    line[ok] = np.where(free[j[ok], i[ok]], line[ok], np.nan)
                    (values if offset == 0 else sides).append(line)
                both = np.isfinite(values[0]) & np.isfinite(sides).all(0)
                difference = values[0][both] - np.mean(sides, axis=0)[both]
                if difference.size < 100:
                    continue
                unrejected = trail.electrons[c] / len(used)
                left.append(difference.mean() / unrejected)
                weight.append((difference.std() / math.sqrt(difference.size) / unrejected * 1.5) ** -2)
        if left:
            left, weight = np.array(left), np.array(weight)
            mean, se = float((left * weight).sum() / weight.sum()), 1 / math.sqrt(weight.sum())
            say(f"trail left {'RGB'[c]} ({len(left)} trails)", [mean, se], "<= 2.5 % + 2 se", mean <= 0.025 + 2 * se)


def cosmic_left(night, used, reference, signal, variance, nebula, scales, table, names, say) -> None:
    """Mean residual at the pixels that cosmic rays hit, over their surroundings."""
    from workbench.simulate.sky import cosmic_rays

    shape = signal.shape[1:]
    free = starless(night, reference, shape, 60.0, 9.0)
    residual = signal - nebula
    values = [[], [], []]
    sigma = [[], [], []]
    for n in used:
        rows, columns, electrons = cosmic_rays(night.sky, night.views[n])
        bright = electrons > 100
        x, y = to_reference(night, n, reference, columns[bright].astype(float), rows[bright].astype(float))
        i, j = np.rint(x).astype(int), np.rint(y).astype(int)
        ok = (i > 40) & (j > 40) & (i < shape[1] - 40) & (j < shape[0] - 40)
        ok[ok] &= free[j[ok], i[ok]]
        for c in range(3):
            for a, b in zip(i[ok], j[ok], strict=True):
                around = residual[c, b - 24 : b + 25, a - 24 : a + 25][free[b - 24 : b + 25, a - 24 : a + 25]]
                values[c].append(residual[c, b, a] - np.median(around))
                sigma[c].append(variance[c, b, a])
    for c in range(3):
        v = np.array(values[c])
        mean, se = float(v.mean()), float(v.std() / math.sqrt(v.size))
        say(f"cosmic rays left {'RGB'[c]} ({v.size} pixels) [e-]", [mean, se], "<= 0.3 + 2 se", mean <= 0.3 + 2 * se)


def false_rejections(night, used, reference, signal, low, high, coverage, full, scales, table, names, say) -> None:
    """Share of samples rejected where nothing happened: on empty sky, and in the cores of stars."""
    from workbench.simulate.sky import cosmic_rays, trail_mask

    shape = signal.shape[1:]
    events = np.zeros(shape, bool)
    for n in used:
        mask = np.zeros(shape, bool)
        rows, columns, _ = cosmic_rays(night.sky, night.views[n])
        mask[rows, columns] = True
        mask |= trail_mask(night.sky, night.views[n], reach=3.0)
        j, i = np.nonzero(mask)
        rx, ry = to_reference(night, n, reference, i.astype(float), j.astype(float))
        i, j = np.rint(rx).astype(int), np.rint(ry).astype(int)
        ok = (i >= 0) & (j >= 0) & (i < shape[1]) & (j < shape[0])
        events[j[ok], i[ok]] = True
    events = binary_dilation(events, iterations=8)
    free = starless(night, reference, shape, 12.0, 9.0) & full & ~events
    rejected = low.astype(int) + high
    sky = [float(rejected[c][free].sum() / max((rejected[c] + coverage[c])[free].sum(), 1)) for c in range(3)]
    say("false rejections on empty sky", sky, "<= 0.1 %", max(sky) <= 0.001)
    peak = render(
        replace_stars(night.sky, night.sky.x, night.sky.y, night.sky.flux),
        replace(night.views[reference], background=(0, 0, 0), trails=()),
        "R",
    )
    shares = []
    for c, name in enumerate("RGB"):
        if name != "R":
            peak = render(night.sky, replace(night.views[reference], background=(0, 0, 0), trails=()), name)
        cores = (peak * night.views[reference].exposure > 1000) & full & ~events
        shares.append(float(rejected[c][cores].sum() / max((rejected[c] + coverage[c])[cores].sum(), 1)))
    say("false rejections in star cores", shares, "<= 1 %", max(shares) <= 0.01)


def alignment(night: Night, transforms: dict[int, Transform], reference: int) -> tuple[float, float]:
    """Median and worst frame's rms error of the transforms over the field [px]."""
    height, width = night.sky.shape
    x, y = np.meshgrid(np.linspace(0, width - 1, 21), np.linspace(0, height - 1, 15))
    sx, sy = to_sky(night.sky, night.views[reference], x, y)
    errors = []
    for number, transform in transforms.items():
        if number == reference:
            continue
        px, py = to_pixels(night.sky, night.views[number], sx, sy)
        gx, gy = transform.apply(x, y)
        errors.append(float(np.sqrt(np.mean((gx - px) ** 2 + (gy - py) ** 2))))
    return float(np.median(errors)), float(max(errors))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("night", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", action="store_true", help="measure an existing stack")
    options = parser.parse_args()
    night = open_night(options.night)
    out = options.out or options.night / "stack.fits"
    if not (options.keep and out.exists()):
        print(stack_folder(options.night, out))
    results = measure(night, out)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
