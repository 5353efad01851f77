"""Cosmic rays: planted tracks found, none found where none are."""

import numpy as np
import pytest

from workbench.core.cube import make_cube
from workbench.core.errors import WorkbenchError
from workbench.pixels.cosmic_rays import clusters, find_cosmic_rays
from workbench.simulate import View, d7000, expose, make_sky
from workbench.simulate import cosmic_rays as particles

SHAPE = (256, 384)
CAMERA = d7000(seed=9, shape=SHAPE)
SKY = make_sky(SHAPE, stars=1, nebula=0.0)


def darks(frames=12, tracks=0, charge=1.0, exposure=60.0, seed=1, **attrs):
    """Darks with planted tracks; returns the cube and (frame, rows, columns) of each."""
    planted, mosaics = [], []
    for number in range(frames):
        hits = [
            particles(SKY, View(cosmic_rays=1, seed=seed * 10_000 + number * 100 + k, exposure=exposure))
            for k in range(tracks)
        ]
        planted += [(number, y, x) for y, x, _ in hits]
        joined = tuple(np.concatenate(part) for part in zip(*hits, strict=True)) if hits else None
        if joined is not None:
            joined = (joined[0], joined[1], np.round(joined[2] * charge))
        mosaics.append(expose(CAMERA, iso=800, exposure=exposure, seed=(seed, number), hits=joined, threads=1))
    given = {"iso": 800, "exposure": exposure, "temperature": 20.0, "filename": [f"{n}" for n in range(frames)]} | attrs
    cube = make_cube(
        np.stack(mosaics), cfa_pattern="RGGB", kind="dark", camera=CAMERA.camera, white_level=16383, **given
    )
    return cube, planted


def found_of(result, planted):
    """How many planted tracks lie on an event."""
    hit = 0
    for number, y, x in planted:
        here = np.flatnonzero(result.frame.values == number)
        near = [
            np.min(np.hypot(y - result.y.values[event], x - result.x.values[event])) < 16 for event in here.tolist()
        ]
        hit += any(near)
    return hit


@pytest.mark.parametrize("frames", [5, 12, 30])
def test_nothing_is_found_where_nothing_is(frames):
    result = find_cosmic_rays(darks(frames)[0], progress=False)
    assert result.tracks == 0
    assert result.singles <= 2
    assert result.dips <= 2


def test_all_planted_muons_are_found_and_their_charge_measured():
    cube, planted = darks(20, tracks=2)
    result = find_cosmic_rays(cube, gain=CAMERA.gain(800), progress=False)
    assert found_of(result, planted) == len(planted)
    assert result.tracks.item() + result.singles.item() == pytest.approx(len(planted), abs=2)  # two may touch
    truth = sum(
        float(particles(SKY, View(cosmic_rays=1, seed=10_000 + n * 100 + k, exposure=60.0))[2].sum())
        for n in range(20)
        for k in range(2)
    )
    assert float(result.charge.sum()) == pytest.approx(truth, rel=0.05)
    assert result.charge.attrs["units"] == "electron"


def test_faint_tracks_are_found_in_part():
    cube, planted = darks(20, tracks=2, charge=0.1)
    share = found_of(find_cosmic_rays(cube, progress=False), planted) / len(planted)
    assert 0.6 < share < 1


def test_the_flux_is_counted_against_area_and_time():
    cube, planted = darks(20, tracks=2)
    result = find_cosmic_rays(cube, progress=False)
    area = SHAPE[0] * SHAPE[1] * (4.78e-4) ** 2
    assert result.area == pytest.approx(area)
    assert result.seconds == 1200
    assert result.expected == pytest.approx(area * 20)
    assert result.flux == pytest.approx(result.tracks / (area * 20))
    assert result.flux == pytest.approx(len(planted) / (area * 20), rel=0.1)
    unknown = find_cosmic_rays(cube.assign_attrs(camera="Unknown"), progress=False)
    assert np.isnan(unknown.expected)
    assert any("pixel size" in text for text in unknown.attrs["warnings"])


def test_pixels_that_flicker_are_no_particles():
    rng = np.random.default_rng(1)
    mosaics = rng.normal(600, 4, (80, 48, 64)).round()
    mosaics[[3, 61], 10, 20] += 400
    mosaics[5, 30, 40:44] += 300
    cube = make_cube(mosaics.astype("uint16"), cfa_pattern="RGGB", kind="dark", iso=100, exposure=60.0)
    result = find_cosmic_rays(cube, pixel_size=4.78, progress=False)
    assert result.flickering == 1
    assert result.pixels.values.tolist() == [4]
    assert result.frame.values.tolist() == [5]


def test_an_offset_that_wanders_does_no_harm():
    cube, _ = darks(12)
    moved = (cube.values + np.arange(12)[:, None, None] % 5).astype("uint16")
    result = find_cosmic_rays(cube.copy(data=moved), progress=False)
    assert result.tracks == 0
    assert result.dips <= 2


def test_a_warmer_dark_is_left_out_and_named():
    cube, _ = darks(12)
    mosaics = cube.values.copy()
    rng = np.random.default_rng(1)
    mosaics[4] = mosaics[4] + 200 * (rng.random(SHAPE) < 0.05)
    result = find_cosmic_rays(cube.copy(data=mosaics.astype("uint16")), progress=False)
    assert any(text.startswith("4 differs") for text in result.attrs["warnings"])
    assert not (result.frame == 4).any()


def test_each_setting_is_searched_by_itself_and_lonely_darks_are_named():
    first, _ = darks(6, seed=2)
    second, _ = darks(6, tracks=1, seed=3, exposure=120.0)
    lone, _ = darks(2, seed=4, exposure=300.0)
    joined = make_cube(
        np.concatenate([first.values, second.values, lone.values]), cfa_pattern="RGGB", kind="dark", iso=800,
        exposure=[60.0] * 6 + [120.0] * 6 + [300.0] * 2, temperature=20.0, camera=CAMERA.camera, white_level=16383,
    )  # fmt: skip
    result = find_cosmic_rays(joined, progress=False)
    assert result.frames == 12
    assert result.seconds == 6 * 60 + 6 * 120
    assert set(result.frame.values[result.pixels.values > 1]) <= set(range(6, 12))
    assert result.tracks >= 5
    assert any("2 darks are not searched" in text for text in result.attrs["warnings"])


def test_stamps_show_the_largest_tracks_even_at_the_edge():
    cube, _ = darks(8)
    mosaics = cube.values.copy()
    mosaics[2, 0, 5:40:3] += 900
    mosaics[3, 128, 100:104] += 900
    result = find_cosmic_rays(cube.copy(data=mosaics), progress=False)
    assert result.stamp_event.size == 2
    assert result.pixels.values[result.stamp_event.values].tolist() == [12, 4]
    middle = result.picture.isel(stamp=1).values
    assert np.nansum(middle > 500) == 4
    assert np.isnan(result.picture.isel(stamp=0).values).any()


def test_clusters_hang_together_by_chains():
    places = np.array([[0, 0], [0, 15], [0, 30], [0, 47], [100, 100]])
    assert [members.tolist() for members in clusters(places)] == [[0, 1, 2], [3], [4]]
    assert clusters(np.empty((0, 2))) == []


def test_too_few_darks_are_refused():
    with pytest.raises(WorkbenchError, match="shoot twenty"):
        find_cosmic_rays(darks(4)[0], progress=False)
