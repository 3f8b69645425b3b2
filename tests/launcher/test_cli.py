from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from launcher import cli
from launcher.commands import run as run_command
from ligo_dist import __version__
from ligo_dist.architectures import ModelShape, architecture_names, get_architecture
from ligo_dist.config import load_config
from ligo_dist.growth import DEPTHS, METHODS, WIDTHS
from ligo_dist.schedule import (
    BatchSplit,
    Plan,
    growing_flops,
    learning_step_flops,
    parameter_count,
    training_step_flops,
)

ROOT = Path(__file__).parents[2]
QUICKSTART = str(ROOT / "configs" / "quickstart.yaml")


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")


def dry_run(*arguments: str) -> int:
    return cli.main(["run", QUICKSTART, "--dry-run", *arguments])


def test_a_dry_run_shows_stages_and_command_and_makes_no_file(capsys, tmp_path):
    assert dry_run("--nproc", "2", "seed=3", "--master-port", "1234") == 0
    out, err = capsys.readouterr()
    assert err == ""
    for stage in ("small", "medium", "large"):
        assert stage in out
    for words in (
        "layers",
        "heads",
        "parameters",
        "tokens",
        "FLOPs",
        "4,723,040",
        "6 (6)",
        "nothing was started",
    ):
        assert words in out
    assert (
        f"--num_gpus 2 --master_port 1234 --no_local_rank --quiet --module ligo_dist {QUICKSTART} seed=3"
        in out
    )
    assert list(tmp_path.iterdir()) == []


