"""Mixtures of sources: what is wrong with one, what each source comes to by itself, and what may change on resume."""

from __future__ import annotations

import pytest

from example import assert_told, example, faults_of
from ligo_dist.config import changes, source_configs, stage_weights
from ligo_dist.schedule import Plan

_MIXTURE = "{web: {source: text, files: [web/*.txt], weight: 3}, code: {source: stdlib}}"
_DATA = f"data={{sequence_length: 32, mixture: {_MIXTURE}}}"


def test_each_source_is_a_configuration_of_its_own():
    config = example(_DATA, "data.mixture.code.weight=0.5", "data.mixture.web.document=line")
    web, code = source_configs(config).values()
    assert (web.data.source, web.data.files, web.data.document) == ("text", ["web/*.txt"], "line")
    assert (code.data.source, code.data.files, code.data.sequence_length) == ("stdlib", [], 32)
    assert (
        web.data.mixture
        == source_configs(example(_DATA, "data.mixture.web.document=line"))["web"].data.mixture
    ), "the tokenizer is trained on all, whatever their weights"
    given = example(_DATA, "tokenizer={file: my.model}")
    assert source_configs(given)["web"].data.mixture == {}
    assert source_configs(example()) == {"": example()}


def test_a_stage_may_have_weights_of_its_own():
    config = example(_DATA, "stages[1].data.weights={code: 9}")
    weights = [stage_weights(config.data, stage) for stage in config.stages]
    assert weights == [{"web": 3, "code": 1}, {"web": 3, "code": 9}]
    plan = Plan.of(config, 512, 1)
    small, (learn, train) = plan.stages[0].train, plan.stages[1].phases
    # 80 samples of 3 and 1, then 40 and 80 of 1 and 3: counted on through all phases.
    assert [phase.mixing and phase.mixing.before for phase in (small, learn, train)] == [
        (0, 0),
        (60, 20),
        (70, 50),
    ]
    assert plan.samples_by_source == {"web": 90, "code": 110}
    assert sum(plan.samples_by_source.values()) == plan.samples
    assert Plan.of(example(), 512, 1).samples_by_source == {"": plan.samples}


@pytest.mark.parametrize(
    ("override", "path", "words"),
    [
        (
            "data.mixture.web.files=[]",
            "data.mixture.web.files",
            "is empty; the source 'text' needs paths or globs",
        ),
        (
            "data.mixture.web={source: megatron, files: [a.bin]}",
            "tokenizer.huggingface",
            "is missing; tokens that exist do not say which tokenizer made them",
        ),
        (
            "data.mixture.web.source=null",
            "data.mixture.web.source",
            "is missing; what is trained on has no default",
        ),
        (
            "data.mixture.code.source=digits",
            "data.mixture.code.source",
            "'digits' is no source of text for gpt2",
        ),
        (
            "data.mixture.code.split=test",
            "data.mixture.code.split",
            "no meaning for the source 'stdlib', only for hub",
        ),
        ("data.mixture.code.wieght=2", "data.mixture.code.wieght", "unknown key; did you mean 'weight'?"),
        ("data.mixture.code.weight=-1", "data.mixture.code.weight", "should be at least 0"),
        (
            "data.mixture.code.weight=1e-6",
            "data.mixture.code.weight",
            "0, or at least 4.58e-05, would be right",
        ),
        ("data.mixture={code: {source: stdlib, weight: 0}}", "data.mixture", "all weights are 0"),
        ("data.mixture={a b: {source: stdlib}}", "data.mixture.a b", "up to 64 letters, digits, '_' or '-'"),
        ("data.source=stdlib", "data.source", "'stdlib' has no meaning beside data.mixture"),
        (
            "data.sequence_length=100",
            "data.sequence_length",
            "100 is more than the 64 of model.max_positions",
        ),
        (
            "stages[0].data.weights={wob: 1}",
            "stages[0].data.weights.wob",
            "is no source of data.mixture; did you mean",
        ),
        ("stages[1].data.weights={web: 0, code: 0}", "stages[1].data.weights", "all weights are 0"),
        (
            "data={source: stdlib, sequence_length: 9}",
            "stages[0].data.weights",
            "no meaning without data.mixture",
        ),
    ],
)
def test_says_what_is_wrong(override: str, path: str, words: str):
    weights = ["stages[0].data.weights={web: 2}"] if path == "stages[0].data.weights" else []
    assert_told(faults_of(_DATA, *weights, override), path, words)


def _recorded(fingerprint: str, *overrides: str) -> dict:
    return {**example(_DATA, *overrides).resolved(), "corpus_fingerprint": fingerprint}


def test_a_run_goes_on_with_the_same_weights_wherever_its_sources_lie():
    old = _recorded("a")
    assert changes(old, _recorded("a", "data.mixture.web.files=[elsewhere/*.txt]")) == []
    assert changes(old, _recorded("a", "data.mixture.web.weight=2")) == [
        "data.mixture.web.weight: 3.0 -> 2.0"
    ]
    (said,) = changes(old, _recorded("a", "stages[1].data.weights={code: 2}"))
    assert said.startswith("stages[1].data")
    before = example().resolved()
    del before["data"]["mixture"], before["stages"][0]["data"], before["stages"][1]["data"]
    assert changes(before, example().resolved()) == [], "a run from before there were mixtures"
