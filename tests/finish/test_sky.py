import numpy as np
import pytest

from workbench.core.errors import WorkbenchError
from workbench.core.mosaic import tiles
from workbench.finish import find_sky, make_picture, measure_sky, star_mask


def test_cells_scatter_about_the_sky_as_their_errors_say(simulated):
    scene = simulated(stars=0, nebula=0.0, seed=3)
    sky = measure_sky(scene.picture, cell=20)
    for level, error, light in zip(sky.level.values, sky.error.values, scene.light, strict=True):
        pull = (level - tiles(light, 20).mean(axis=(2, 3))) / error
        assert abs(np.nanmean(pull)) < 0.2
        assert 0.8 < np.nanstd(pull) < 1.25


def test_empty_sky_is_found_around_the_nebula(scene, stars):
    sky = measure_sky(scene.picture, stars)
    found = find_sky(sky)
    rows, columns = (np.rint(sky[side].values).astype(int) for side in ("y", "x"))
    cloud = scene.nebula[0][np.ix_(rows, columns)]
    is_sky = found["is_sky"].values
    assert not is_sky[cloud > 0.1 * cloud.max()].any()
    assert is_sky[cloud < 1e-3 * cloud.max()].mean() > 0.6
    assert found.attrs["degree"] == 1


def test_the_mask_grows_with_a_stars_brightness(stars):
    mask = star_mask(stars, (600, 900))
    assert mask[np.rint(stars.y.values).astype(int), np.rint(stars.x.values).astype(int)].all()
    alone = [
        star_mask(stars.isel(star=[number]), (600, 900)).sum() for number in np.argsort(-stars.flux.values)[[0, -1]]
    ]
    assert alone[0] > alone[1] > 0


def test_mistakes_are_named(scene, stars):
    with pytest.raises(WorkbenchError, match="cells of 1 pixels"):
        measure_sky(scene.picture, stars, cell=1)
    with pytest.raises(WorkbenchError, match="degree"):
        find_sky(measure_sky(scene.picture, stars), degree="most")
    with pytest.raises(WorkbenchError, match="too few for a background"):
        find_sky(measure_sky(make_picture(np.random.default_rng(0).normal(9, 1, (40, 40)))))
