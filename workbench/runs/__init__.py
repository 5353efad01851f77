"""A folder in, a result out."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules=[
        "characterization",
        "darklibrary",
        "finish",
        "inspection",
        "lights",
        "planning",
        "samples",
        "stack",
        "transfer",
        "uniformity",
    ],
    submod_attrs={
        "characterization": ["Characterization", "characterize"],
        "darklibrary": ["make_dark_library", "predict_master_dark"],
        "finish": ["finish_file"],
        "inspection": ["Inspection", "inspect"],
        "lights": ["Lights", "examine_lights", "examined_beside"],
        "planning": ["Plan", "plan"],
        "samples": ["sample_folder"],
        "stack": ["StackResult", "stack_folder"],
        "transfer": ["Transfer", "measure_pixel_noise"],
        "uniformity": ["measure_uniformity"],
    },
)
