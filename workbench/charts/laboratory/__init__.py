"""Charts of the sensor laboratory: what read noise is made of, how far the scale reaches, what darks tell alone."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules=["noise", "transfer", "uniformity"],
    submod_attrs={
        "noise": ["dynamic_range", "pixel_noise", "read_noise_split"],
        "transfer": ["dark_gain", "linearity"],
        "uniformity": ["dark_law", "dark_prediction", "defects", "fixed_pattern", "spectrogram", "uniformity_parts"],
    },
)
