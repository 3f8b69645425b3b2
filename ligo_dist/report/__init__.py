"""What came of runs: loss against FLOPs and time, and what growing saved. While a run goes on, `pictures` draws it."""

import lazy_loader

# Some of it loads torch, and not everybody who needs the rest has the seconds for that.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
