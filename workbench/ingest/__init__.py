"""Reading and writing frames: camera RAW, DNG, PGM, FITS, and folders of them."""

from .catalogue import Folder, open_folder
from .dng import write_dng
from .metadata import FrameInfo
from .reader import open_frames, read_frame, read_metadata

__all__ = ["Folder", "FrameInfo", "open_folder", "open_frames", "read_frame", "read_metadata", "write_dng"]
