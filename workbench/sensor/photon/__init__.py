"""What a photon transfer curve tells besides the gain: full well, linearity, curvature; and the gain of darks alone."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules=["curvature", "darks", "linear", "neighbours", "well"],
    submod_attrs={
        "curvature": ["fit_curvature"],
        "darks": ["compare_gains", "dark_transfer", "gain_from_darks"],
        "linear": ["linearity", "linearity_error"],
        "neighbours": ["neighbour_covariance"],
        "well": ["full_well"],
    },
)
