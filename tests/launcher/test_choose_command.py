"""`ligo-dist plan --fit`, `--choose`, `--pilot`: from runs to a law, from a law to a schedule."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher import cli
from launcher.commands.choose import read_laws
from ligo_dist.config import load_config, parse_yaml
from ligo_dist.planning import Carry, Law, tokens_count
from ligo_dist.schedule import Plan
from recorded_runs import Leg, Recorder

LAW = Law(e=1.0, a=8.0, alpha=0.1, b=40.0, beta=0.3)
CONFIG = """
run_dir: runs/test
model: {family: gpt2, max_positions: 64}
stages:
  - name: target
    size: {layers: 16, width: 32, heads: 2}
    train: {steps: 1000, batch_size: 64, micro_batch_size: 8, schedule: {kind: constant, warmup_steps: 50}}
data: {source: stdlib, sequence_length: 64}
tokenizer: {vocab_size: 512}
tracking: {mlflow: false}
"""
WSD = {"schedule": {"kind": "wsd"}}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text(CONFIG)


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.main(["plan", *arguments]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.main(["plan", *arguments]) == 2
    return capsys.readouterr().err


def recorded(directory: str, *legs: Leg, grow: dict[str, str] | None = None, train: dict = WSD) -> str:
    """A run's directory; a leg's tokens are twice its FLOPs, its model has 1,000 parameters for each letter."""
    stages = [
        {"name": leg.name, "train": train} | ({"grow": grow} if i and grow else {})
        for i, leg in enumerate(legs)
    ]
    return Recorder(Path(directory), parameters={"stages": stages}).record(*legs)


def runs_of_a_law() -> list[str]:
    runs = []
    for letters in (1, 2, 4):
        for flops in (1_000, 4_000, 16_000):
            loss = LAW.loss(1_000 * letters, 2 * flops)
            runs.append(
                recorded(
                    f"runs/{letters}-{flops}", Leg("x" * letters, [(flops / 2, loss + 1), (flops, loss)])
                )
            )
    for flops in (2_000, 8_000):
        loss = tokens_count(LAW, [(1_000, 2 * flops), (4_000, 2 * flops)], Carry(tokens=0.5))
        legs = Leg("x", [(flops, 5.0)]), Leg("xxxx", [(0, 5.0), (flops, loss)], source_loss=5.0)
        runs.append(recorded(f"runs/grown-{flops}", *legs, grow={"method": "stack"}))
    return runs


def test_a_law_is_fitted_to_runs(capsys: pytest.CaptureFixture[str]):
    constant = recorded("runs/constant", Leg("x", [(1, 9.0)]), train={"schedule": {"kind": "constant"}})
    legs = Leg("x", [(1, 9.0)]), Leg("xx", [(0, 9.0), (1, 9.0)], source_loss=9.0)
    by_halves = recorded("runs/halves", *legs, grow={"method": "stack", "depth": "interlace"})
    out = said(capsys, "--fit", *runs_of_a_law(), constant, by_halves)
    assert f"{constant}: left out: its learning rate does not fall at the end" in out
    assert f"{by_halves}: left out: it does not grow by one named method: stack interlace" in out
    assert "of 11 runs" in out
    laws = read_laws("law.yaml")
    assert laws.best.loss(2_000, 100_000) == pytest.approx(LAW.loss(2_000, 100_000), rel=1e-3)
    assert laws.ways["stack"].tokens == pytest.approx(0.5, abs=0.02)
    assert len(laws.draws) == 50
    assert "stack: 0.50 of the source's tokens count (which" in out
    assert "law.yaml: is there already" in refused(capsys, "--fit", constant, *runs_of_a_law()[:3])


@pytest.mark.parametrize(("wanted", "value"), [("tokens", "2e7"), ("flops", "1e13"), ("loss", "8.5")])
def test_a_schedule_is_chosen_and_written(wanted: str, value: str, capsys: pytest.CaptureFixture[str]):
    out = said(
        capsys, "--choose", "config.yaml", f"--{wanted}", value, "--law", "hoffmann", "--output", "best.yaml"
    )
    assert "Hoffmann et al. 2022, arXiv 2203.15556" in out
    assert "what growing carries over is not known to it" in out
    assert "G_stack's rule" in out
    config = load_config("best.yaml")
    last = config.stages[-1]
    assert (last.name, last.size.layers) == ("target", 16)
    assert (last.train.schedule.kind, last.train.schedule.final_ratio) == ("wsd", 0)
    assert last.grow.method == "damped"
    assert all(stage.train.schedule.kind == "constant" for stage in config.stages[:-1])
    assert config.stages[0].train.schedule.warmup_steps == 50
    steps = sum(stage.train.steps for stage in config.stages)
    if wanted == "tokens":
        assert steps == round(2e7 / 4096)
    if wanted == "flops":
        assert Plan.of(config, 512, 1).cost.flops == pytest.approx(1e13, rel=0.01)
    assert "best.yaml: is there already" in refused(
        capsys, "--choose", "config.yaml", f"--{wanted}", value, "--output", "best.yaml"
    )


def test_a_law_of_ones_own(capsys: pytest.CaptureFixture[str]):
    said(capsys, "--fit", *runs_of_a_law())
    out = said(capsys, "--choose", "config.yaml", "--tokens", "2e7", "--law", "law.yaml")
    assert " stack " in out
    assert "damped" not in out
    assert load_config("config-grown.yaml").stages[-1].grow.method == "stack"
    one_size = runs_of_a_law()[:3]
    said(capsys, "--fit", *one_size, "--output", "one.yaml")
    assert "is fitted to one size" in refused(
        capsys, "--choose", "config.yaml", "--loss", "3", "--law", "one.yaml"
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--choose", "config.yaml"), "plan --choose: takes --tokens, --flops or --loss"),
        (("--pilot", "config.yaml", "--loss", "3"), "plan --pilot: takes --tokens"),
        (
            ("--choose", "config.yaml", "other.yaml", "--loss", "3"),
            "config.yaml, other.yaml: one configuration",
        ),
        (
            ("--choose", "config.yaml", "--loss", "3", "--law", "chinchila"),
            "neither hoffmann, besiroglu nor a file",
        ),
        (
            ("--choose", "config.yaml", "--loss", "3", "--law", "config.yaml"),
            "no law as `ligo-dist plan --fit` writes",
        ),
        (("--choose", "config.yaml", "--loss", "0.5"), "no schedule is expected to come to a loss of 0.5"),
        (("--fit", "config.yaml"), "config.yaml"),
        (("--pilot", "config.yaml", "--tokens", "1e5"), "of which 50 are warm-up; more --tokens"),
        (
            ("--pilot", "config.yaml", "stages[0].size.layers=4", "--tokens", "1e8"),
            "a target of 4 layers has no pilots of an eighth",
        ),
    ],
)
def test_mistakes(arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]):
    assert words in refused(capsys, *arguments)
    assert [path.name for path in Path().iterdir()] == ["config.yaml"]


def test_images_have_no_law(capsys: pytest.CaptureFixture[str]):
    images = (
        "model={family: deit, patch_size: 4}",
        "data={source: digits, image_size: 8, labels: 10}",
        "tokenizer={}",
    )
    assert "of language models alone, not of deit" in refused(
        capsys, "--choose", "config.yaml", *images, "--loss", "3"
    )


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_other_families(family: str, capsys: pytest.CaptureFixture[str]):
    """Damped copies are refused behind norms on the residual stream, and not chosen there."""
    said(capsys, "--choose", "config.yaml", f"model.family={family}", "--tokens", "2e7")
    method = load_config("config-grown.yaml").stages[-1].grow.method
    assert method == ("lossless-dense" if family == "bert" else "damped")


def test_pilots(capsys: pytest.CaptureFixture[str]):
    out = said(capsys, "--pilot", "config.yaml", "--tokens", "2e7")
    names = [
        line.split("/")[-1].removesuffix(".yaml") for line in out.splitlines() if "ligo-dist run" in line
    ]
    lengths = [round(2e7 / part / 4096) for part in (32, 16, 8)]
    assert names == [
        *(
            f"{kind}"
            for n in (2, 4, 8)
            for kind in (f"trunk-{n}", *(f"decay-{n}-{steps}" for steps in lengths))
        ),
        "grown-damped",
        "grown-stack",
    ]
    files = {name: parse_yaml(Path(f"pilots/{name}.yaml").read_text()) for name in names}
    for name, raw in files.items():
        start = raw["start_from"]
        if name.startswith("trunk"):
            assert start is None
            assert raw["checkpoints"]["keep_steps"]
        else:
            trunk = files[Path(start["run"]).name]
            assert start["step"] in trunk["checkpoints"]["keep_steps"]
            assert raw["stages"][0]["size"] == trunk["stages"][0]["size"]
    assert sum(stage["train"]["steps"] for stage in files["grown-stack"]["stages"]) == lengths[-1]
    assert out.splitlines()[-1].endswith("--choose config.yaml --law pilots/law.yaml --tokens 2e+07")
    assert "pilots: is there already" in refused(capsys, "--pilot", "config.yaml", "--tokens", "2e7")
