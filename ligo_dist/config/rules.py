"""What has to hold between the keys of a configuration whose sections are right in themselves, and between it and the
number of ranks. The stages' part: `stage_rules`."""

from __future__ import annotations

import os
from pathlib import Path

from ligo_dist.architectures import Architecture, architecture_names
from ligo_dist.config.compare import compare_faults
from ligo_dist.config.deepspeed_keys import deepspeed_faults
from ligo_dist.config.faults import NEEDED, suggestion
from ligo_dist.config.mixture import given_keys, mixture_faults, source_configs, told_of_source
from ligo_dist.config.resolve import FLASH, is_image_family, learn_steps, reads_tokens
from ligo_dist.config.schema import Config, Data, Model, Stage, Tokenizer, Tracking
from ligo_dist.config.section import Section
from ligo_dist.config.stage_rules import stage_faults
from ligo_dist.huggingface import check_path, locate_source
from ligo_dist.runtime.errors import ArchitectureError, CheckpointError, Fault, LigoError
from ligo_dist.runtime.imported import import_object

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
    "attn_implementation": "model.attention",
    "use_cache": "the project (training keeps no key/value cache)",
    "problem_type": "data.labels (what is learned is the one class of each image)",
    **dict.fromkeys(
        ("return_dict", "output_hidden_states", "output_attentions"),
        "the project (a model's loss is read by name)",
    ),
}

_TOKEN_SOURCES = ("megatron", "datatrove")
_FILE_SOURCES = ("text", "json", "parquet", "arrow", *_TOKEN_SOURCES)
_COLUMN_SOURCES = ("json", "parquet", "arrow", "hub")
_TEXT_SOURCES = ("stdlib", "text", "json", "parquet", "arrow", "hub", *_TOKEN_SOURCES)
_IMAGE_SOURCES = ("digits", "images", "parquet", "arrow", "hub")
_ONLY_FOR: dict[str, tuple[str, ...]] = {
    "files": _FILE_SOURCES,
    "name": ("hub", "images"),
    "subset": ("hub",),
    "split": ("hub",),
    "text_column": _COLUMN_SOURCES,
    "token_column": ("parquet", "arrow"),
    "image_column": ("parquet", "arrow", "hub"),
    "label_column": ("parquet", "arrow", "hub"),
    "document": ("text",),
    "broken_lines": ("json", "hub"),
    "include_tests": ("stdlib",),
}
_ONLY_TEXT = (
    "text_column", "token_column", "document", "include_tests", "broken_lines", "sequence_length",
    "separate_documents", "mask_fraction",
)  # fmt: skip
_ONLY_IMAGES = (
    "image_column", "label_column", "image_size", "channels", "labels", "random_shift", "random_flip",
)  # fmt: skip

_MODEL_NAME_LENGTH = 256  # of a name in MLflow's registry


def faults_between(config: Config) -> list[Fault]:
    """Faults between the keys; where the family is unknown, only those that hold for any."""
    faults, has_source = [], config.stages[0].from_ is not None
    try:
        architecture = config.architecture
    except ArchitectureError as error:
        faults.append(_unknown_family(config.model.family, error))
    else:
        faults += _model_faults(config.model, architecture, has_source)
        faults += _corpus_faults(config, architecture, has_source)
        faults += _tokenizer_faults(config.tokenizer, config.data, architecture, has_source)
        faults += stage_faults(config)
        faults += _harness_faults(config, architecture)
    faults += mixture_faults(config)
    faults += attention_faults(config)
    faults += _going_on_faults(config)
    faults += compare_faults(config.compare)
    faults += _tracking_faults(config.tracking)
    faults += deepspeed_faults(config.deepspeed)
    return _source_faults(config) + faults if faults else []


def _source_faults(config: Config) -> list[Fault]:
    """A directory of the first stage's model that is not there, told beside other faults; where there are none, whoever
    opens it tells it."""
    name = config.stages[0].from_
    if name is None:
        return []
    try:
        check_path(name)
    except CheckpointError as error:
        is_kept = locate_source(Path(config.run_dir), name) != name
        return [] if is_kept else [Fault("stages[0].from", str(error))]
    return []


def _going_on_faults(config: Config) -> list[Fault]:
    """Faults in what the run begins from, and in the checkpoints that are to stay for others."""
    faults, start = [], config.start_from
    names = [stage.name for stage in config.stages]
    if start is not None:
        if os.path.abspath(start.run) == os.path.abspath(config.run_dir):
            wrong = f"{start.run!r} is the run_dir of this run, which goes on from its own checkpoints anyway"
            faults.append(Fault("start_from.run", f"{wrong}; another run_dir would be right"))
        if start.stage is not None and start.stage not in names:
            wrong = f"{start.stage!r} is no stage of this run"
            faults.append(Fault("start_from.stage", f"{wrong}{suggestion(start.stage, names)}"))
    steps = sum(learn_steps(stage.grow) if stage.grow else 0 for stage in config.stages)
    steps += sum(stage.train.steps if stage.train else 0 for stage in config.stages)
    faults += [
        Fault(f"checkpoints.keep_steps[{index}]", f"{step} is more than the {steps} steps that the run takes")
        for index, step in enumerate(config.checkpoints.keep_steps)
        if step > steps
    ]
    return faults


