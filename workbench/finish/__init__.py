"""Finish the picture: background, colour, stretch, detail, and the proof that nothing was invented."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules=["background", "colour", "photometry", "picture", "stretch"],
    submod_attrs={
        "background": [
            "background_model",
            "evaluate_background",
            "find_sky",
            "measure_sky",
            "remove_background",
            "star_mask",
        ],
        "colour": [
            "apply_colour",
            "camera_matrix",
            "mend_cores",
            "neutralise_background",
            "remove_green",
            "white_balance",
        ],
        "photometry": ["bright_stars", "check_photometry", "find_picture_stars"],
        "picture": ["check_picture", "common_box", "crop", "fill_holes", "luminance", "make_picture", "pyramid"],
        "stretch": [
            "apply_stretch",
            "curve",
            "histogram",
            "sky_statistics",
            "stretch_parameters",
            "to_bytes",
        ],
    },
)
