"""What a Hugging Face directory gives a model: which stored tensor is which parameter, and what begins anew.

Names in the files are brought to those of the model by what `transformers` itself does on loading: the renamings that
it keeps for each family (`vit.encoder.layer.0...` -> `vit.layers.0...`, `LayerNorm.gamma` -> `LayerNorm.weight`), the
base model's prefix added or taken away (`h.0...` -> `transformer.h.0...`), and buffers left out. Names that wrappers
left (`_orig_mod.`, `module.`) are taken off before. A parameter that two names share may be there under either or both.

Only names and shapes are looked at, so all of it can be said before a run begins.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

from ligo_dist.architectures import Architecture, ModelShape, ParameterSpec
from ligo_dist.huggingface.files import StoredTensor, stored_tensors
from ligo_dist.runtime.errors import CheckpointError, shortened

_BUFFERS = re.compile(r"(^|\.)(position_ids|token_type_ids|inv_freq|masked_bias)$")
"""Buffers that files of older versions of the library hold, whatever the family."""

_WRAPPERS = re.compile(r"(^|(?<=\.))(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""What torch puts between names where a module is compiled, sharded or checkpointed."""

_ROWS = ("vocab", "position", "token_type")
"""Axes of which a model may have more or fewer rows than the files: the others mean what they meant."""


Named = list[tuple[str, StoredTensor]]
"""Stored tensors of one parameter, each with its name in the files."""


@dataclass(frozen=True)
class Match:
    """What a directory gives a model.

    Attributes:
        sources: where each parameter's values are, under all its names in the files; none: it begins anew. A tensor may
            have fewer rows than the parameter: those beyond begin anew; it may have more: these are left out.
        begins_anew: some values are not in the files.
        notes: a line for everything that is left out or begins anew.
    """

    sources: dict[str, Named]
    begins_anew: bool
    notes: list[str]


def match_weights(
    directory: Path, architecture: Architecture, shape: ModelShape, model: PreTrainedModel
) -> Match:
    """Hold the tensors of a directory against a model's parameters.

    A head that the files do not have, or have for other classes, begins anew, and so do rows of an embedding beyond
    those there. A head or pooler that the model does not have is left out.

    Raises:
        CheckpointError: with everything else that does not match, or its one cause.
    """
    origin = f"stages[0].from: the weights in {directory}"
    stored, names = stored_tensors(directory), _LibraryNames(model)
    _check_gathered(origin, stored)
    stored = _unwrapped(stored, names)
    specs = {spec.name: spec for spec in architecture.parameters(shape)}
    sources: dict[str, Named] = {name: [] for name in specs}
    faults: list[tuple[str, str]] = []
    surplus: list[str] = []
    other_classes: dict[int, list[str]] = {}
    other_rows: dict[tuple[int, int], list[str]] = {}
    for stored_name, tensor in stored.items():
        name = names.parameter(stored_name)
        if name is None:
            surplus += [] if names.is_buffer(stored_name) else [stored_name]
            continue
        rows, wanted = _rows(tensor.shape), _rows(specs[name].shape)
        if rows != wanted and _first_axis(specs[name]) == "label":
            other_classes.setdefault(rows, []).append(name)
            continue
        if rows != wanted and _first_axis(specs[name]) in _ROWS:
            other_rows.setdefault((rows, wanted), []).append(name)
        sources[name].append((stored_name, tensor))
        faults += _tensor_faults(stored_name, tensor, specs[name])
    if not any(sources.values()):
        none = f"it has no parameter of any of their names ({shortened(stored, 3)})"
        raise CheckpointError(f"{origin} are not those of a {type(model).__name__}: {none}")
    for name, other in names.shared_biases():
        # Files of older versions of the library hold one bias of a head whose decoder is its own.
        if name in sources and not sources[name]:
            sources[name] = list(sources.get(other, ()))
    missing = [name for name, found in sources.items() if not found]
    anew = [name for name in missing if names.may_begin_anew(name, sources)]
    faults += [(name, "missing") for name in missing if name not in anew]
    left_out = [name for name in surplus if names.is_of_no_use(name, stored)]
    faults += [(name, f"of no use to {type(model).__name__}") for name in surplus if name not in left_out]
    if faults:
        raise CheckpointError(_refusal(origin, model, architecture, shape, faults))
    notes = [
        f"{_modules(found)}: for {classes} classes and not {shape.labels}, so it begins with random values"
        for classes, found in other_classes.items()
    ]
    notes += [_row_note(rows, wanted, found) for (rows, wanted), found in other_rows.items()]
    told = {name for found in other_classes.values() for name in found}
    if untold := _modules(name for name in anew if name not in told):
        notes.append(f"{untold}: not in the files, so it begins with random values")
    if left_out:
        notes.append(f"{_modules(left_out)}: left out, as {type(model).__name__} has no such part")
    return Match(sources, bool(anew or other_rows), notes)


