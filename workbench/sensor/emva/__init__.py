"""EMVA 1288 (release 4.0, linear): the standard's own estimates, from images or from tables."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules=["images", "spatial", "temporal"],
    submod_attrs={
        "images": ["emva1288", "emva_points"],
        "spatial": ["emva_spatial"],
        "temporal": ["emva_dark_current", "emva_temporal", "fit_emva_gain"],
    },
)
