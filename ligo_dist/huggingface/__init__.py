"""The library's models and directories: what comes in, and what goes out."""

import lazy_loader

# Some of it loads torch, and not everybody who needs the rest has the seconds for that.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
