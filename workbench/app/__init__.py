"""One app: a folder of frames in, everything at hand in the browser."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules=["jobs", "server"],
    submod_attrs={"jobs": ["Job", "Runner"], "server": ["serve"]},
)
