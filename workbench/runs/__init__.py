"""A folder in, a result out."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules=["characterize", "samples"],
    submod_attrs={
        "samples": ["sample_folder"],
    },
)
