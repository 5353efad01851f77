"""Star databases of ASTAP: every tile of the sky once, stars as they were written, damage named."""

import numpy as np
import pytest

from workbench.core.errors import WorkbenchError
from workbench.stars import catalogue_stars
from workbench.stars.astap import _is_near, _rings, read_tiles


def tile(stars, size=5):
    """A tile's bytes of stars (RA, Dec [deg], magnitude), each with a record of its magnitude before it."""
    out = b"Gaia".ljust(109) + bytes([size])
    for ra, dec, magnitude in stars:
        place = round(dec / 90 * 0x7FFFFF)
        records = bytes([255, 255, 255, (place >> 16) + 128, round(10 * magnitude) + 16])
        records = records.ljust(size, b"\0") + round(ra / 360 * 0xFFFFFF).to_bytes(3, "little")
        out += (records + (place & 0xFFFF).to_bytes(2, "little")).ljust(2 * size, b"\7")
    return out


@pytest.mark.parametrize(("kind", "count", "rings"), [(290, 290, 18), (1476, 1476, 36)])
def test_the_tiles_cover_the_sky(kind, count, rings):
    edges, tiles = _rings(kind)
    assert (tiles.sum(), len(tiles), len(edges)) == (count, rings, rings + 1)
    assert (edges[0], edges[-1]) == (-90, 90)
    area = np.diff(np.sin(np.radians(edges))) / tiles
    assert area[1:-1].max() / area[1:-1].min() < (1.001 if kind == 290 else 2.1)
    rng = np.random.default_rng(1)
    for ra, dec in zip(rng.uniform(0, 360, 40), np.degrees(np.arcsin(rng.uniform(-1, 1, 40))), strict=True):
        ring = int(np.searchsorted(edges, dec))
        own = int(ra / 360 * tiles[ring - 1]) + 1
        assert _is_near(kind, ring, own, (ra, dec), 0.1)
        near = [
            (r + 1, t + 1)
            for r in range(rings)
            for t in range(tiles[r])
            if _is_near(kind, r + 1, t + 1, (ra, dec), 0.1)
        ]
        assert len(near) < 16


@pytest.mark.parametrize("size", [5, 6])
def test_stars_are_found_where_they_are(tmp_path, size):
    stars = [(193.0, 41.2, 11.4), (193.3, 40.8, 14.0), (192.9, 41.1, 14.1)]
    edges, tiles = _rings(1476)
    ring = int(np.searchsorted(edges, 41.0))
    name = f"d50_{ring:02d}{int(193 / 360 * tiles[ring - 1]) + 1:02d}.1476"
    (tmp_path / name).write_bytes(tile(stars, size))
    (tmp_path / "d50_0101.1476").write_bytes(b"never read")
    found = catalogue_stars(193.0, 41.0, 0.6, folders=[tmp_path], date="2020-01-01")
    own = found.isel(star=found["source"].values == "ASTAP d50")
    np.testing.assert_allclose(own["ra"], [star[0] for star in stars], atol=2e-5)
    np.testing.assert_allclose(own["dec"], [star[1] for star in stars], atol=1e-5)
    np.testing.assert_allclose(own["magnitude"], [11.05, 13.65, 13.75], atol=0.01)
    assert (own["position_error"] < 0.2).all()
    assert read_tiles([tmp_path / name], 193.0, -41.0, 0.6) == []
    (tmp_path / name).write_bytes(tile(stars, size)[:-1])
    with pytest.raises(WorkbenchError, match=rf"{name} is not a star database of ASTAP .* or is cut short"):
        catalogue_stars(193.0, 41.0, 0.6, folders=[tmp_path])


def test_southern_declinations_are_negative(tmp_path):
    edges, tiles = _rings(290)
    ring = int(np.searchsorted(edges, -60.3))
    path = tmp_path / f"v17_{ring:02d}{int(10 / 360 * tiles[ring - 1]) + 1:02d}.290"
    path.write_bytes(tile([(10.0, -60.3, 16.0)]))
    (found,) = read_tiles([path], 10.0, -60.0, 0.5)
    assert (found.name, float(found.magnitude[0])) == ("v17", 16.0)
    assert float(found.dec[0]) == pytest.approx(-60.3, abs=1e-5)
