"""Grow a small transformer into a large one and go on pre-training it, sharded by ZeRO-3 from end to end."""

import lazy_loader

__version__ = "0.1.0"

# What it takes to grow a model loads torch, and nobody who needs a part of the package has the seconds for that.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
