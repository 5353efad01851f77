"""Measure a sensor: read noise, gain, dark current, uniformity, each with an error from the data."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules=["bias", "dark", "emva", "gain", "law", "transfer"],
    submod_attrs={
        "bias": ["read_noise"],
        "dark": ["Darks", "dark_current", "dark_signal", "measure_dark"],
        "emva": ["emva_dark_current", "fit_emva_gain"],
        "gain": ["fit_gain", "unity_gain_iso"],
        "law": ["dark_law"],
        "transfer": ["photon_transfer"],
    },
)