def test_the_plan_has_the_numbers_of_the_accounting():
    config = load_config(QUICKSTART)
    gpt2 = get_architecture("gpt2")
    small, medium, _ = Plan.of(config, 2048, 2).stages
    train, learn = config.stages[1].train, config.stages[1].grow.learn
    assert medium.parameters == parameter_count(gpt2, medium.shape)
    step = training_step_flops(gpt2, medium.shape, 128, train.batch_size, checkpointed=False)
    assert medium.cost.train.flops == train.steps * step
    assert medium.cost.train.tokens == train.steps * train.batch_size * 128
    layout, split = medium.grow.layout, BatchSplit(train.batch_size, train.micro_batch_size, 2)
    assert (layout.source, layout.target) == (small.shape, medium.shape)
    step = learning_step_flops(layout, 128, split, hardware=True)
    assert medium.cost.learn.hardware_flops == learn.steps * step
    assert medium.cost.grow.flops == growing_flops(layout)
    assert (
        medium.cost.total.flops == medium.cost.learn.flops + medium.cost.grow.flops + medium.cost.train.flops
    )
    assert (small.cost.learn, small.cost.grow, small.grow) == (None, None, None)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--nproc", "33"],
            "stages[0].train.batch_size: 32 is less than one sample for each of 33 ranks",
        ),
        (["stages[0].size.heads=5"], "stages[0].size.heads: 5 heads do not divide the width 128; 4 would"),
        (["tokenizer.file=no.model"], "tokenizer.file: 'no.model' cannot be read: No such file or directory"),
        (["data.source=text", "data.files=[no/*.txt]"], "data.files: no file matches 'no/*.txt'"),
        (["run_dir=file/run"], "run_dir: 'file/run' cannot be a directory: "),
        (["tracking.uri=redis://there"], "tracking.uri: 'redis://there' has the unknown scheme 'redis'"),
        (["tracking.uri=sqlite:///file/m.db"], "/file' cannot be a directory: "),
        (["tracking.uri=sqlite:///."], "tracking.uri: the database "),
        (["tracking.uri=http://host:5000/#/experiments/1"], "its own address is http://host:5000"),
        (["run_dir=runs/what?/x"], "run_dir: the MLflow database would be "),
        (["run_dir=runs/a\nb"], "run_dir: 'runs/a\\nb' has a sign in it that cannot be shown"),
        (["data.cache_dir=file"], "data.cache_dir: 'file' cannot be a directory: "),
        (
            ["model.huggingface.resid_pdropp=0.1"],
            "model.huggingface.resid_pdropp: unknown key of GPT2Config; did you mean 'resid_pdrop'?",
        ),
    ],
)
def test_faults_come_before_any_process(arguments, said, capsys, monkeypatch):
    monkeypatch.setattr(run_command.Supervisor, "run", lambda _: pytest.fail("a run was started"))
    Path("file").write_text("precious")
    assert cli.main(["run", QUICKSTART, *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"ligo-dist: {QUICKSTART}: ")
    assert said in err
    assert Path("file").read_text() == "precious"


@pytest.mark.parametrize("command", [["run", "--dry-run"], ["plan"]], ids=["dry run", "plan"])
def test_deepspeed_is_asked_about_its_own_keys(command, capsys):
    assert cli.main([*command, QUICKSTART, "deepspeed.zero_optimization.reduce_bucket_size=none"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "deepspeed.zero_optimization.reduce_bucket_size: 'none': DeepSpeed refuses it: " in err


def test_faults_of_the_machine_come_together(capsys):
    assert dry_run("--nproc", "33", "tokenizer.file=no.model", "data={source: text, files: [no.txt]}") == 2
    err = capsys.readouterr().err
    assert ": 5 faults" in err


GONE = {
    "texts": ["data={source: text, files: [gone/*.txt]}"],
    "a tokenizer": ["tokenizer={huggingface: ./gone}"],
    "a tokenizer of sentencepiece": ["tokenizer={file: gone.model}"],
}


@pytest.mark.parametrize("gone", GONE)
def test_what_was_prepared_stands_for_what_has_gone(gone, capsys, tmp_path):
    from ligo_dist.corpus import remember

    assert dry_run(*GONE[gone]) == 2
    prepared = tmp_path / "data" / "cache" / "prepared"
    prepared.mkdir(parents=True)
    (prepared / "index.json").write_text('{"tokenizer": {"vocab_size": 2048}}')
    remember(load_config(QUICKSTART, GONE[gone]), prepared)
    assert dry_run(*GONE[gone]) == 0
    assert "4,723,040" in capsys.readouterr().out
    assert dry_run(*GONE[gone], "data.validation_fraction=0.3") == 2


def test_a_tokenizer_of_another_vocabulary(capsys, tmp_path):
    from ligo_dist.corpus import train_tokenizer

    documents = [path.read_bytes() for path in sorted((ROOT / "ligo_dist").rglob("*.py"))]
    (tmp_path / "own.model").write_bytes(train_tokenizer(documents, 600, "bpe"))
    assert dry_run("tokenizer.file=own.model") == 2
    assert "tokenizer.vocab_size: 2048, but 'own.model' has 600 pieces" in capsys.readouterr().err
    assert dry_run("tokenizer.file=own.model", "tokenizer.vocab_size=null") == 0
    stages = Plan.of(load_config(QUICKSTART), 600, 1).stages
    assert f"{stages[0].parameters:,}" in capsys.readouterr().out


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_run_directory_that_may_not_be_written(capsys, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    assert dry_run("run_dir=locked/run") == 2
    assert "run_dir: 'locked/run' cannot be written: no permission to write in" in capsys.readouterr().err


def test_a_run_directory_that_cannot_be_made(capsys, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert cli.main(["run", QUICKSTART, "--no-preflight"]) == 2
    assert (
        "ligo-dist: run_dir: 'runs/quickstart' cannot be made: Permission denied" in capsys.readouterr().err
    )


def test_more_ranks_than_accelerators(capsys, monkeypatch):
    monkeypatch.setattr(run_command, "count_accelerators", lambda: 1)
    assert dry_run("--nproc", "2") == 2
    assert "--nproc: 2 ranks want an accelerator each, and 1 can be seen" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "gpus", "said"),
    [
        (["avx512_bf16"], [], "bf16, which is native here"),
        (["avx2"], [], "fp32, as bf16 is not native here"),
        ([], [9.0], "bf16, which is native here"),
        (["avx512_bf16"], [7.5], "fp32, as bf16 is not native here"),
    ],
)
def test_a_dry_run_says_what_auto_comes_to(capsys, monkeypatch, flags, gpus, said):
    monkeypatch.setattr(run_command, "processor_flags", lambda: flags)
    monkeypatch.setattr(run_command, "capabilities", lambda: gpus)
    monkeypatch.setattr(run_command, "count_accelerators", lambda: len(gpus))
    assert dry_run() == 0
    assert f"\nprecision: {said}\n" in capsys.readouterr().out


def test_a_dry_run_says_nothing_of_a_precision_that_is_given_and_what_hosts_decide(capsys, tmp_path):
    assert dry_run("precision=fp32") == 0
    assert "precision:" not in capsys.readouterr().out
    (tmp_path / "hosts").write_text("node1 slots=1\n")
    assert dry_run("--hostfile", "hosts") == 0
    assert "\nprecision: bf16 if it is native to every host, else fp32\n" in capsys.readouterr().out


def test_an_attention_that_cannot_be_had_here(capsys):
    assert dry_run("model.attention=flex_attention") == 2
    assert "model.attention: 'flex_attention' trains on accelerators alone" in capsys.readouterr().err


def test_overrides_may_stand_anywhere(capsys):
    assert cli.main(["run", "--dry-run", QUICKSTART, "seed=1", "--nproc", "2", "run_dir=there"]) == 0
    assert f"{QUICKSTART} seed=1 run_dir=there" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", QUICKSTART, "--nproc", "0"], "'0' should be a whole number, at least 1"),
        (["run", QUICKSTART, "--master-port", "99999"], "'99999' should be a port, from 1 to 65535"),
        (["run", QUICKSTART, "--dryrun"], "unknown option: --dryrun"),
        (["run"], "the following arguments are required: CONFIG"),
        ([], "the following arguments are required: COMMAND"),
        (["methods", "ligo"], "too many arguments: ligo"),
        (["methods", "--long"], "unknown option: --long"),
        (["sync"], "the following arguments are required: RUN_DIR"),
    ],
)
def test_wrong_usage(arguments, said, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert said in capsys.readouterr().err


def test_version(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"ligo-dist {__version__}\n"


def listing(capsys, *arguments: str) -> list[list[str]]:
    """The rows that a listing prints, split at two spaces or more."""
    assert cli.main(arguments) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return [re.split(r" {2,}", line.strip()) for line in out.splitlines()]


def test_the_architectures_are_listed_with_their_axes(capsys):
    rows = listing(capsys, "architectures")
    assert {row[0] for row in rows} >= set(architecture_names())
    axes = ["query (heads), key (heads), value, attention, ffn", "vocab, head"]
    assert ["qwen3", "Qwen3ForCausalLM", "causal_lm", "hidden", *axes] in rows
    assert ["bert", "BertForMaskedLM", "masked_lm", "hidden, transform"] in [row[:4] for row in rows]


@pytest.mark.parametrize("name", architecture_names())
def test_one_architecture_is_shown_with_its_table(name, capsys):
    rows, architecture = listing(capsys, "architectures", name), get_architecture(name)
    shape = ModelShape(1, 1, 1, 1, 1, tied=architecture.tied_by_default)
    assert [f"{name}: {architecture.model_class}, {architecture.objective}"] in rows
    for role, line in architecture.table(shape).items():
        assert [role, line] in rows


def test_remarks_on_axes(capsys):
    rows = listing(capsys, "architectures", "llama")
    assert ["query", "each layer", "whole heads", "ordered by key/value group"] in rows
    assert ["attention", "each layer", "elements", "value, repeated per query head"] in rows
    assert ["vocab", "never grows", "-"] in rows
    assert ["hidden", "whole model", "elements", "acted on element by element"] in listing(
        capsys, "architectures", "bert"
    )


def test_an_architecture_from_elsewhere_is_shown(capsys):
    assert ["phi: PhiForCausalLM, causal_lm"] in listing(capsys, "architectures", "phi_family:PHI")


def test_an_architecture_that_is_not_there(capsys):
    assert cli.main(["architectures", "berd"]) == 2
    assert "no model family 'berd'" in capsys.readouterr().err


def test_the_methods_are_listed_with_what_they_keep(capsys):
    rows = listing(capsys, "methods")
    for name, method in METHODS.items():
        words = [name, method.depth or "-", method.width or "-", method.description]
        assert [*words, method.preserves, method.source] in rows
    for name, entry in {**DEPTHS, **WIDTHS}.items():
        assert [name, entry.description, entry.preserves, entry.source] in rows


def test_the_launcher_imports_no_torch():
    commands = [
        ["run", QUICKSTART, "--dry-run", "model.huggingface.resid_pdrop=0.1"],
        ["architectures"],
        ["architectures", "qwen3"],
        ["methods"],
    ]
    code = (
        "import sys; from launcher import cli;"
        f"assert [cli.main(words) for words in {commands!r}] == [0, 0, 0, 0];"
        "heavy = {'torch', 'transformers', 'deepspeed', 'datasets', 'mlflow'} & set(sys.modules);"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
