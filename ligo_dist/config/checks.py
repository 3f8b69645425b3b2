"""What has to hold between the keys of a configuration, and between it and the number of ranks."""

from __future__ import annotations

from typing import Any

from ligo_dist.architectures import architecture_names
from ligo_dist.config.deepspeed_keys import deepspeed_faults
from ligo_dist.config.faults import parse_section, suggestion
from ligo_dist.config.schema import Config, Data, Model, Tokenizer
from ligo_dist.config.stage_checks import learn_batch, stage_faults
from ligo_dist.errors import Fault

_FILE_SOURCES = ("text", "json", "parquet", "arrow")
_COLUMN_SOURCES = ("json", "parquet", "arrow", "hub")
_ONLY_FOR: dict[str, tuple[str, ...]] = {
    "files": _FILE_SOURCES,
    "name": ("hub",),
    "subset": ("hub",),
    "split": ("hub",),
    "text_column": _COLUMN_SOURCES,
    "document": ("text",),
    "include_tests": ("stdlib",),
}

OWNED_HUGGINGFACE_KEYS: dict[str, str] = {
    **dict.fromkeys(("n_layer", "num_hidden_layers"), "stages[].size.layers"),
    **dict.fromkeys(("n_embd", "hidden_size"), "stages[].size.width"),
    **dict.fromkeys(("n_head", "num_attention_heads", "head_dim"), "stages[].size.heads"),
    "num_key_value_heads": "stages[].size.key_value_heads",
    **dict.fromkeys(("n_inner", "intermediate_size"), "stages[].size.ffn"),
    **dict.fromkeys(("n_positions", "max_position_embeddings"), "model.max_positions"),
    "tie_word_embeddings": "model.tie_embeddings",
    "vocab_size": "tokenizer.vocab_size",
    **dict.fromkeys(("dtype", "torch_dtype"), "precision"),
    **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), "tokenizer"),
    **dict.fromkeys(("model_type", "architectures"), "model.family"),
    "use_cache": "the project (training keeps no key/value cache)",
}
"""Keys of Hugging Face configuration classes that other keys of ours set, and which."""


def cross_field_faults(raw: dict[str, Any]) -> list[Fault]:
    """Faults between keys, as far as the sections concerned are right in themselves.

    Args:
        raw: the plain values of a configuration, its stages with what they inherit.
    """
    model = parse_section(Model, raw.get("model"))
    faults = _model_faults(model) if model else []
    data = parse_section(Data, raw.get("data", {}))
    faults += _data_faults(data, model) if data else []
    tokenizer = parse_section(Tokenizer, raw.get("tokenizer"))
    faults += _tokenizer_faults(tokenizer) if tokenizer else []
    stages = raw.get("stages")
    if isinstance(stages, list):
        faults += stage_faults(stages, model if model and model.family in architecture_names() else None)
    deepspeed = raw.get("deepspeed")
    faults += deepspeed_faults(deepspeed) if isinstance(deepspeed, dict) else []
    return faults


def check_world_size(config: Config, world_size: int) -> list[Fault]:
    """Batches that do not divide into micro-batches over this many ranks."""
    faults = []
    for index, stage in enumerate(config.stages):
        batches = [(f"stages[{index}].train", stage.train.batch_size, stage.train.micro_batch_size)]
        learn = stage.grow.learn if stage.grow else None
        if learn is not None and learn.steps and (learn.batch_size or learn.micro_batch_size):
            batches.append((f"stages[{index}].grow.learn", *learn_batch(learn, stage.train)))
        for path, batch, micro in batches:
            if batch % (micro * world_size):
                wrong = f"{batch} is no multiple of {micro} (micro_batch_size) x {world_size} (ranks)"
                nearest = max(1, round(batch / (micro * world_size))) * micro * world_size
                faults.append(Fault(f"{path}.batch_size", f"{wrong}; {nearest} would be right"))
    return faults


def _model_faults(model: Model) -> list[Fault]:
    faults = []
    if model.family not in architecture_names():
        wrong = f"{model.family!r} is no model family{suggestion(model.family, architecture_names())}"
        faults.append(Fault("model.family", wrong))
    for key in model.huggingface:
        if key in OWNED_HUGGINGFACE_KEYS:
            wrong = f"cannot be given: it is set by `{OWNED_HUGGINGFACE_KEYS[key]}`"
            faults.append(Fault(f"model.huggingface.{key}", wrong))
    return faults


def _data_faults(data: Data, model: Model | None) -> list[Fault]:
    faults = []
    if model is not None and data.sequence_length > model.max_positions:
        wrong = f"{data.sequence_length} is more than the {model.max_positions} of model.max_positions"
        faults.append(Fault("data.sequence_length", wrong))
    if data.source in _FILE_SOURCES and not data.files:
        faults.append(Fault("data.files", f"is empty; the source {data.source!r} needs paths or globs"))
    if data.source == "hub" and data.name is None:
        faults.append(Fault("data.name", "is missing; the source 'hub' needs the name of a data set"))
    for key, sources in _ONLY_FOR.items():
        value = getattr(data, key)
        if data.source not in sources and value != Data.model_fields[key].get_default(
            call_default_factory=True
        ):
            wrong = f"{value!r} has no meaning for the source {data.source!r}, only for {', '.join(sources)}"
            faults.append(Fault(f"data.{key}", wrong))
    return faults


def _tokenizer_faults(tokenizer: Tokenizer) -> list[Fault]:
    if tokenizer.file is None and tokenizer.vocab_size is None:
        wrong = "is missing; a tokenizer that is to be trained needs the number of its pieces, such as 4096"
        return [Fault("tokenizer.vocab_size", wrong)]
    return []
