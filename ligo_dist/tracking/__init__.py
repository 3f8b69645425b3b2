"""What is recorded of a run: in its directory always, in MLflow if wished, by rank 0 alone."""

import lazy_loader

# Some of it loads torch, and not everybody who needs the rest has the seconds for that.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