def _harness_faults(config: Config, architecture: Architecture) -> list[Fault]:
    """Tasks that take a model of another kind."""
    if not config.evaluation.harness.tasks or architecture.objective == "causal_lm":
        return []
    wrong = f"are for models that predict the next token, and {architecture.name} does not; [] would be right"
    return [Fault("evaluation.harness.tasks", wrong)]


def attention_faults(config: Config) -> list[Fault]:
    """A way to compute attention that the precision does not allow."""
    if config.model.attention != FLASH or config.precision != "fp32":
        return []
    wrong = f"{FLASH!r} takes bf16 alone, and precision is fp32; auto or sdpa would be right"
    return [Fault("model.attention", wrong)]


def _unknown_family(family: str, error: ArchitectureError) -> Fault:
    if ":" in family:
        return Fault("model.family", str(error))
    return Fault("model.family", f"{family!r} is no model family{suggestion(family, architecture_names())}")


def check_world_size(config: Config, world_size: int) -> list[Fault]:
    """Batches too small for every rank to have a sample of them."""
    faults = []
    for index, stage in enumerate(config.stages):
        for key, batch in _batch_sizes(stage).items():
            if batch < world_size:
                wrong = f"{batch} is less than one sample for each of {world_size} ranks"
                right = f"at least {world_size}, or at most {batch} ranks, would be right"
                faults.append(Fault(f"stages[{index}].{key}", f"{wrong}; {right}"))
    return faults


def _batch_sizes(stage: Stage) -> dict[str, int]:
    """The batches that a stage's steps take, by the key that says them."""
    train = stage.train
    if train is None:
        return {}
    sizes = {}
    if stage.grow is not None and learn_steps(stage.grow):
        own = stage.grow.learn.batch_size
        sizes["grow.learn.batch_size" if own else "train.batch_size"] = own or train.batch_size
    if train.steps:
        sizes["train.batch_size"] = train.batch_size
    return sizes


def owned_huggingface_keys(architecture: Architecture) -> dict[str, str]:
    """Keys of the family's Hugging Face configuration class that other keys of ours set, and which."""
    sizes = {key: _SET_BY[name] for key, name in architecture.config_keys.items() if name in _SET_BY}
    return {**_NEVER_GIVEN, **sizes}


def _model_faults(model: Model, architecture: Architecture, has_source: bool) -> list[Fault]:
    """Faults inside `model`; with a source its configuration says what is left out."""
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


def _corpus_faults(config: Config, architecture: Architecture, has_source: bool) -> list[Fault]:
    """Faults inside `data`, of each source of a mixture under its own path; what all of them share is told once."""
    told: dict[Fault, None] = {}
    for name, alone in source_configs(config).items():
        for fault in _data_faults(alone.data, config.model, architecture, has_source):
            told[Fault(told_of_source(fault.path, name), told_of_source(fault.message, name))] = None
    return list(told)


def _data_faults(data: Data, model: Model, architecture: Architecture, has_source: bool) -> list[Fault]:
    """Faults inside `data`, and between it and the model."""
    faults = []
    images = is_image_family(architecture)
    if data.source is None:
        faults.append(Fault("data.source", f"is missing; {NEEDED}"))
    longest = None if images else model.max_positions
    if longest is not None and data.sequence_length > longest:
        wrong = f"{data.sequence_length} is more than the {longest} of model.max_positions"
        faults.append(Fault("data.sequence_length", wrong))
    if architecture.objective == "causal_lm" and data.sequence_length == 1:
        wrong = "1: there is no next token to predict; at least 2 would be right"
        faults.append(Fault("data.sequence_length", wrong))
    if data.source in _FILE_SOURCES and not data.files:
        faults.append(Fault("data.files", f"is empty; the source {data.source!r} needs paths or globs"))
    if data.source == "hub" and data.name is None:
        faults.append(Fault("data.name", "is missing; the source 'hub' needs the name of a data set"))
    if data.source == "images" and data.name is None:
        wrong = "is missing; the source 'images' needs a directory with a folder of images for each class"
        faults.append(Fault("data.name", wrong))
    for key, sources in _ONLY_FOR.items():
        of_function = key == "files" and ":" in (data.source or "")
        is_said = data.source is not None and _is_given(data, key)
        if is_said and data.source not in sources and not of_function:
            wrong = f"{getattr(data, key)!r} has no meaning for the source {data.source!r}"
            faults.append(Fault(f"data.{key}", f"{wrong}, only for {', '.join(sources)}"))
    if reads_tokens(data) and data.streaming:
        wrong = (
            "true has no meaning for tokens that exist, which are read where they are; false would be right"
        )
        faults.append(Fault("data.streaming", wrong))
    if data.token_column is not None and _is_given(data, "text_column"):
        wrong = f"{data.text_column!r} and data.token_column are two columns; one of them has to be left out"
        faults.append(Fault("data.text_column", wrong))
    told = {fault.path for fault in faults}
    of_family = _family_faults(data, architecture) + (
        _image_faults(data, model, has_source) if images else []
    )
    return faults + [fault for fault in of_family if fault.path not in told]


