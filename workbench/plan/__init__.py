"""What to shoot next: frames that a full characterisation lacks, and how long the subs should be."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules=["lights", "shots", "subs"],
    submod_attrs={
        "lights": ["background_rate", "star_shapes", "tracking"],
        "shots": ["ShotList", "shot_list"],
        "subs": ["hours", "noise_penalty", "plan_subs", "sub_length"],
    },
)
