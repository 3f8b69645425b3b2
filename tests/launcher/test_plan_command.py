"""`ligo-dist plan`: what it prints, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from launcher import cli
from launcher.tables import print_forecast
from ligo_dist.architectures import get_architecture
from ligo_dist.config import load_config, stage_shapes
from ligo_dist.planning import Forecast, get_gpu
from ligo_dist.schedule import Plan

ROOT = Path(__file__).parents[2]
QUICKSTART, LARGE = (str(ROOT / "configs" / name) for name in ("quickstart.yaml", "llama_70b.yaml"))
PAPER = sorted(str(path) for path in (ROOT / "configs" / "paper").iterdir())


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def plan(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    assert cli.main(["plan", *arguments]) == code
    out, err = capsys.readouterr()
    assert err == ""
    return out


def test_every_stage_and_phase_has_its_line(capsys, tmp_path):
    out = plan(capsys, QUICKSTART)
    assert f"{QUICKSTART}: 1 rank of h100 (989.4 TFLOPS, 80 GB, 450 GB/s), bf16, HFU 40%" in out
    lines = [line.split()[:2] for line in out.splitlines()]
    for stage, phases in (
        ("small", ["train"]),
        *((s, ["learn", "grow", "train"]) for s in ("medium", "large")),
    ):
        assert [words[1] for words in lines if words[:1] == [stage]] == 3 * phases  # in each of three tables
    for words in (
        "parameters",
        "gradients",
        "optimizer",
        "activations",
        "all-gather",
        "checkpoint",
        "4,723,040",
    ):
        assert words in out
    assert "fits on one rank, in 72.0 GB of the 80.0 GB of h100" in out
    assert list(tmp_path.iterdir()) == []


def test_muon_takes_less_memory_and_sends_its_matrices(capsys):
    adamw = plan(capsys, QUICKSTART, "--gpus", "4")
    muon = plan(capsys, QUICKSTART, "--gpus", "4", "defaults.train.optimizer.kind=muon")
    assert "all-to-all" not in adamw
    assert "all-reduce  all-to-all  sent by a rank" in muon
    assert "of an all-to-all an Nth of that" in " ".join(muon.split())


def test_several_configurations_and_overrides_anywhere(capsys):
    out = plan(capsys, PAPER[0], "precision=fp32", QUICKSTART, "--gpus", "8", "--gpu", "a100-40", "seed=7")
    headings = [line for line in out.splitlines() if "ranks of" in line]
    assert [line.split(":")[0] for line in headings] == [PAPER[0], QUICKSTART]
    assert all(
        line.endswith("8 ranks of a100-40 (19.5 TFLOPS, 40 GB, 300 GB/s), fp32, HFU 40%") for line in headings
    )


def test_ranks_of_the_cluster_are_the_default(capsys):
    slurm = "cluster={slurm: {nodes: 4, gpus_per_node: 8}}"
    assert ": 32 ranks of h100" in plan(capsys, QUICKSTART, slurm)
    assert ": 2 ranks of h100" in plan(capsys, QUICKSTART, slurm, "--gpus", "2")


def test_the_utilisation_says_which_it_is(capsys):
    for option, said in ((("--hfu", "0.3"), "HFU 30%"), (("--mfu", "0.3"), "MFU 30%")):
        assert f"bf16, {said}" in plan(capsys, QUICKSTART, *option)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--gpu", "h1000"], "--gpu: 'h1000' is not known; did you mean 'h100'?"),
        (["--gpu", "1e15,80"], "--gpu: '1e15,80' should be three numbers above 0"),
        (["stages[0].size.heads=5"], "stages[0].size.heads: 5 heads do not divide the width 128"),
        (["nowhere.yaml"], "nowhere.yaml: no such file (from "),
        (["--gpus", "33"], "stages[0].train.batch_size: 32 is less than one sample for each of 33 ranks"),
    ],
)
def test_what_is_wrong_is_said(arguments, said, capsys):
    assert cli.main(["plan", QUICKSTART, *arguments]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--gpus", "0"], "'0' should be a whole number, at least 1"),
        (["--mfu", "40"], "'40' should be a number above 0 and below 1"),
    ],
)
def test_numbers_that_are_none(arguments, said, capsys):
    with pytest.raises(SystemExit) as left:
        cli.main(["plan", QUICKSTART, *arguments])
    assert left.value.code == 2
    assert said in capsys.readouterr().err


def test_only_overrides_are_no_configuration(capsys):
    assert cli.main(["plan", "seed=3"]) == 2
    assert "plan: no configuration is named; configs/quickstart.yaml would be one" in capsys.readouterr().err


def test_70_billion_parameters_take_seconds_and_no_torch():
    script = (
        "import sys, time; from launcher import cli; began = time.perf_counter()\n"
        f"assert cli.main(['plan', {LARGE!r}, '--gpus', '1024']) == 0\n"
        "assert time.process_time() < 30\n"
        "sys.exit(' '.join({'torch', 'transformers', 'deepspeed', 'datasets', 'mlflow'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    for count in ("1,244,760,064", "7,241,732,096", "68,976,648,192", "1,024 ranks of h100"):
        assert count in done.stdout


def test_the_published_sizes_of_the_large_configuration():
    config = load_config(LARGE)
    llama = get_architecture("llama")
    small, medium, large = stage_shapes(config, 32000)
    published = {"Mistral 7B": (medium, 7_241_732_096), "Llama-2 70B": (large, 68_976_648_192)}
    for shape, parameters in published.values():
        assert sum(spec.numel for spec in llama.parameters(shape)) == parameters
    # Sheared-LLaMA-1.3B with 16 key/value heads has 1,345,423,360; eight fewer in two matrices of 24 layers.
    fewer = 24 * 2 * 8 * 128 * 2048
    assert sum(spec.numel for spec in llama.parameters(small)) == 1_345_423_360 - fewer


def test_what_offloads_is_counted_all_the_same(capsys):
    keys = "deepspeed={zero_optimization: {offload_optimizer: {device: cpu}}}"
    said = "what deepspeed.zero_optimization offloads is counted as if it stayed on the accelerator"
    assert said in plan(capsys, QUICKSTART, keys)
    assert said not in plan(capsys, QUICKSTART)


def test_what_fits_nowhere(capsys):
    out = plan(capsys, QUICKSTART, "--gpu", "1e12,0.01,1", code=2)
    assert "does not fit in 9.00 MB of the 10.0 MB of 1e12,0.01,1, on no number of ranks up to" in out
    assert " none" in out


@pytest.mark.parametrize(
    ("gpus", "code", "said"),
    [
        ((), 0, "does not fit on one rank, in 207 GB of the 230 GB of 1e15,230,50: it takes"),
        (("--gpus", "2"), 2, "does not fit on 2 ranks, in 207 GB"),
        (("--gpus", "64"), 0, "fits on 64 ranks, in 207 GB of the 230 GB of 1e15,230,50; on "),
    ],
)
def test_whether_it_fits_on_the_ranks_that_are_asked_for(gpus, code, said, capsys):
    assert said in plan(capsys, LARGE, "--gpu", "1e15,230,50", *gpus, code=code)


def test_when_growing_pays_is_told(capsys):
    assert "so growing pays if the same loss took scratch more than" in plan(capsys, QUICKSTART)


def test_a_table_is_never_cut_short(capsys):
    quickstart = Plan.of(load_config(QUICKSTART), 2048, 2)
    print_forecast("a" * 300, Forecast(quickstart, get_gpu("h100"), 0.4))
    assert "…" not in capsys.readouterr().out


def test_the_example_of_the_documentation_is_what_is_printed(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    page = (ROOT / "docs" / "internals" / "accounting.md").read_text().partition("## A plan, line by line")[2]
    command, shown = page.split("```")[:2]
    *_, words = (line for line in command.splitlines() if "$ ligo-dist plan" in line)
    printed = [line.rstrip() for line in plan(capsys, *words.split()[3:]).splitlines()]
    assert [line for line in shown.splitlines() if line] == [line for line in printed if line]
