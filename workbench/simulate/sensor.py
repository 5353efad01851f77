"""The virtual camera: a simulated Nikon D7000 whose truth is known.

Photons become electrons (one Poisson draw over light and dark current together, which is exact), electrons
become ADU (gain, read noise, offset, fixed pattern, 14 bits).  The parameters, the per-pixel maps and the
laws are plain attributes, so that what is measured on the frames can be compared with what is true.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..core.cube import channels_of
from ..core.dark import BOLTZMANN
from ..core.errors import WorkbenchError
from ..core.mosaic import channel_index, spread
from ..core.parallel import in_threads

ABSOLUTE_ZERO = -273.15  # °C

# Rows that share one random stream.  Each band has its own, so the bits do not depend on the number of
# threads, and only a band's temporaries are in memory.  Changing it changes every simulated frame.
_BAND = 128
_FIXED_PATTERN, _RESPONSE, _DARK = range(3)  # the random streams of the maps


@dataclasses.dataclass(frozen=True)
class VirtualSensor:
    """A sensor with known truth; `d7000` makes one, `dataclasses.replace` changes a parameter.

    The defaults are published or measured figures of the D7000, or else called a choice.  Sources: *chart* is the
    blog's own gain chart, *Claff* the read noise that Bill Claff publishes (photonstophotos.net), *author* the dark
    frames of the blog's author (ISO 200: 618.7 ADU, sd 4.79 after 60 s in the room; 601.0 ADU, sd 2.20 after 600 s in
    the freezer).

    Attributes
    ----------
    shape, seed
        Rows and columns [pixels]; what draws the fixed maps: this one body, not its noise.
    gain_iso100
        Gain at ISO 100 [e⁻/ADU]; at other settings it is ``gain_iso100 · 100 / iso``.  Chart: 0.94 ADU/e⁻ at
        ISO 200, which puts unity gain at ISO 213.  All four colours have it: the real frames of one D7000
        agree to 2 % once the stock firmware's multipliers are divided out.
    analogue_limit_iso
        Above it the camera multiplies the digitised numbers instead of amplifying, so codes go missing.  The
        D7000's analogue gain ends near ISO 1000 (Claff), yet the chart follows one line to ISO 6400; infinite by
        default (a choice), so that read noise and gain follow one law each.
    noise_before_gain, noise_after_gain
        Read noise before [e⁻ rms] and after [ADU rms] the amplifier: σ² = σ_pre² + (σ_post g)².  Solved from
        Claff's 3.1 e⁻ at ISO 100 and 2.45 e⁻ at ISO 1000.
    black_level, white_level
        In ADU, of the patched firmware: black about 600 (author), white the end of 14 bits (real D7000s saturate
        between 15,778 and 16,383).
    pixel_offset, column_offset, row_offset
        Standard deviation of the fixed pattern [ADU rms] by pixel, column and row.  A choice.
    prnu
        Standard deviation of the pixels' response (a ratio).  A choice.
    vignetting
        Light lost in the corners (a ratio): illumination is 1 - vignetting (r/r_corner)², a polynomial because
        cos⁴ gives other last bits on other processors.  A choice.
    full_well
        In e⁻; a choice at the upper end of the 29,000 to 40,000 derived for ISO 100, so that the converter clips
        first at every ISO.
    dark_current, reference_temperature
        Mean over all pixels, hot ones included [e⁻/s/pixel], at the reference temperature [°C].  Author:
        (618.7 - 601.0) ADU · 1.064 e⁻/ADU / 60 s = 0.31.
    doubling_temperature
        T_d [K] of D = D_ref 2^((T - T_ref)/T_d).  A choice between the published 4.3 (Canon 5D II) and 6.5
        (Canon 1000D).
    activation_energy
        ΔE [eV] of D ∝ exp(-ΔE/kT), used instead of the doubling law when given.
    dark_spread
        σ of the logarithm of the ordinary pixels' dark current.  A choice; the author's sd of 4.79 ADU leaves 0.07
        when read noise and shot noise are taken out.
    hot_fraction, hot_median, hot_spread
        Share of hot pixels, and the lognormal of their extra dark current: median [e⁻/s] at the reference
        temperature and σ of the logarithm.  0.12 % is what a Nikon D5300 shows (M. Shelley: 29,500 of
        24 million); the lognormal is a choice.
    step
        ADU from one code to the next: 16 for the 12 bits of a cooled camera that are saved in 16.
    cfa_pattern, camera
        Colours from pixel (0, 0); the name that the frames carry, with "simulated" in it.
    """

    shape: tuple[int, int] = (3264, 4928)
    seed: int = 7000
    gain_iso100: float = 2.13
    analogue_limit_iso: float = math.inf
    noise_before_gain: float = 2.4425
    noise_after_gain: float = 0.8963
    black_level: float = 600.0
    white_level: int = 16383
    pixel_offset: float = 0.4
    column_offset: float = 0.1
    row_offset: float = 0.05
    prnu: float = 0.006
    vignetting: float = 0.35
    full_well: float = 40_000.0
    dark_current: float = 0.3
    reference_temperature: float = 20.0
    doubling_temperature: float = 6.0
    activation_energy: float | None = None
    dark_spread: float = 0.10
    hot_fraction: float = 0.0012
    hot_median: float = 0.8
    hot_spread: float = 0.9
    step: int = 1
    cfa_pattern: str = "RGGB"
    camera: str = "NIKON D7000 (simulated)"

    def __post_init__(self) -> None:
        if len(self.shape) != 2 or min(self.shape) < 2 or any(side % 2 for side in self.shape):
            raise WorkbenchError(f"a sensor's shape is two even numbers of pixels (rows, columns), not {self.shape}")
        if not 0 <= self.vignetting < 1:
            raise WorkbenchError(f"vignetting is the share of light lost in the corners, 0 to 1, not {self.vignetting}")
        channel_index(self.cfa_pattern)  # refuses an unknown pattern

    def gain(self, iso: float) -> float:
        """Return the gain [e⁻/ADU] of the saved numbers at an ISO setting.

        Examples
        --------
        >>> VirtualSensor().gain(200)
        1.065
        """
        if not (math.isfinite(iso) and iso > 0):
            raise WorkbenchError(f"iso is a positive number, not {iso}")
        return self.gain_iso100 * 100 / iso

    def read_noise(self, iso: float) -> float:
        """Return the read noise [e⁻ rms] at an ISO setting, quantisation not included.

        σ² = σ_pre² + (σ_post g)², with the gain g of the amplifier, which stops at `analogue_limit_iso`.

        Examples
        --------
        >>> [round(VirtualSensor().read_noise(iso), 2) for iso in (100, 200, 1000)]
        [3.1, 2.62, 2.45]
        """
        after = self.noise_after_gain * self.gain(min(iso, self.analogue_limit_iso))
        return math.sqrt(self.noise_before_gain**2 + after**2)

    @property
    def unity_gain_iso(self) -> float:
        """The ISO setting at which one electron is one ADU."""
        return 100 * self.gain_iso100

    def saturation(self, iso: float) -> float:
        """Return the signal [e⁻] at which a pixel saturates: its well or the converter, whichever comes first."""
        return min(self.full_well, (self.white_level - self.black_level) * self.gain(iso))

    def dark_factor(self, temperature: float) -> float:
        """Return the dark current at a temperature [°C] relative to the one at the reference temperature.

        The doubling law, 2^((T - T_ref)/T_d), or the Arrhenius law, exp(-ΔE/k (1/T - 1/T_ref)) with
        temperatures in kelvin, where an `activation_energy` is given.  They are not the same curve.

        Examples
        --------
        >>> VirtualSensor().dark_factor(26.0), VirtualSensor().dark_factor(8.0)
        (2.0, 0.25)
        """
        if not temperature > ABSOLUTE_ZERO:
            raise WorkbenchError(f"temperature is in °C and above {ABSOLUTE_ZERO}, not {temperature}")
        if self.activation_energy is None:
            return 2.0 ** ((temperature - self.reference_temperature) / self.doubling_temperature)
        inverse = 1 / (temperature - ABSOLUTE_ZERO) - 1 / (self.reference_temperature - ABSOLUTE_ZERO)
        return math.exp(-self.activation_energy / BOLTZMANN * inverse)

    def mean_dark_current(self, temperature: float) -> float:
        """Return the mean dark current over all pixels [e⁻/s/pixel] at a temperature [°C]; realised, not expected."""
        return self.dark_current * self.dark_factor(temperature)

    def dcnu(self, temperature: float) -> float:
        """Return the standard deviation of the dark-current map [e⁻/s] at a temperature [°C], hot pixels included."""
        return float(self.dark_map.std(dtype=float)) * self.dark_factor(temperature)

    @cached_property
    def offset_map(self) -> np.ndarray:
        """Each pixel's own black level less `black_level` [ADU], float32 (y, x)."""
        rng = np.random.default_rng([self.seed, _FIXED_PATTERN])
        rows = rng.standard_normal((self.shape[0], 1)) * self.row_offset
        columns = rng.standard_normal((1, self.shape[1])) * self.column_offset
        pixels = rng.standard_normal(self.shape, dtype=np.float32) * np.float32(self.pixel_offset)
        pixels += (rows - rows.mean()).astype(np.float32)
        pixels += (columns - columns.mean()).astype(np.float32)
        return _frozen(pixels)

    @cached_property
    def response_map(self) -> np.ndarray:
        """Each pixel's response to light, mean 1, float32 (y, x)."""
        pixels = np.random.default_rng([self.seed, _RESPONSE]).standard_normal(self.shape, dtype=np.float32)
        pixels *= np.float32(self.prnu)
        pixels += np.float32(1 - pixels.mean(dtype=float))
        return _frozen(pixels)

    @cached_property
    def dark_map(self) -> np.ndarray:
        """Each pixel's dark current at the reference temperature [e⁻/s], float32 (y, x); its mean is `dark_current`."""
        rng = np.random.default_rng([self.seed, _DARK])
        hot = self.hot_pixels
        extra = rng.lognormal(math.log(self.hot_median), self.hot_spread, len(hot))
        # drawn in float64 and rounded: exp's last bit differs between processors, the float32 very rarely
        pixels = rng.lognormal(0.0, self.dark_spread, self.shape).astype(np.float32)
        # the ordinary pixels make up what the hot ones leave of the mean
        ordinary = self.dark_current - extra.sum() / pixels.size
        if ordinary < 0:
            raise WorkbenchError(f"hot pixels alone exceed the mean dark current of {self.dark_current} e-/s")
        pixels *= np.float32(ordinary / pixels.mean(dtype=float))
        pixels[hot[:, 0], hot[:, 1]] += extra.astype(np.float32)
        return _frozen(pixels)

    @cached_property
    def hot_pixels(self) -> np.ndarray:
        """Positions of the hot pixels, int64 (pixel, 2) as (y, x)."""
        size = self.shape[0] * self.shape[1]
        rng = np.random.default_rng([self.seed, _DARK, 1])
        indices = rng.choice(size, round(self.hot_fraction * size), replace=False, shuffle=False)
        return _frozen(np.stack(np.divmod(np.sort(indices), self.shape[1]), axis=1))

    def illumination(self, rows: slice = slice(None)) -> np.ndarray:
        """Return the share of the light that the optics let through, float64 (y, x), for some rows.

        Examples
        --------
        >>> VirtualSensor((400, 600)).illumination()[[0, 200], [0, 300]].round(2)
        array([0.65, 1.  ])
        """
        y, x = (np.arange(size) - (size - 1) / 2 for size in self.shape)
        share = self.vignetting / (y[-1] ** 2 + x[-1] ** 2)
        return 1 - (y[rows, None] ** 2 + x * x) * share

    def spread(self, values: ArrayLike) -> np.ndarray:
        """Return one value a channel (R, G1, G2, B; of X-Trans R, G, B) laid out over the mosaic (y, x).

        Examples
        --------
        >>> VirtualSensor((2, 4)).spread([1, 2, 3, 4])
        array([[1, 2, 1, 2],
               [3, 4, 3, 4]])
        """
        return spread(np.asarray(values), channel_index(self.cfa_pattern), self.shape)


