"""What has to hold inside `model`, and which keys of the library's configuration the user may not give."""

from __future__ import annotations

from ligo_dist.architectures import Architecture, architecture_names, get_architecture
from ligo_dist.config.faults import suggestion
from ligo_dist.config.schema import Model
from ligo_dist.config.shapes import is_image_family
from ligo_dist.errors import ArchitectureError, Fault

_SET_BY = {
    "layers": "stages[].size.layers",
    "width": "stages[].size.width",
    "heads": "stages[].size.heads",
    "key_value_heads": "stages[].size.key_value_heads",
    "head_size": "stages[].size.head_size",
    "ffn": "stages[].size.ffn",
    "tied": "model.tie_embeddings",
    "vocab": "model.vocab_size",
    "positions": "model.max_positions",
    "patch_size": "model.patch_size",
    "image_size": "data.image_size",
    "channels": "data.channels",
    "labels": "data.labels",
}
"""Attributes of `ModelShape` -> the key of ours that says them; the others are said in `model.huggingface`."""

_NEVER_GIVEN = {
    **dict.fromkeys(("dtype", "torch_dtype"), "precision"),
    **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), "tokenizer"),
    **dict.fromkeys(("model_type", "architectures"), "model.family"),
    "tie_word_embeddings": "model.tie_embeddings",
    "use_cache": "the project (training keeps no key/value cache)",
}


def owned_huggingface_keys(architecture: Architecture) -> dict[str, str]:
    """Keys of the family's Hugging Face configuration class that other keys of ours set, and which."""
    sizes = {key: _SET_BY[name] for key, name in architecture.config_keys.items() if name in _SET_BY}
    return {**_NEVER_GIVEN, **sizes}


def known_architecture(family: str) -> Architecture | None:
    """The family's table; None where there is none, of which `model_faults` tells."""
    try:
        return get_architecture(family)
    except ArchitectureError:
        return None


def model_faults(model: Model, has_source: bool) -> list[Fault]:
    """Faults inside `model`; with a source its configuration says what is left out."""
    try:
        architecture = get_architecture(model.family)
    except ArchitectureError as error:
        if ":" in model.family:
            return [Fault("model.family", str(error))]
        wrong = f"{model.family!r} is no model family{suggestion(model.family, architecture_names())}"
        return [Fault("model.family", wrong)]
    faults = _meaning_faults(model, architecture)
    needed = ("patch_size", "pixels, such as 16") if is_image_family(architecture) else None
    needed = needed or ("max_positions", "the longest sequence it takes, such as 1024")
    if getattr(model, needed[0]) is None and not has_source:
        faults.append(Fault(f"model.{needed[0]}", f"is missing; {model.family} needs {needed[1]}"))
    owned = owned_huggingface_keys(architecture)
    for key in model.huggingface:
        if key in owned:
            faults.append(Fault(f"model.huggingface.{key}", f"cannot be given: it is set by `{owned[key]}`"))
    return faults


def _meaning_faults(model: Model, architecture: Architecture) -> list[Fault]:
    """Keys that say something of another kind of model."""
    images = is_image_family(architecture)
    unused = [("max_positions", "text"), ("vocab_size", "text")] if images else [("patch_size", "images")]
    faults = [
        Fault(
            f"model.{key}",
            f"{getattr(model, key)!r} has no meaning for {model.family}, only for {kind}; null would be right",
        )
        for key, kind in unused
        if getattr(model, key) is not None
    ]
    if model.tie_embeddings is not None and architecture.ties_embeddings is None:
        wrong = f"{str(model.tie_embeddings).lower()}: {model.family} leaves no choice; null would be right"
        faults.append(Fault("model.tie_embeddings", wrong))
    return faults
