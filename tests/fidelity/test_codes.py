"""Missing codes against multipliers that are known."""

import numpy as np
import pytest

from workbench.core.cube import make_cube
from workbench.core.errors import WorkbenchError
from workbench.fidelity.codes import count_codes, find_gaps, missing_codes
from workbench.ingest import open_folder, open_frames


def cube_of(mosaics, kind="flat", **attrs):
    mosaics = np.atleast_3d(mosaics) if np.ndim(mosaics) == 2 else np.asarray(mosaics)
    given = {"iso": 100, "exposure": 1.0, "white_level": 16383, "black_level": 0} | attrs
    return make_cube(mosaics, cfa_pattern="RGGB", kind=kind, **given)


def flats(multiplier, seed=1, levels=(200, 800, 3000), size=256):
    """Flats with G1 untouched and red multiplied."""
    rng = np.random.default_rng(seed)
    frames = []
    for level in levels:
        frame = rng.poisson(level, (size, size)).astype(float)
        frame[::2, ::2] = np.rint(frame[::2, ::2] * multiplier)
        frames.append(frame.astype("uint16"))
    return np.stack(frames)


@pytest.mark.parametrize("multiplier", [1.02, 1.12, 1.16, 1.5, 2.0, 2.4, 3.0, 0.8, 0.9])
def test_the_multiplier_is_found_and_its_error_covers_it(multiplier):
    result = missing_codes(count_codes(cube_of(flats(multiplier, size=512)), progress=False)).isel(iso=0)
    red, green = (float(result.multiplier.sel(channel=name)) for name in ("R", "G1"))
    assert green == 1.0
    assert red == pytest.approx(multiplier, abs=max(2e-4, 4 * float(result.multiplier_error.sel(channel="R"))))
    assert float(result.relative.sel(channel="R")) == red


def test_honest_numbers_have_no_gaps_however_narrow_their_peaks():
    rng = np.random.default_rng(3)
    narrow = rng.normal(600, 0.7, (4, 256, 256)).round().astype("uint16")
    warm = rng.normal(607, 0.9, (4, 256, 256)).round().astype("uint16")  # a valley lies between the two
    for kind, frames in (("bias", narrow), ("dark", warm), ("flat", flats(1.0))):
        codes = count_codes(cube_of(frames, kind), progress=False)
        assert not missing_codes(codes).missing.any()
    both = make_cube(
        np.concatenate([narrow, warm]), cfa_pattern="RGGB", kind=["bias"] * 4 + ["dark"] * 4, iso=100,
        exposure=[1e-4] * 4 + [60.0] * 4, white_level=16383,
    )  # fmt: skip
    assert not missing_codes(count_codes(both, progress=False)).missing.any()


def test_too_few_pixels_tell_nothing():
    result = missing_codes(count_codes(cube_of(flats(1.12, size=16, levels=(9000,))), progress=False))
    assert np.isnan(result.multiplier).all()


def test_codes_that_grow_coarser_are_no_multiplier():
    frame = np.random.default_rng(5).integers(0, 8000, (1, 1024, 1024))
    step = np.where(frame < 1024, 1, np.where(frame < 2048, 2, 4))
    result = missing_codes(count_codes(cube_of((frame // step * step).astype("uint16")), progress=False))
    assert result.coarse.all()
    assert (result.multiplier == 1).all()
    steps = result["step"].isel(iso=0, channel=1)
    assert [float(steps.sel(level=level)) for level in (512, 1024, 4096)] == pytest.approx([1, 2, 4], rel=0.02)
    # 1024 codes at every step, 512 at every second, and from there every fourth up to the white level
    expected = np.log2(1024 + 512 + (16384 - 2048) / 4)
    assert float(result.bits.max()) == pytest.approx(expected, abs=0.02)


def test_ends_and_the_level_at_which_pixels_pile_up():
    frame = np.minimum(np.random.default_rng(6).normal(15_000, 900, (2, 256, 256)), 15_778).round().astype("uint16")
    result = missing_codes(count_codes(cube_of(frame), progress=False))
    assert (result.clipped_at == 15_778).all()
    assert (result.highest == 15_778).all()
    assert np.isnan(missing_codes(count_codes(cube_of(flats(1.0)), progress=False)).clipped_at).all()


def test_each_iso_has_a_multiplier_of_its_own():
    frames = np.concatenate([flats(1.0, levels=(500,)), 2 * flats(1.0, seed=2, levels=(500,))])
    cube = cube_of(frames, iso=[800, 1600])
    result = missing_codes(count_codes(cube, progress=False))
    assert result.multiplier.sel(iso=800).values.tolist() == [1.0] * 4
    assert result.multiplier.sel(iso=1600).values == pytest.approx([2.0] * 4)
    assert result.relative.sel(iso=1600).values == pytest.approx([1.0] * 4)


def test_a_gap_is_neither_a_valley_nor_the_end_of_a_peak():
    peak = np.array([0, 0, 5, 40, 300, 40, 5, 0, 0, 0, 0])
    assert not find_gaps(peak).missing.any()
    comb = np.array([0, 100, 100, 0, 100, 100, 0, 100, 100, 0])
    assert np.flatnonzero(find_gaps(comb).missing).tolist() == [3, 6]


def test_numbers_that_are_not_whole_are_refused():
    with pytest.raises(WorkbenchError, match="16-bit"):
        count_codes(cube_of(np.zeros((1, 8, 8), "float32")), progress=False)


def test_only_some_of_many_frames_are_counted_but_all_settings_seen():
    frames = np.zeros((64, 8, 8), "uint16") + 600
    cube = cube_of(frames, "dark", exposure=np.repeat([1.0, 2, 4, 8, 16, 32, 64, 128], 8))
    codes = count_codes(cube, progress=False)
    assert codes.exposure.values.tolist() == [1, 16, 128] or codes.exposure.values.tolist() == [1, 8, 128]


def test_real_d7000_stock_firmware(real_data):
    flat = open_folder(real_data / "d7000-flats", progress=False).flat
    result = missing_codes(count_codes(flat, progress=False)).isel(iso=0)
    assert result.multiplier.sel(channel=["R", "G1", "G2", "B"]).values == pytest.approx([1.12, 1, 1, 1.16], abs=0.01)
    assert result.period.sel(channel=["R", "B"]).values == pytest.approx([9.2, 7.2], abs=0.1)
    assert not result.coarse


def test_real_compressed_files_are_coarse_and_no_colour_is_multiplied(real_data):
    for name in ("sony-a7r3.arw", "kodak-dc50.kdc"):
        result = missing_codes(count_codes(open_frames(real_data / "raw" / name, kind="light"), progress=False))
        assert result.coarse.all(), name
        assert result.relative.values == pytest.approx(np.ones((1, 4)), abs=1e-3), name
