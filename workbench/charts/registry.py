"""The list of the blog's charts: what each shows, which measurement it needs, what to shoot where that is missing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import reduce
from typing import Any

import holoviews as hv

from ..core.errors import WorkbenchError
from . import (
    budget,
    calibration,
    dark,
    diagram,
    fidelity,
    gain,
    noise,
    outliers,
    particles,
    pictures,
    planning,
    stacking,
    words,
)
from . import patterns as uniformity
from . import response as transfer


@dataclass(frozen=True)
class Chart:
    """One chart of the registry.

    Attributes
    ----------
    id
        Its name in file names and commands, for example ``iso-to-gain``.
    title, heading
        What stands above it, and the topic under which the blog treats it.
    draw, words
        From a characterization to the HoloViews object, and to caption and alternative text.
    needs
        The pieces of a characterization without which it cannot be drawn.
    shoot
        Which frames give those pieces.
    numbers
        Whether it shows numbers, which then come as a table too.
    asked
        Whether it is drawn only where its name is asked for.
    """

    id: str
    title: str
    heading: str
    draw: Callable[[Any], hv.Layout]
    words: Callable[[Any], words.Words]
    needs: tuple[str, ...] = ()
    shoot: str = ""
    numbers: bool = True
    asked: bool = False

    def missing(self, result: Any) -> list[str]:
        """Name the pieces that a characterization lacks for this chart."""
        return [
            piece
            for piece in self.needs
            if reduce(lambda part, name: getattr(part, name, None), piece.split("."), result) is None
        ]


_FLATS = "two equal flats at several light levels and ISOs"
_DARKS = "two or more darks at each of three exposure times"
_LIGHTS = "three or more lights of one target with stars, and their darks, bias and flats"
_CHARTS = (
    Chart(
        "shot-noise-demo",
        "Shot noise: counting particles",
        "Shot noise",
        lambda result: diagram.shot_noise_demo(),
        words.shot_noise_demo,
    ),
    Chart(
        "shot-noise-snr",
        "Four times the exposure, twice the signal to noise",
        "Shot noise",
        lambda result: gain.shot_noise_snr(result.snr),
        words.shot_noise_snr,
        ("snr",),
        _FLATS,
    ),
    Chart(
        "ccd-vs-cmos",
        "How a CCD and a CMOS sensor are read out",
        "The sensor",
        lambda result: diagram.ccd_vs_cmos(),
        words.ccd_vs_cmos,
        numbers=False,
    ),
    Chart(
        "missing-codes",
        "Is my raw file raw?",
        "The sensor",
        lambda result: fidelity.missing_codes(result.fidelity.codes, result.fidelity.missing),
        fidelity.missing_codes_words,
        ("fidelity",),
        "any raw frames with whole numbers",
        asked=True,
    ),
    Chart(
        "noise-spectrum",
        "Is the noise each pixel's own?",
        "The sensor",
        lambda result: fidelity.noise_spectrum(result.fidelity.texture),
        fidelity.noise_spectrum_words,
        ("fidelity.texture",),
        "two or more equal frames, best bias frames",
        asked=True,
    ),
    Chart(
        "hot-pixel-filter",
        "Does the camera eat stars?",
        "The sensor",
        lambda result: fidelity.hot_pixel_filter(result.fidelity.hot),
        fidelity.hot_pixel_filter_words,
        ("fidelity.hot",),
        "a dark of 30 s or longer",
        asked=True,
    ),
    Chart(
        "read-noise-vs-iso",
        "Read noise against ISO",
        "Read noise",
        lambda result: gain.read_noise_vs_iso(result.read_noise, result.gain, reference=words.is_d7000(result.camera)),
        words.read_noise_vs_iso,
        ("read_noise",),
        "two or more bias frames at each ISO",
    ),
    Chart(
        "ptc",
        "The photon transfer curve",
        "Gain",
        lambda result: gain.ptc(result.ptc, result.gain),
        words.ptc,
        ("ptc", "gain"),
        _FLATS,
    ),
    Chart(
        "iso-to-gain",
        "From ISO to gain",
        "Gain",
        lambda result: gain.iso_to_gain(result.gain, result.unity, reference=words.is_d7000(result.camera)),
        words.iso_to_gain,
        ("gain",),
        _FLATS,
    ),
    Chart(
        "read-noise-split",
        "Read noise before and after the gain",
        "Read noise",
        lambda result: noise.read_noise_split(result.transfer.split, result.read_noise, result.gain),
        noise.read_noise_split_words,
        ("transfer.split", "read_noise", "gain"),
        "bias frames and pairs of flats at three ISOs or more",
    ),
    Chart(
        "pixel-noise",
        "The read noise of every pixel",
        "Read noise",
        lambda result: noise.pixel_noise(result.pixel_noise),
        noise.pixel_noise_words,
        ("pixel_noise",),
        "ten or more bias frames of one ISO",
        asked=True,
    ),
    Chart(
        "dynamic-range",
        "Dynamic range and full well against ISO",
        "Gain",
        lambda result: noise.dynamic_range(result.transfer.dynamic_range, result.transfer.wells),
        noise.dynamic_range_words,
        ("transfer.dynamic_range", "transfer.wells"),
        "bias frames, and flats up to saturation, at each ISO",
    ),
    Chart(
        "linearity",
        "Twice the light, twice the number?",
        "Gain",
        lambda result: transfer.linearity(result.transfer.linearity),
        transfer.linearity_words,
        ("transfer.linearity",),
        "pairs of flats at eight exposures of one ISO and aperture",
    ),
    Chart(
        "gain-from-darks",
        "The gain from darks alone",
        "Gain",
        lambda result: transfer.dark_gain(result.transfer.dark_transfer, result.transfer.dark_gain, result.gain),
        transfer.dark_gain_words,
        ("transfer.dark_transfer", "transfer.dark_gain"),
        "three or more darks of ten minutes, and bias frames of their ISO",
    ),
    Chart(
        "dark-current-vs-time",
        "Dark signal against exposure time",
        "Dark current",
        lambda result: dark.dark_current_vs_time(result.dark_signal, result.dark_current),
        words.dark_current_vs_time,
        ("dark_signal",),
        _DARKS,
    ),
    Chart(
        "dark-shot-noise-histogram",
        "The shot noise of the dark current",
        "Dark current",
        lambda result: dark.dark_shot_noise_histogram(result.dark_noise),
        words.dark_shot_noise_histogram,
        ("dark_noise",),
        "two equal long darks, and flats or bias for the gain",
    ),
    Chart(
        "dark-current-vs-temperature",
        "Dark current against temperature",
        "Dark current",
        lambda result: dark.dark_current_vs_temperature(result.dark_current, result.dark_law),
        words.dark_current_vs_temperature,
        ("dark_current", "dark_law"),
        "darks at two or more sensor temperatures, which the file, the manifest or the folder's name states",
    ),
    Chart(
        "dcnu-histogram",
        "The dark current of every pixel",
        "Fixed pattern",
        lambda result: dark.dcnu_histogram(result.dcnu),
        words.dcnu_histogram,
        ("dcnu",),
        _DARKS,
    ),
    Chart(
        "hot-pixels",
        "Hot pixels",
        "Fixed pattern",
        lambda result: pictures.hot_pixels(result.hot_pixels),
        words.hot_pixels,
        ("hot_pixels",),
        _DARKS,
    ),
    Chart(
        "dark-law",
        "Doubling, or an activation energy?",
        "Dark current",
        lambda result: uniformity.dark_law(result.dark_current, result.dark_law),
        uniformity.dark_law_words,
        ("dark_current", "dark_law"),
        f"{_DARKS}, at two or more temperatures",
        asked=True,
    ),
    Chart(
        "fixed-pattern",
        "What every frame has in common",
        "Fixed pattern",
        lambda result: uniformity.fixed_pattern(result.uniformity.bias_pattern, result.uniformity.flat_pattern),
        uniformity.fixed_pattern_words,
        ("uniformity.bias_pattern",),
        "ten or more bias frames",
        numbers=False,
        asked=True,
    ),
    Chart(
        "spectrogram",
        "Stripes, or no order at all?",
        "Fixed pattern",
        lambda result: uniformity.spectrogram(result.uniformity.bias_pattern, result.uniformity.flat_pattern),
        uniformity.spectrogram_words,
        ("uniformity.bias_pattern",),
        "ten or more bias frames",
        asked=True,
    ),
    Chart(
        "uniformity",
        "How much the pixels differ",
        "Fixed pattern",
        lambda result: uniformity.uniformity_parts(result.uniformity.dsnu, result.uniformity.prnu),
        uniformity.uniformity_parts_words,
        ("uniformity.dsnu",),
        "ten or more bias frames, and equal flats at half of saturation",
        asked=True,
    ),
    Chart(
        "defects",
        "Hot, warm, dead and unstable pixels",
        "Fixed pattern",
        lambda result: uniformity.defects(result.uniformity.defects),
        uniformity.defects_words,
        ("uniformity.defects",),
        f"{_DARKS}, ten bias frames, flats",
        asked=True,
    ),
    Chart(
        "vignette",
        "Vignetting: a flat as a picture",
        "Flats",
        lambda result: pictures.vignette(result.vignetting),
        words.vignette,
        ("vignetting",),
        "flats of an evenly lit field through the lens or telescope",
    ),
    Chart(
        "dark-subtraction",
        "Before and after dark subtraction",
        "Calibration",
        lambda result: pictures.dark_subtraction(result.dark_subtraction),
        words.dark_subtraction,
        ("dark_subtraction",),
        "three or more long darks at one temperature, better still with a light of the same exposure",
    ),
    Chart(
        "noise-budget",
        "Whose noise is it?",
        "Dark noise, read noise and shot noise together",
        lambda result: budget.noise_budget(result.sensor),
        budget.noise_budget_words,
        ("gain", "read_noise", "dark_current"),
        "bias frames and pairs of flats of the same ISO settings, and darks of several exposure times at two "
        "temperatures",
    ),
    Chart(
        "flat-correction",
        "Does the flat flatten?",
        "Flats",
        lambda result: calibration.flat_correction(result.lights.audit),
        calibration.flat_correction_words,
        ("lights.audit",),
        f"flats through the telescope as it is, and {_LIGHTS}",
    ),
    Chart(
        "alignment-residuals",
        "How well do the frames fit together?",
        "Alignment",
        lambda result: stacking.alignment_residuals(result.lights.registration.residuals()),
        stacking.alignment_residuals_words,
        ("lights.registration",),
        _LIGHTS,
    ),
    Chart(
        "snr-vs-frames",
        "More frames, less noise",
        "Stacking",
        lambda result: stacking.snr_vs_frames(result.lights.growth),
        stacking.snr_vs_frames_words,
        ("lights.growth",),
        _LIGHTS,
    ),
    Chart(
        "rejection",
        "Satellites and cosmic rays thrown out",
        "Stacking",
        lambda result: outliers.rejection(result.lights.trial),
        outliers.rejection_words,
        ("lights.trial",),
        _LIGHTS,
    ),
    Chart(
        "stack-before-after",
        "One light, and the stack",
        "Stacking",
        lambda result: stacking.stack_before_after(result.lights.pair),
        stacking.stack_before_after_words,
        ("lights.pair",),
        _LIGHTS,
    ),
    Chart(
        "cosmic-rays",
        "Cosmic rays in darks",
        "Dark current",
        lambda result: particles.cosmic_rays(result.cosmic_rays),
        particles.cosmic_rays_words,
        ("cosmic_rays",),
        "twenty or more equal darks",
        asked=True,
    ),
    Chart(
        "sub-length",
        "How long should a sub be?",
        "Planning",
        lambda result: planning.sub_length(result.subs),
        planning.sub_length_words,
        ("subs",),
        "a light of a minute or more, with bias frames and pairs of flats of its ISO",
        asked=True,
    ),
    Chart(
        "star-elongation",
        "How long can the mount hold?",
        "Planning",
        lambda result: planning.star_elongation(result.shapes, result.tracking),
        planning.star_elongation_words,
        ("shapes", "tracking"),
        "lights of several exposures",
        asked=True,
    ),
)
REGISTRY: dict[str, Chart] = {chart.id: chart for chart in _CHARTS}


def select(only: tuple[str, ...] | list[str] | None = None) -> list[Chart]:
    """Return the charts of these ids in the registry's order, or all of them.

    Raises
    ------
    WorkbenchError
        If an id is not in the registry.
    """
    if not only:
        return [chart for chart in REGISTRY.values() if not chart.asked]
    unknown = [name for name in only if name not in REGISTRY]
    if unknown:
        near = [name for one in unknown for name in get_close_matches(one, REGISTRY, n=2)]
        meant = f"did you mean {' or '.join(near)}? The" if near else "the"
        raise WorkbenchError(
            f"there is no chart {', '.join(map(repr, unknown))}; {meant} charts are {', '.join(REGISTRY)}"
        )
    return [chart for chart in REGISTRY.values() if chart.id in only]
