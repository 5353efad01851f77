"""DSNU and PRNU of a camera whose pattern is known."""

import numpy as np
import pytest

from tests.scenes import true_gain
from workbench.core.cube import XTRANS, make_cube
from workbench.core.errors import WorkbenchError
from workbench.core.mosaic import channel_index
from workbench.pixels import measure_dsnu, measure_prnu, stack_cube
from workbench.simulate import d7000, expose


def plane_of(picture, channel):
    return picture[channel // 2 :: 2, channel % 2 :: 2].astype(float)


@pytest.mark.parametrize("kind", ["none", "highpass"])
def test_dsnu_and_its_parts(striped, kind):
    camera, bias, _ = striped
    found = measure_dsnu(bias, true_gain(camera, iso=100.0), progress=False).isel(iso=0).sel(filter=kind)
    assert int(found.frames) == 12
    for number in range(4):
        offsets = plane_of(camera.offset_map, number) * camera.gain(100)
        rows, columns = offsets.mean(axis=1), offsets.mean(axis=0)
        pixel = offsets - rows[:, None] - columns + offsets.mean()
        quiet = pixel.var()
        truth = {
            "total": offsets.std(),
            "row": np.sqrt(rows.var() - quiet / rows.size),
            "column": np.sqrt(columns.var() - quiet / columns.size),
            "pixel": pixel.std(),
        }
        for part, true in truth.items():
            one = found.sel(part=part).isel(channel=number)
            assert abs(one.dsnu - true) < 4 * one.dsnu_error, part
            assert one.dsnu_error < 0.35 * true


def test_prnu_without_vignetting_drift_and_offsets(striped):
    camera, bias, flat = striped
    zero = stack_cube(bias, progress=False)
    found = measure_prnu(flat, zero, progress=False)
    for number in range(4):
        response = plane_of(camera.response_map, number)
        one = found.sel(filter="highpass", part="total").isel(channel=number)
        assert abs(one.prnu - 100 * response.std() / response.mean()) < 4 * one.prnu_error
        assert one.prnu_error < 0.03
    assert (found.prnu.sel(filter="none", part="total") > 5).all()  # with vignetting
    rows = found.sel(filter="highpass", part=["row", "column"])
    assert (rows.prnu < 4 * rows.prnu_error + 0.05).all()
    assert found.dust.max() == 0


def test_x_trans_is_measured_by_colour_in_all():
    camera = d7000(
        seed=4, shape=(240, 324), cfa_pattern=XTRANS, pixel_offset=0.8, column_offset=0.4, row_offset=0.3, prnu=0.008,
        vignetting=0.3,
    )  # fmt: skip
    common = {"cfa_pattern": XTRANS, "iso": 100, "black_level": 600, "white_level": 16383}
    bias = [expose(camera, iso=100, exposure=1e-4, seed=n) for n in range(12)]
    flat = [expose(camera, 3e5 * (1 + 0.02 * n), iso=100, exposure=0.05, seed=n) for n in range(6)]
    bias, flat = (make_cube(frames, kind=kind, **common) for frames, kind in ((bias, "bias"), (flat, "flat")))
    gain = true_gain(camera, iso=100.0).isel(channel=slice(3)).assign_coords(channel=list("RGB"))
    dsnu = measure_dsnu(bias, gain, progress=False).isel(iso=0)
    prnu = measure_prnu(flat, stack_cube(bias, progress=False), progress=False)
    for number, name in enumerate("RGB"):
        here = np.tile(channel_index(XTRANS) == number, (40, 54))
        offsets, response = (image[here].astype(float) for image in (camera.offset_map, camera.response_map))
        for kind in ("none", "highpass"):
            one = dsnu.sel(channel=name, filter=kind, part="total")
            assert abs(one.dsnu - offsets.std() * camera.gain(100)) < 4 * one.dsnu_error
            assert one.dsnu_error < 0.1 * one.dsnu
        one = prnu.sel(channel=name, filter="highpass", part="total")
        assert abs(one.prnu - 100 * response.std() / response.mean()) < 4 * one.prnu_error
        assert one.prnu_error < 0.03
    assert np.isnan(dsnu.dsnu.sel(part=["row", "column", "pixel"])).all()
    assert prnu.dust.max() == 0
    assert any("not by rows and columns" in text for text in prnu.attrs["warnings"])


def test_dust_is_not_the_pixels(striped):
    _, bias, flat = striped
    clean = measure_prnu(flat, stack_cube(bias, progress=False), progress=False)
    y, x = np.mgrid[:240, :320]
    mote = np.hypot(y - 100, x - 150)
    shadow = 1 - 0.08 * ((mote < 24) & (mote > 8))
    dusty = flat.copy(data=((flat.values - 600.0) * shadow + 600).round().astype("uint16"))
    found = measure_prnu(dusty, stack_cube(bias, progress=False), progress=False)
    assert 0.01 < float(found.dust.mean()) < 0.3
    best = {"filter": "highpass", "part": "total"}
    np.testing.assert_allclose(found.prnu.sel(best), clean.prnu.sel(best), rtol=0.03)


def test_what_cannot_be_measured_says_why(striped):
    _, bias, flat = striped
    one = measure_dsnu(bias[:1], progress=False)
    assert np.isnan(one.dsnu).all()
    assert "one bias frame at ISO 100" in one.attrs["warnings"][0]
    with pytest.raises(WorkbenchError, match="two or more equal flats"):
        measure_prnu(flat[:1], progress=False)
    small = measure_dsnu(bias[:, :40, :44], progress=False)
    assert "too small for the standard's high-pass" in small.attrs["warnings"][0]
    assert np.isfinite(small.dsnu_adu.sel(filter="none")).all()
    unlit = make_cube(np.full((2, 64, 64), 590, "uint16"), cfa_pattern="RGGB", kind="flat", black_level=600)
    with pytest.raises(WorkbenchError, match="no light"):
        measure_prnu(unlit, progress=False)


@pytest.mark.parametrize("wave", [0.0, 1.5])
def test_bands_that_wander_in_few_bias_frames_are_in_the_error(wave):
    """Smooth bands agree between the halves by chance, more than independent pixels do."""
    pulls = []
    for seed in range(12):
        rng = np.random.default_rng([seed, 5])
        offsets, rows = rng.normal(0, 0.9, (192, 192)), np.arange(192)
        frames = []
        for _ in range(4):
            bands = wave * np.sin(2 * np.pi * (rows / rng.uniform(20, 60) + rng.random()))
            frames.append(np.rint(600 + offsets + bands[:, None] + rng.normal(0, 3, offsets.shape)).astype("uint16"))
        bias = make_cube(frames, cfa_pattern="mono", kind="bias", iso=100.0, white_level=16383.0)
        one = measure_dsnu(bias, progress=False).isel(iso=0, channel=0).sel(filter="none", part="total")
        pulls.append(float((one.dsnu_adu - offsets.std()) / one.dsnu_adu_error))
    assert 0.5 < np.sqrt(np.mean(np.square(pulls))) < 1.6


def test_the_error_covers_bands_of_one_frequency_that_move():
    """Halves of six frames have one such band each, which agree by chance; each frame's own shows how far."""
    rows, held = np.arange(48), []
    for seed in range(60):
        rng = np.random.default_rng([seed, 6])
        offsets = rng.normal(0, 0.4, (48, 64))
        phase = 2 * np.pi * (rows / 7.15 + rng.random((6, 1)))
        frames = 600 + offsets + 2.1 * np.sin(phase)[..., None] + rng.normal(0, 3, (6, *offsets.shape))
        bias = make_cube(frames.astype(np.float32), cfa_pattern="mono", kind="bias", iso=100.0, white_level=16383.0)
        one = measure_dsnu(bias, progress=False).isel(iso=0, channel=0).sel(part="total")
        held.append((abs(one.dsnu_adu - offsets.std()) < one.dsnu_adu_error).values)
    assert (abs(np.mean(held, axis=0) - 0.683) < 0.17).all()  # plain and high-passed; 42 % by one pair of halves
