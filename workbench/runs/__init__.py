"""A folder in, a result out."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules=["characterization", "samples"],
    submod_attrs={
        "characterization": ["Characterization", "characterize"],
        "samples": ["sample_folder"],
    },
)
