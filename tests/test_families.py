"""A whole schedule - train, learn, grow, train - of every family, and its export in plain transformers: of those in the
package, and of one that it does not know.

On two ranks one of each objective, and the one from outside; on one the rest, whose partitions and what is made of them
`growth/test_sharded_growth.py` holds against dense maths.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers

from ligo_dist.architectures import architecture_names, get_architecture
from ligo_dist.config import load_config
from ligo_dist.corpus import build_corpus
from runs import RunFiles, Site, has_finished, run_warm

pytestmark = pytest.mark.slow

FROM_OUTSIDE = "phi_family:PHI"
NAMES = [*architecture_names(), FROM_OUTSIDE]
TRAINED = [name for name in NAMES if get_architecture(name).objective != "features"]
ON_TWO_RANKS = ("llama", "bert", "vit", FROM_OUTSIDE)
IMAGES = [name for name in TRAINED if get_architecture(name).objective == "image_classification"]
SMALL = "{layers: 1, width: 24, heads: 3, ffn: 50}"
LARGE = "{layers: 3, width: 48, heads: 6, ffn: 81}"
WHOLE_BATCH = "defaults.train.micro_batch_size=8"


def overrides(family: str, site: Site) -> list[str]:
    grow = "grow: {method: lossless-dense, learn: {steps: 2}}"
    small, large = (
        f"{{name: small, size: {SMALL}, train: {{}}}}",
        f"{{name: large, size: {LARGE}, {grow}, train: {{}}}}",
    )
    stages = [f"stages=[{small}, {large}]", WHOLE_BATCH]
    if family not in IMAGES:
        return [*stages, f"model={{family: '{family}', max_positions: 32}}"]
    cache = site.directory / "cache"
    data = (
        f"{{source: digits, image_size: 8, channels: 1, labels: 10, random_shift: 1, cache_dir: '{cache}'}}"
    )
    return [*stages, f"model={{family: {family}, patch_size: 4}}", f"data={data}", "tokenizer={}"]


@pytest.fixture(scope="module", params=TRAINED)
def finished(request: pytest.FixtureRequest, site: Site) -> tuple[str, RunFiles]:
    family = request.param
    files = site.config(family.replace(":", "-"))
    own = overrides(family, site)
    build_corpus(load_config(files.config, own), show_progress=False)  # so that no rank shows a progress bar
    code, said = run_warm(files, 2 if family in ON_TWO_RANKS else 1, *own)
    assert code == 0, said
    # AutoTokenizer takes a class of Qwen2's own for a tokenizer that is none of them: the run warns of it.
    assert said == "" or (family == "qwen2" and "PreTrainedTokenizerFast" in said)
    return family, files


def test_an_operator_of_a_vision_model_is_learned_in_bf16(site: Site):
    files = site.config("vit-bf16")
    code, said = run_warm(files, 1, *overrides("vit", site), "precision=bf16")
    assert code == 0, said


def test_a_masked_model_whose_decoder_is_its_own(site: Site):
    """As most of the models that LiGO's code grew are configured."""
    files = site.config("bert-untied")
    code, said = run_warm(files, 1, *overrides("bert", site), "model.tie_embeddings=false")
    assert code == 0, said
    model = transformers.AutoModelForMaskedLM.from_pretrained(files.run_dir / "export" / "large")
    assert not model.config.tie_word_embeddings
    assert not torch.equal(model.cls.predictions.decoder.weight, model.get_input_embeddings().weight)
    assert model.cls.predictions.decoder.bias.any()


def test_every_phase_ran_and_the_start_kept_the_function(finished: tuple[str, RunFiles]):
    family, files = finished
    assert has_finished(files)
    numbers = files.numbers()
    assert {(stage, phase) for stage, phase, _, _ in numbers} == {
        ("small", "train"), ("large", "learn"), ("large", "grow"), ("large", "train"),
    }  # fmt: skip
    assert numbers["large", "learn", 5, "grow/preservation_error"] < 1e-5
    last = {name: value for (stage, _, step, name), value in numbers.items() if step == 12}
    assert last["evaluate/loss"] < numbers["large", "grow", 7, "grow/random_loss"]
    assert ("evaluate/accuracy" in last) == (family in IMAGES)


def test_the_export_is_what_plain_transformers_opens(finished: tuple[str, RunFiles]):
    family, files = finished
    directory: Path = files.run_dir / "export" / "large"
    architecture = get_architecture(family)
    model = getattr(transformers, architecture.model_class).from_pretrained(directory)
    assert model.config.num_hidden_layers == 3
    assert model.config.hidden_size == 48
    weights = dict(model.named_parameters())
    exported = files.weights("large")
    for spec in architecture.parameters(architecture.shape_from(model.config.to_dict())):
        assert torch.equal(weights[spec.name], exported[spec.name]), spec.name
    if family in IMAGES:
        processor = transformers.AutoImageProcessor.from_pretrained(directory)
        pixels = torch.zeros(2, 8, 8, 1, dtype=torch.uint8).numpy()
        inputs = processor(list(pixels), return_tensors="pt", input_data_format="channels_last")
        assert model(**inputs).logits.shape == (2, 10)
    else:
        opener = transformers.PreTrainedTokenizerFast if family == "qwen2" else transformers.AutoTokenizer
        tokenizer = opener.from_pretrained(directory)
        inputs = tokenizer("import os", return_tensors="pt")
        logits = model(input_ids=inputs["input_ids"]).logits
        assert logits.shape == (1, inputs["input_ids"].shape[1], model.config.vocab_size)


@pytest.mark.parametrize(
    ("layers", "grow"),
    [
        (0, "{method: progressive, learn: {steps: 2}}"),
        (1, "{method: progressive}"),
        (1, "{method: stack}"),
        (1, "{method: scratch}"),
        (1, "{method: bert2bert-aki, optimizer_state: grown, noise: 0.1}"),
    ],
    ids=["no layer, random ones, learned", "one layer, random ones", "one layer, stacked", "scratch", "AKI"],
)
def test_depth_from_almost_nothing_and_other_ways(site: Site, layers: int, grow: str):
    files = site.config(f"{layers}-" + "".join(filter(str.isalnum, grow)))
    stages = (
        f"[{{name: thin, size: {{layers: {layers}, width: 24, heads: 3}}, train: {{}}}},"
        f" {{name: large, size: {LARGE}, grow: {grow}, train: {{steps: 8}}}}]"
    )
    own = ["model={family: llama, max_positions: 32}", "defaults.grow={}", f"stages={stages}", WHOLE_BATCH]
    assert run_warm(files, 1, *own) == (0, "")
    numbers = files.numbers("evaluate/loss")
    losses = [value for key, value in sorted(numbers.items(), key=lambda item: item[0][2])]
    assert losses[-1] < losses[0]
    assert files.weights("large")["model.layers.2.mlp.down_proj.weight"].shape == (48, 81)
