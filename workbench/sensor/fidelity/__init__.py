"""Is my raw file raw?  What a camera does to its numbers before it saves them."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules=["card", "codes", "hotfilter", "texture", "verdicts"],
    submod_attrs={
        "card": ["TESTS", "Fidelity", "descaled_gain", "fidelity_to_json", "inspect_frames", "vanishing_level"],
        "codes": ["count_codes", "missing_codes"],
        "hotfilter": ["hot_pixel_filter"],
        "texture": ["noise_texture"],
    },
)
