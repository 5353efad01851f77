"""Live controls: widgets wired to the package's verbs and charts, for notebooks and for pages."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules=["explore", "shot_noise"],
    submod_attrs={
        "explore": ["dark_explorer", "ptc_explorer", "read_noise_explorer"],
        "shot_noise": ["shot_noise_demo"],
    },
)