def _tokenizer_faults(
    tokenizer: Tokenizer, data: Data, architecture: Architecture, has_source: bool
) -> list[Fault]:
    """Faults inside `tokenizer`, and one that the corpus needs."""
    if is_image_family(architecture):
        return [
            Fault(
                f"tokenizer.{key}",
                f"{getattr(tokenizer, key)!r} has no meaning for {architecture.name}, which reads images",
            )
            for key in Tokenizer.model_fields
            if _is_given(tokenizer, key)
        ]
    if tokenizer.file is not None and tokenizer.huggingface is not None:
        wrong = f"{tokenizer.huggingface!r} and tokenizer.file are two tokenizers; one of them has to be null"
        return [Fault("tokenizer.huggingface", wrong)]
    is_named = tokenizer.file is not None or tokenizer.huggingface is not None
    if not is_named and any(map(reads_tokens, data.mixture.values() or [data])):
        wrong = (
            "is missing; tokens that exist do not say which tokenizer made them: name it, or tokenizer.file"
        )
        return [Fault("tokenizer.huggingface", wrong)]
    if not is_named and tokenizer.vocab_size is None:
        if has_source and not tokenizer.replace_source:
            return []
        wrong = "is missing; a tokenizer that is to be trained needs the number of its pieces, such as 4096"
        return [Fault("tokenizer.vocab_size", wrong)]
    if tokenizer.replace_source and is_named:
        wrong = "true has no meaning where the tokenizer is named; false would be right"
        return [Fault("tokenizer.replace_source", wrong)]
    if has_source and not is_named and not tokenizer.replace_source:
        wrong = (
            f"{tokenizer.vocab_size} would train a new tokenizer, and the embedding of stages[0].from was learned for"
            " the pieces of its own, which null takes; if you mean it, write tokenizer.replace_source: true"
        )
        return [Fault("tokenizer.vocab_size", wrong)]
    return []


def _family_faults(data: Data, architecture: Architecture) -> list[Fault]:
    """Sources and keys of the other kind of model."""
    images = is_image_family(architecture)
    sources = _IMAGE_SOURCES if images else _TEXT_SOURCES
    faults = []
    source = data.source or sources[0]
    if source not in sources and (images or ":" not in source):
        wrong = f"{source!r} is no source of {'images' if images else 'text'} for {architecture.name}"
        there = sources if images else (*sources, "module:FUNCTION (yours)")
        faults.append(Fault("data.source", wrong + suggestion(source, there)))
    elif ":" in source:
        try:
            import_object(source, "function", LigoError)
        except LigoError as error:
            faults.append(Fault("data.source", str(error)))
    faults += [
        _no_meaning(data, key, architecture, "text" if images else "image")
        for key in (_ONLY_TEXT if images else _ONLY_IMAGES)
        if _is_given(data, key)
    ]
    if not images and architecture.objective != "masked_lm" and _is_given(data, "mask_fraction"):
        faults.append(_no_meaning(data, "mask_fraction", architecture, "masked language"))
    return faults


def _no_meaning(data: Data, key: str, architecture: Architecture, kind: str) -> Fault:
    wrong = f"{getattr(data, key)!r} has no meaning for {architecture.name}, only for {kind} models"
    return Fault(f"data.{key}", wrong)


def _image_faults(data: Data, model: Model, has_source: bool) -> list[Fault]:
    faults = []
    for key, what in (
        ("image_size", "the side of its images, such as 224"),
        ("labels", "a number of classes"),
    ):
        if getattr(data, key) is None and not has_source:
            faults.append(Fault(f"data.{key}", f"is missing; {model.family} needs {what}"))
    if data.labels == 1:
        wrong = (
            "1: with a single class there is nothing to learn, and the library would take it for a regression"
        )
        faults.append(Fault("data.labels", f"{wrong}; at least 2 would be right"))
    size, patch = data.image_size, model.patch_size
    if size is not None and patch is not None and size % patch:
        wrong = f"{size} is no multiple of the {patch} of model.patch_size"
        faults.append(
            Fault("data.image_size", f"{wrong}; {max(1, round(size / patch)) * patch} would be right")
        )
    if size is not None and data.random_shift >= size:
        wrong = f"{data.random_shift} is not less than the {size} of data.image_size: nothing would be left"
        faults.append(Fault("data.random_shift", wrong))
    return faults


def _is_given(section: Section, key: str) -> bool:
    """Whether a key says something else than its default."""
    return bool(given_keys(section, [key]))


def _tracking_faults(tracking: Tracking) -> list[Fault]:
    """Names that MLflow would refuse when the run is over."""
    name = tracking.register_model
    if name is None:
        return []
    path = "tracking.register_model"
    if any(character in name for character in "/:") or name.strip() in ("", ".", ".."):
        return [Fault(path, f"{name!r} is no name of a model; one without '/' and ':' would be right")]
    if len(name) > _MODEL_NAME_LENGTH:
        return [Fault(path, f"has {len(name)} characters; at most {_MODEL_NAME_LENGTH} would be right")]
    return []
