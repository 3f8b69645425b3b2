"""The corpus: documents -> tokens -> packed blocks -> samples -> batches, or images -> samples -> batches."""

import lazy_loader

# Some of it loads torch, and not everybody who needs the rest has the seconds for that.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