def d7000(seed: int = 7000, shape: tuple[int, int] = (3264, 4928), **changes: Any) -> VirtualSensor:
    """Return a simulated Nikon D7000: `seed` draws its fixed pattern, `changes` are `VirtualSensor` parameters.

    Examples
    --------
    >>> camera = d7000(seed=1, shape=(64, 96))
    >>> camera.camera, camera.unity_gain_iso, round(float(camera.dark_map.mean()), 3)
    ('NIKON D7000 (simulated)', 213.0, 0.3)
    """
    return VirtualSensor(tuple(shape), seed, **changes)  # type: ignore[arg-type]  # it refuses other than two sides


def expose(
    sensor: VirtualSensor,
    rate: ArrayLike = 0.0,
    *,
    iso: float,
    exposure: float,
    temperature: float = 20.0,
    seed: int | Sequence[int],
    hits: tuple[ArrayLike, ArrayLike, ArrayLike] | None = None,
    threads: int | None = None,
) -> np.ndarray:
    """Take one frame: the mosaic that the patched firmware saves, uint16 (y, x) [ADU].

    electrons = min(Poisson((rate · illumination · response + dark current) · exposure), full well);
    ADU = round(black level + fixed pattern + electrons/g + Normal(0, σ_R/g)), clipped to 0 ... white level.
    Adding the two parts of the read noise in one draw, and light and dark current in one Poisson draw, is exact.

    Parameters
    ----------
    sensor, rate
        The camera, and photo-electrons per second before vignetting and PRNU [e⁻/s/pixel]: one number, one a channel
        (R, G1, G2, B), or a picture (y, x) already sampled by the mosaic.  Zero is a closed shutter.
    iso, exposure, temperature
        Setting, time [s], and sensor temperature [°C].
    seed
        Draws the noise of this frame, together with the sensor's seed and the three settings: the same call gives
        the same bits, frames of different settings are independent.  Give each frame of a series its own.
    hits
        Charge from particles: rows, columns and the electrons freed there, added before the well fills up.
    threads
        How many work on the frame; the bits do not depend on it.

    Raises
    ------
    WorkbenchError
        If the rate is negative or of the wrong shape, or a setting is out of range.

    Examples
    --------
    >>> camera = d7000(seed=1, shape=(64, 96))
    >>> lamp = (3e4, 6e4, 6e4, 4e4)
    >>> flat = expose(camera, lamp, iso=200, exposure=1 / 10, seed=1)
    >>> flat.dtype, flat.shape, bool((flat == expose(camera, lamp, iso=200, exposure=1 / 10, seed=1)).all())
    (dtype('uint16'), (64, 96), True)
    """
    if not (math.isfinite(exposure) and exposure >= 0):
        raise WorkbenchError(f"exposure is a time in seconds, zero or more, not {exposure}")
    sensor.gain(iso)  # refuses an impossible setting
    dark = sensor.dark_factor(temperature) * exposure
    light, (y, x, charge) = _rate_map(sensor, rate), _checked_hits(sensor, hits)
    # above the analogue limit the amplifier stays and the numbers are multiplied
    amplifier = sensor.gain(min(iso, sensor.analogue_limit_iso))
    digital = amplifier / sensor.gain(iso)
    height, width = sensor.shape
    bands = [slice(top, min(top + _BAND, height)) for top in range(0, height, _BAND)]
    settings = np.array([iso, exposure, temperature], dtype="<f8").view("<u8")
    streams = np.random.SeedSequence([sensor.seed, *np.atleast_1d(seed).tolist(), *settings.tolist()]).spawn(len(bands))
    sensor.dark_map, sensor.response_map, sensor.offset_map  # noqa: B018  drawn once, before the threads want them
    mosaic = np.empty((height, width), np.uint16)

    def read_out(band: tuple[slice, np.random.SeedSequence]) -> None:
        rows, rng = band[0], np.random.default_rng(band[1])
        expected = np.multiply(sensor.dark_map[rows], dark, dtype=float)
        if light is not None:
            lit = sensor.illumination(rows)
            lit *= sensor.response_map[rows]
            lit *= light[rows]
            lit *= exposure
            expected += lit
        electrons = rng.poisson(expected).astype(float)
        here = (y >= rows.start) & (y < rows.stop)
        np.add.at(electrons, (y[here] - rows.start, x[here]), charge[here])
        np.minimum(electrons, sensor.full_well, out=electrons)
        electrons /= amplifier
        adu = rng.standard_normal(electrons.shape)
        adu *= sensor.read_noise(iso) / amplifier
        adu += electrons
        adu += sensor.offset_map[rows]
        if digital != 1:
            adu += sensor.black_level
            np.rint(adu, out=adu)
            adu -= sensor.black_level
            adu *= digital
        adu += sensor.black_level
        if sensor.step != 1:
            adu /= sensor.step
        np.rint(adu, out=adu)
        if sensor.step != 1:
            adu *= sensor.step
        mosaic[rows] = np.clip(adu, 0, sensor.white_level, out=adu)

    for _ in in_threads(read_out, zip(bands, streams, strict=True), threads):
        pass
    return mosaic