class _LibraryNames:
    """The names that the library gives stored tensors when it loads a model."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        transforms = get_model_conversion_mapping(model)
        self._converters = [one for one in transforms if isinstance(one, WeightConverter)]
        self._renamings = [one for one in transforms if isinstance(one, WeightRenaming)]
        first = {id(parameter): name for name, parameter in model.named_parameters()}
        self._parameters = {
            name: first[id(parameter)]
            for name, parameter in model.named_parameters(
                remove_duplicate=False
            )  # ties under all their names
        }
        self._buffers = {name for name, _ in model.named_buffers()}
        self._known = dict.fromkeys([*self._parameters, *self._buffers], True)

    def shared_biases(self) -> Iterator[tuple[str, str]]:
        """Biases that have been one, where the library's head says so: (the one that counts, the other)."""
        for name, other in (getattr(self._model, "_tied_weights_keys", None) or {}).items():
            if name.endswith(".bias"):
                yield name, other

    def parameter(self, stored_name: str) -> str | None:
        """The parameter that a stored tensor is; of one with several names the first. None if it is none.

        Raises:
            CheckpointError: the library computes this parameter from the stored tensors.
        """
        name, converted = self._renamed(stored_name)
        if converted is not None:
            raise CheckpointError(
                f"stages[0].from: {stored_name}: the library computes {name} from stored tensors on loading, which"
                " is not supported here"
            )
        return self._parameters.get(name)

    def is_buffer(self, stored_name: str) -> bool:
        """Whether a tensor that is no parameter is one that the library leaves out silently."""
        patterns = self._model._keys_to_ignore_on_load_unexpected or ()
        return (
            self._renamed(stored_name)[0] in self._buffers
            or _BUFFERS.search(stored_name) is not None
            or any(re.search(pattern, stored_name) for pattern in patterns)
        )

    def may_begin_anew(self, name: str, sources: Mapping[str, Named]) -> bool:
        """Whether a parameter belongs to a head, or a pooler, of which the files hold nothing."""
        top = f"{name.partition('.')[0]}."
        if self._is_in_base(name) and not _is_pooler(self._below_base(name)):
            return False
        return not any(found for other, found in sources.items() if other.startswith(top))

    def is_of_no_use(self, stored_name: str, stored: Iterable[str]) -> bool:
        """Whether a tensor that is no parameter belongs to a head, or a pooler, that the model does not have."""
        name = self._renamed(stored_name)[0]
        module = f"{name.rpartition('.')[0]}."
        if any(other.startswith(module) for other in self._parameters):
            return False
        if _is_pooler(self._below_base(name)):
            return True
        # A base model saved alone has no prefix, and then nothing tells a head from a part of it.
        base = self._prefix()
        return not name.startswith(base) and any(other.startswith(base) for other in stored)

    def _is_in_base(self, name: str) -> bool:
        return not hasattr(self._model, self._model.base_model_prefix) or name.startswith(self._prefix())

    def _below_base(self, name: str) -> str:
        return name.removeprefix(self._prefix())

    def _prefix(self) -> str:
        return f"{self._model.base_model_prefix}."

    def _renamed(self, stored_name: str) -> tuple[str, str | None]:
        prefix = self._model.base_model_prefix or None
        return rename_source_key(stored_name, self._renamings, self._converters, prefix, self._known)


