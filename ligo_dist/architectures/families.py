"""The families of the package, and those from elsewhere, by their names."""

from __future__ import annotations

from ligo_dist.architectures.bert import BERT, BERT_ENCODER, ROBERTA
from ligo_dist.architectures.gpt import GPT2, GPT_NEOX, OPT
from ligo_dist.architectures.llama import LLAMA, MISTRAL, QWEN2, QWEN3
from ligo_dist.architectures.table import Architecture
from ligo_dist.architectures.vit import DEIT, VIT
from ligo_dist.runtime.errors import ArchitectureError, did_you_mean
from ligo_dist.runtime.imported import import_object

_FAMILIES = (GPT2, GPT_NEOX, OPT, LLAMA, MISTRAL, QWEN2, QWEN3, BERT, BERT_ENCODER, ROBERTA, VIT, DEIT)
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


def architecture_of_class(model_class: str) -> Architecture:
    """The family of this package whose models are of a class of `transformers`.

    Raises:
        ArchitectureError: none is, with the classes there are.
    """
    by_class = {architecture.model_class: architecture for architecture in _FAMILIES}
    if model_class not in by_class:
        wrong = f"no model family has the class {model_class!r}; there are {', '.join(by_class)}"
        raise ArchitectureError(wrong + did_you_mean(model_class, by_class))
    return by_class[model_class]


def _imported(address: str) -> Architecture:
    architecture = import_object(address, "model family", ArchitectureError)
    if not isinstance(architecture, Architecture):
        name, kind = address.partition(":")[2], type(architecture).__name__
        raise ArchitectureError(f"model family {address!r}: {name} is of type {kind}, not an Architecture")
    return architecture
