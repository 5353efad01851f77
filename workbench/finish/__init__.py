"""Finish the picture: background, colour, stretch, detail, and the proof that nothing was invented."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules=["background", "photometry", "picture"],
    submod_attrs={
        "background": [
            "background_model",
            "evaluate_background",
            "find_sky",
            "measure_sky",
            "remove_background",
            "star_mask",
        ],
        "photometry": ["bright_stars", "check_photometry", "find_picture_stars", "photometry"],
        "picture": ["check_picture", "common_box", "crop", "fill_holes", "luminance", "make_picture", "pyramid"],
    },
)
