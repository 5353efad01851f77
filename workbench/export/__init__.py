"""Charts as files: for paper, for a page, for a blog; and their numbers."""

from .write import Written, write_charts

__all__ = ["Written", "write_charts"]
