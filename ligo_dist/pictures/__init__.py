"""What a run looks like: its curves and its learned operators, drawn by the first rank as each stage goes by."""

from ligo_dist.pictures.album import PICTURES_DIRECTORY, Album

__all__ = ["PICTURES_DIRECTORY", "Album"]
