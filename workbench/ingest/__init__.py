"""Reading and writing frames: camera RAW, DNG, PGM, FITS, and folders of them."""

from .catalogue import Folder, open_folder
from .dng import write_dng
from .metadata import FrameInfo
from .plain import PlainPixels
from .reader import open_frames, plain_pixels, read_frame, read_metadata

__all__ = [
    "Folder",
    "FrameInfo",
    "PlainPixels",
    "open_folder",
    "open_frames",
    "plain_pixels",
    "read_frame",
    "read_metadata",
    "write_dng",
]
