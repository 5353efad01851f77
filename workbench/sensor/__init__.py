"""Measure a sensor: read noise, gain, dark current, uniformity, each with an error from the data."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules=["bias", "gain", "transfer"],
    submod_attrs={
        "bias": ["read_noise"],
        "gain": ["fit_gain", "unity_gain_iso"],
        "transfer": ["photon_transfer"],
    },
)
