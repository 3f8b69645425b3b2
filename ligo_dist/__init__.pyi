from .api import grow as grow

__version__: str
