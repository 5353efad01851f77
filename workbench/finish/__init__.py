"""Finish the picture: background, colour, stretch, detail, and the proof that nothing was invented."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules=[
        "background",
        "colour",
        "detail",
        "files",
        "photometry",
        "picture",
        "png",
        "settings",
        "sharpen",
        "stretch",
    ],
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
        "detail": ["denoise", "local_contrast", "reduce_stars", "removed"],
        "files": ["read_picture", "srgb_profile", "write_picture"],
        "photometry": ["bright_stars", "check_photometry", "find_picture_stars"],
        "picture": ["check_picture", "common_box", "crop", "fill_holes", "luminance", "make_picture", "pyramid"],
        "settings": [
            "BackgroundSettings",
            "ColourSettings",
            "CropSettings",
            "DetailSettings",
            "FinishSettings",
            "Finished",
            "StretchSettings",
            "finish",
        ],
        "sharpen": ["deconvolve", "measure_psf"],
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
