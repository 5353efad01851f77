"""The chart of a light curve shows the star, its errors and a comparison star."""

import holoviews as hv
import numpy as np
import xarray as xr

from tests.charts.drawn import check_drawn, columns, parts
from workbench import charts, export


def some_curve(scatter=0.0):
    rng = np.random.default_rng(2)
    hours, error = np.linspace(0, 2, 30), np.full(30, 0.01)
    data = {"relative_flux": rng.normal(1, error), "relative_flux_error": error}
    data |= {"check": rng.normal(1, error), "check_error": error}
    curve = xr.Dataset({name: ("frame", values) for name, values in data.items()}, coords={"hours": ("frame", hours)})
    curve["x"], curve["y"], curve["comparison"] = ("star", [30.0, 4.0]), ("star", [40.0, 4.0]), ("star", [False, True])
    about = {"channel": "G", "scatter": scatter, "reference": "light_000.fits", "simulated": True}
    return curve.assign_attrs(about, camera="NIKON D7000 (simulated)")


def test_the_star_and_below_it_a_comparison_star():
    curve = some_curve()
    drawn = charts.light_curve(curve, (curve.hours.values, np.ones(30)))
    check_drawn(drawn)
    (star,) = parts(drawn, hv.Scatter, "the star")
    np.testing.assert_allclose(columns(star)[1:], [100 * curve.relative_flux, 100 * curve.relative_flux_error])
    (check,) = [part for part in parts(drawn, hv.Scatter) if part.label.startswith("a comparison star")]
    assert check.dimension_values(1).max() < star.dimension_values(1).min()
    assert parts(drawn, hv.Curve, "truth")


def test_its_caption_and_picture(tmp_path):
    caption = charts.light_curve_caption(some_curve())
    assert "Simulated data: NIKON D7000" in caption.text
    assert "Scintillation is not predicted" in caption.text
    assert "0.40 % that the comparison stars scatter" in charts.light_curve_caption(some_curve(0.004)).text
    assert export.write_light_curve(some_curve(), tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