def _check_gathered(origin: str, stored: Mapping[str, StoredTensor]) -> None:
    empty = [name for name, tensor in stored.items() if 0 in tensor.shape]
    if empty:
        raise CheckpointError(
            f"{origin} are none: {len(empty)} of {len(stored)} tensors are empty ({empty[0]}), as a model is that was"
            " saved under ZeRO-3 without its partitions being gathered; zero_to_fp32.py, which DeepSpeed puts beside"
            " its own checkpoints, makes the weights of these"
        )


def _unwrapped(stored: Mapping[str, StoredTensor], names: _LibraryNames) -> dict[str, StoredTensor]:
    """The tensors without what wrappers put into names, or in front of all of them."""
    found = {_WRAPPERS.sub("", name): tensor for name, tensor in stored.items()}
    while not any(names.parameter(name) for name in found):
        heads = {name.partition(".")[0] for name in found}
        if len(heads) != 1 or any("." not in name for name in found):
            return {_WRAPPERS.sub("", name): tensor for name, tensor in stored.items()}
        found = {name.partition(".")[2]: tensor for name, tensor in found.items()}
    return found


def _is_pooler(name: str) -> bool:
    return name.startswith("pooler.")


def _rows(shape: tuple[int, ...]) -> int:
    return math.prod(shape[:1])


def _first_axis(spec: ParameterSpec) -> str:
    return spec.dims[0].segments[0].axis.name


def _tensor_faults(stored_name: str, tensor: StoredTensor, spec: ParameterSpec) -> list[tuple[str, str]]:
    if tensor.dtype is None:
        return [(stored_name, "neither fp32 nor bf16 nor fp16")]
    same_rows = tensor.shape[1:] == spec.shape[1:] and len(tensor.shape) == len(spec.shape)
    if tensor.shape == spec.shape or (same_rows and _first_axis(spec) in _ROWS):
        return []
    return [(stored_name, f"shape {tensor.shape}, the configuration gives {spec.shape}")]


def _row_note(rows: int, wanted: int, names: Iterable[str]) -> str:
    what = f"{shortened(dict.fromkeys(names))}: {rows} rows in the files, and {wanted} in the model; the last"
    if rows < wanted:
        return f"{what} {wanted - rows} begin with random values"
    return f"{what} {rows - wanted} are left out"


def _modules(names: Iterable[str]) -> str:
    """The modules that parameters belong to, each once."""
    return shortened(dict.fromkeys(name.rpartition(".")[0] or name for name in names))


def _layers_cause(
    model: PreTrainedModel, architecture: Architecture, shape: ModelShape, faults: list[tuple[str, str]]
) -> str | None:
    """What explains all faults, where it is another number of blocks."""
    path = re.escape(architecture.layers_path.removeprefix(f"{model.base_model_prefix}."))
    found = [re.search(rf"(?:^|\.){path}\.(\d+)\.", name) for name, _ in faults]
    numbers = {int(one[1]) for one in found if one}
    if not all(found):
        return None
    there = None
    if min(numbers) >= shape.layers:
        there = max(numbers) + 1
    elif numbers == set(range(min(numbers), shape.layers)) and {what for _, what in faults} == {"missing"}:
        there = min(numbers)
    return None if there is None else f"config.json says {shape.layers} blocks, and the files have {there}"


def _refusal(
    origin: str,
    model: PreTrainedModel,
    architecture: Architecture,
    shape: ModelShape,
    faults: list[tuple[str, str]],
) -> str:
    wrong = f"{origin} are not those of a {type(model).__name__} with this configuration"
    cause = _layers_cause(model, architecture, shape, faults)
    if cause is not None:
        return f"{wrong}: {cause}"
    # A fault of every block is told once.
    roles: dict[tuple[str, str], list[str]] = {}
    for name, what in faults:
        roles.setdefault((re.sub(r"\.\d+\.", ".{layer}.", name), what), []).append(name)
    lines = [
        f"{names[0]}: {what}" if len(names) == 1 else f"{role}: {what} ({len(names)} blocks)"
        for (role, what), names in roles.items()
    ]
    return f"{wrong}:\n  " + shortened(lines, separator="\n  ")
