"""Resampling: each channel straight from the calibrated mosaic at the transformed position, once.

Red and blue lie on square lattices of two pixels, green on a quincunx, which is a square lattice turned by 45°:
``a = (x + y - s)/2, b = (x - y - s)/2`` are whole numbers at every green pixel.  On each a separable Lanczos-3
kernel of 6 x 6 samples is laid at the wanted position; no demosaicing comes between.

How it is made fast: a window of the mosaic is kept with even and odd columns apart, so that stepping two output
pixels steps one sample.  Where the frame is not turned far, long runs of output pixels then share their offsets,
and the processor's wide registers load neighbouring samples at once.  Flips and turns by 90° are taken out first.
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules=["kernel", "lattice", "picture", "place", "sample", "window"],
    submod_attrs={
        "kernel": ["kernel_polynomials", "lanczos3", "mean_squared_weight", "narrowing_for"],
        "picture": ["resample", "resample_tile"],
        "place": ["place_polynomials", "quarter_turns", "turned", "turned_cell", "window_bounds"],
        "sample": ["PADDING", "sample_window", "unsplit"],
        "window": ["fill_window"],
    },
)
