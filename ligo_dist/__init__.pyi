from .training.standalone import grow as grow

__version__: str
