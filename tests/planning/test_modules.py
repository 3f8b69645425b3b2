"""The modules of a model in their order, against what the library's models do when they are called."""

from __future__ import annotations

import pytest

from ligo_dist.architectures import architecture_names, get_architecture
from ligo_dist.growth import parameters_by_module
from ligo_dist.planning import Module, all_weights, generated_modules, model_modules, partitioned
from ligo_dist.schedule import parameter_count
from pairs import pair_of
from small_models import library_model, outputs_of, random_inputs, small_shape


def called_modules(family: str, tied: bool | None) -> tuple[list[set[str]], list[Module]]:
    """Names of the parameters of each block, and of each module outside, of a library's model as it calls them; and our
    modules."""
    shape = small_shape(family, layers=3, tied=tied)
    model = library_model(family, shape)
    canonical = {id(parameter): name for name, parameter in model.named_parameters()}
    called: list[set[str]] = []
    blocks = list(model.get_submodule(get_architecture(family).layers_path).children())
    within = {id(part) for block in blocks for part in block.modules() if part is not block}

    def note(module, _inputs) -> None:
        names = {canonical[id(parameter)] for parameter in module.parameters(recurse=module in blocks)}
        if names:
            called.append(names)

    for module in model.modules():
        if id(module) not in within:
            module.register_forward_pre_hook(note)
    outputs_of(model, random_inputs(family, shape, 2))
    return called, model_modules(get_architecture(family), shape)


@pytest.mark.parametrize(
    ("family", "tied"),
    [("gpt2", True), ("gpt2", False), ("llama", True), ("llama", False), ("mistral", False), ("qwen2", True)],
)
def test_modules_come_in_the_order_of_the_library(family: str, tied: bool) -> None:
    called, ours = called_modules(family, tied)
    assert [{weight.name for weight in module.weights} for module in ours] == called


@pytest.mark.parametrize("family", architecture_names())
def test_all_families_have_their_modules(family: str) -> None:
    called, ours = called_modules(family, None)
    found = [{weight.name for weight in module.weights} for module in ours]
    assert all(any(names <= mine for mine in found) for names in called)
    shape = small_shape(family, layers=3)
    assert sum(w.numel for w in all_weights(ours)) == parameter_count(get_architecture(family), shape)
    blocks = [module.layer for module in ours if module.layer is not None]
    assert blocks == [0, 1, 2]


@pytest.mark.parametrize("family", architecture_names())
def test_generated_modules_are_those_of_the_learner(family: str) -> None:
    source, target = small_shape(family), small_shape(family, layers=5, heads=9)
    growth = pair_of(family, source, target, "lossless")
    ours = generated_modules(growth)
    theirs = parameters_by_module(growth.architecture, target, library_model(family, target))
    made = [
        {name for spec in parameters.values() for name in growth.matrices_of(spec)}
        | (set(growth.depth_names(layer)) if layer is not None else set())
        for parameters in theirs.values()
        for layer in [next(iter(parameters.values())).layer]
    ]
    if growth.architecture.objective == "masked_lm":
        # The head is one module with all that is in it; here its tied decoder comes once more, which gathers nothing.
        ours = ours[:-1]
    assert len(ours) == len(theirs)
    blocks = [{w.name for w in module.weights} for module in ours if module.layer is not None]
    shared = set.union(set(), *({w.name for w in m.weights} for m in ours if m.layer is None))
    needed = [names for names in made if any(name.startswith("layers.") for name in names)]
    assert [names - shared for names in blocks] == [names - shared for names in needed]
    assert sum(w.numel for w in all_weights(ours)) == sum(p.numel for p in growth.operator_parameters)


def test_partitions_count_their_padding() -> None:
    gpt2 = get_architecture("gpt2")
    shape = small_shape("gpt2", layers=1, heads=1, head_size=3, ffn=5, vocab=7, positions=2)
    weights = all_weights(model_modules(gpt2, shape))
    assert {w.name: w.numel for w in weights}["transformer.wte.weight"] == 21
    assert partitioned(weights, 1) == parameter_count(gpt2, shape)
    assert partitioned(weights, 1000) == len(weights)
    assert partitioned([w for w in weights if w.name == "transformer.wte.weight"], 4) == 6
