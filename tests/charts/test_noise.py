"""Charts of noise show what was measured: signal to noise, read noise and its parts, dynamic range, every pixel."""

import holoviews as hv
import numpy as np
import pytest
import xarray as xr

from tests.charts.drawn import columns, options, parts, titles
from workbench import charts
from workbench.charts import noise


def test_snr_rises_as_the_root_of_the_electrons(result):
    drawn = charts.shot_noise_snr(result.snr)
    (law,) = parts(drawn, hv.Curve, "√N: shot noise alone")
    np.testing.assert_allclose(law.dimension_values(1) ** 2, law.dimension_values(0))
    shown = np.concatenate([part.dimension_values(1) for part in drawn.values()[-1] if isinstance(part, hv.Scatter)])
    np.testing.assert_allclose(np.sort(shown), np.sort(result.snr.snr.values))


@pytest.mark.parametrize(("change", "lines"), [(1.0, 1), (1.04, 1), (4.0, 2)])
def test_a_lamp_that_was_changed_between_gain_settings_has_a_line_for_each(change, lines):
    """Two gain settings; at the second the lamp is `change` times as bright."""
    exposure, setting = np.array([1.0, 2, 4, 1, 2, 4]), np.repeat([0.0, 120.0], 3)
    rate = np.where(setting > 0, 500.0 * change, 500.0)
    ratio = np.sqrt(rate * exposure)
    values = {"snr": ratio, "snr_error": 0.01 * ratio, "snr_expected": ratio, "electrons": rate * exposure}
    coords = {"gain_setting": setting, "exposure": exposure, "aperture": np.full(6, np.nan), "channel": ["mono"] * 6}
    snr = xr.Dataset(*({name: ("point", value) for name, value in part.items()} for part in (values, coords)))
    over_time = charts.shot_noise_snr(snr)[0]
    curves = [one for one in parts([over_time], hv.Curve) if len(one) == 2]
    assert len(curves) == lines
    middle = [float(np.prod(one.dimension_values(1) ** 2 / one.dimension_values(0)) ** 0.5) for one in curves]
    expected = [500.0, 500.0 * change] if lines == 2 else [500.0 * change**0.5]
    assert middle == pytest.approx(expected, rel=1e-6)


def test_read_noise_in_electrons_combines_both_errors(result):
    drawn = charts.read_noise_vs_iso(result.read_noise, result.gain, reference=False)
    adu, electrons = parts(drawn, hv.Scatter, "R")
    noise, factor = result.read_noise.sel(channel="R"), result.gain.sel(channel="R")
    np.testing.assert_allclose(adu.dimension_values(1), noise.read_noise_adu)
    np.testing.assert_allclose(electrons.dimension_values(1), noise.read_noise_adu * factor.gain)
    relative = np.hypot(noise.read_noise_adu_error / noise.read_noise_adu, factor.gain_error / factor.gain)
    np.testing.assert_allclose(electrons.dimension_values(2), relative * noise.read_noise_adu * factor.gain)
    assert len(charts.read_noise_vs_iso(result.read_noise)) == 1


def test_the_split_marks_the_iso_from_which_nothing_is_gained(result):
    split = result.transfer.split
    left, right = charts.read_noise_split(split, result.read_noise, result.gain)
    (star,) = [one for one in right if isinstance(one, hv.Scatter) and one.label.startswith("ISO ")]
    assert star.dimension_values(0)[0] == float(split.invariance_iso)
    assert star.dimension_values(1)[0] == 5
    (floor,) = parts([left], hv.Curve, "before the gain")
    np.testing.assert_allclose(floor.dimension_values(1), float(split.before_gain))
    (whole,) = parts([right], hv.Curve, "both together")
    at = np.interp(star.dimension_values(0)[0], whole.dimension_values(0), whole.dimension_values(1))
    np.testing.assert_allclose(at, 5, rtol=0.02)


def test_dynamic_range_and_full_well_have_their_errors(result):
    ranges, wells = result.transfer.dynamic_range, result.transfer.wells
    drawn = charts.dynamic_range(ranges, wells)
    assert titles(drawn) == ["Dynamic range", "Full well"]
    for panel, data, name in zip(drawn, (ranges, wells), ("dynamic_range", "full_well"), strict=True):
        for channel in data.channel.values:
            one = data.sel(channel=channel).dropna("iso", subset=[name])
            bound = np.isinf(one[f"{name}_error"].values)  # a lower bound has no bar and a symbol of its own
            known = [one.iso.values, one[name].values, one[f"{name}_error"].values]
            for shown in parts([panel], hv.Scatter, str(channel)):
                np.testing.assert_allclose(columns(shown), [part[~bound] for part in known])
            for shown in parts([panel], hv.Scatter, f"{channel}: at least"):
                np.testing.assert_allclose(columns(shown), [part[bound] for part in known[:2]])
    assert options(drawn[0])["ylim"][0] == 0


def test_the_tail_of_the_pixels_stands_out_of_chance(result):
    found = result.pixel_noise
    for panel, base in zip(charts.pixel_noise(found), (0, 0.5), strict=True):
        (bars,) = parts([panel], hv.Histogram, "pixels")
        np.testing.assert_allclose(bars.dimension_values(1), np.maximum(found["count"].sum("channel"), base))
        assert np.diff(bars.edges) == pytest.approx(float(found.bin[1] - found.bin[0]))
        (chance,) = parts([panel], hv.Curve, "chance alone")
        expected = found.expected.sum("channel").values
        assert set(chance.dimension_values(1)) <= set(expected)
        (limit,) = [part for part in parts([panel], hv.Curve) if part.label.startswith("beyond: ")]
        assert limit.dimension_values(0).tolist() == [float(found.threshold.mean())] * 2


def test_published_values_stay_within_the_measured_isos(result):
    drawn = charts.read_noise_vs_iso(result.read_noise, result.gain)
    adu, electrons = parts(drawn, hv.Scatter, "B. Claff (D7000)")
    isos = result.read_noise.iso.values
    assert adu.dimension_values(0).tolist() == [
        iso for iso in noise.CLAFF_READ_NOISE_ADU if isos.min() <= iso <= isos.max()
    ]
    assert dict(zip(*columns(electrons), strict=True)) == noise.CLAFF_READ_NOISE_ELECTRONS