def _checked_hits(sensor: VirtualSensor, hits: Sequence[ArrayLike] | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    y, x, charge = ((), (), ()) if hits is None else hits
    y, x = np.asarray(y, np.intp), np.asarray(x, np.intp)
    height, width = sensor.shape
    if y.size and not (0 <= y.min() <= y.max() < height and 0 <= x.min() <= x.max() < width):
        raise WorkbenchError(f"hits lie outside the sensor's {height} x {width} pixels")
    return y, x, np.asarray(charge, float)


def _rate_map(sensor: VirtualSensor, rate: ArrayLike) -> np.ndarray | None:
    """Return the rate as a (y, x) view [e⁻/s/pixel], or None for a closed shutter."""
    rate = np.asarray(rate)
    if rate.dtype.kind != "f":
        rate = rate.astype(float)
    channels = channels_of(sensor.cfa_pattern)
    if rate.ndim and rate.shape not in ((len(channels),), sensor.shape):
        raise WorkbenchError(
            f"rate has shape {rate.shape}; give one number, {len(channels)} ({', '.join(channels)}), or a picture of"
            f" the sensor's shape {sensor.shape}"
        )
    if not (np.isfinite(rate).all() and (rate >= 0).all()):
        raise WorkbenchError("rate is in photo-electrons per second and pixel: finite and never negative")
    if not rate.any():
        return None
    return sensor.spread(rate) if rate.ndim == 1 else np.broadcast_to(rate, sensor.shape)


def _frozen(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array
