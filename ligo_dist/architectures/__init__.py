"""The model families that can be grown. Adding one is adding a table: see `table.py` for how it is written."""

from __future__ import annotations

import importlib
import os
import sys

from ligo_dist.architectures.bert import BERT, BERT_ENCODER, ROBERTA
from ligo_dist.architectures.gpt import GPT2, GPT_NEOX
from ligo_dist.architectures.llama import LLAMA, MISTRAL, QWEN2, QWEN3
from ligo_dist.architectures.table import (
    Architecture,
    Axis,
    Dim,
    ModelShape,
    Objective,
    ParameterSpec,
    Segment,
)
from ligo_dist.architectures.vit import DEIT, VIT
from ligo_dist.runtime.errors import ArchitectureError, did_you_mean

__all__ = [
    "Architecture",
    "Axis",
    "Dim",
    "ModelShape",
    "Objective",
    "ParameterSpec",
    "Segment",
    "architecture_names",
    "get_architecture",
]

_FAMILIES = (GPT2, GPT_NEOX, LLAMA, MISTRAL, QWEN2, QWEN3, BERT, BERT_ENCODER, ROBERTA, VIT, DEIT)
_ARCHITECTURES = {architecture.name: architecture for architecture in _FAMILIES}


def architecture_names() -> tuple[str, ...]:
    return tuple(_ARCHITECTURES)


def get_architecture(name: str) -> Architecture:
    """A family of this package by its name, or one from elsewhere as `package.module:NAME`.

    Raises:
        ArchitectureError: for a family that is not known, with the nearest name; for a module that cannot be
            imported or holds no `Architecture` of that name.
    """
    if ":" in name:
        return _imported(name)
    if name in _ARCHITECTURES:
        return _ARCHITECTURES[name]
    raise ArchitectureError(
        f"no model family {name!r}; there are {', '.join(_ARCHITECTURES)}{did_you_mean(name, _ARCHITECTURES)}"
    )


def _imported(address: str) -> Architecture:
    module_name, _, attribute = address.partition(":")
    if not module_name or not attribute.isidentifier():
        raise ArchitectureError(f"model family {address!r}: should be `package.module:NAME`")
    if os.getcwd() not in sys.path:
        # The ranks run with the working directory on the path, a console script without.
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever a module of the user's raises, it is what keeps the family away
        cause = f"{type(error).__name__}: {error}"
        raise ArchitectureError(
            f"model family {address!r}: {module_name} cannot be imported: {cause}"
        ) from error
    if not hasattr(module, attribute):
        hint = did_you_mean(attribute, vars(module))
        raise ArchitectureError(f"model family {address!r}: {module_name} has no {attribute!r}{hint}")
    architecture = getattr(module, attribute)
    if not isinstance(architecture, Architecture):
        kind = type(architecture).__name__
        raise ArchitectureError(
            f"model family {address!r}: {attribute} is of type {kind}, not an Architecture"
        )
    return architecture
