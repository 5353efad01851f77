"""Finish the picture: background, colour, stretch, detail, and the proof that nothing was invented."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules=[
        "background",
        "colour",
        "curves",
        "detail",
        "files",
        "opening",
        "photometry",
        "picture",
        "png",
        "settings",
        "sharpen",
        "sky",
        "stretch",
    ],
    submod_attrs={
        "background": ["background_model", "evaluate_background", "model_means", "remove_background"],
        "colour": [
            "apply_colour",
            "camera_matrix",
            "mend_cores",
            "neutralise_background",
            "remove_green",
            "white_balance",
        ],
        "detail": ["denoise", "local_contrast", "reduce_stars", "removed"],
        "curves": ["curve", "midtones", "midtones_balance"],
        "files": ["srgb_profile", "write_picture"],
        "opening": ["read_picture"],
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
        "sky": ["find_sky", "measure_sky", "star_mask"],
        "stretch": [
            "apply_stretch",
            "histogram",
            "sky_statistics",
            "stretch_parameters",
            "to_bytes",
        ],
    },
)
