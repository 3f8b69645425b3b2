"""What a configuration names as `package.module:NAME`, an object of the user's own code; and what is imported when it
is used."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from ligo_dist.runtime.errors import LigoError, did_you_mean


def import_object(address: str, what: str, error: type[LigoError]) -> Any:
    """The object that an address stands for.

    Args:
        address: `package.module:NAME`, from the path of modules or the working directory.
        what: how an error names it.
        error: what is raised.

    Raises:
        LigoError: of the type `error`: the module cannot be imported, or holds nothing of that name.
    """
    module_name, _, attribute = address.partition(":")
    if not module_name or not attribute.isidentifier():
        raise error(f"{what} {address!r}: should be `package.module:NAME`")
    if os.getcwd() not in sys.path:
        # The ranks run with the working directory on the path, a console script without.
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except Exception as failure:  # whatever a module of the user's raises, it is what keeps the object away
        cause = f"{type(failure).__name__}: {failure}"
        raise error(f"{what} {address!r}: {module_name} cannot be imported: {cause}") from failure
    if not hasattr(module, attribute):
        hint = did_you_mean(attribute, vars(module))
        raise error(f"{what} {address!r}: {module_name} has no {attribute!r}{hint}")
    return getattr(module, attribute)


class ImportedLater:
    """A module of this name that is imported when something of it is used. Not by a lazy entry in `sys.modules`: torch,
    on being imported, looks at a file of every module there, and so imports it.

    Args:
        name: of the module.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self._name), name)
