"""`ligo-dist compare`, up to where the first run would start."""

from __future__ import annotations

from pathlib import Path

import pytest
from filelock import FileLock

from launcher import cli
from launcher.commands import compare as compare_command
from launcher.comparison.runs import derive_runs
from ligo_dist.architectures import get_architecture
from ligo_dist.config import load_config, stage_shapes
from ligo_dist.runtime.quantities import flops
from ligo_dist.schedule import training_step_flops


@pytest.fixture(autouse=True)
def _nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare_command, "run_comparison", lambda *_: pytest.fail("a run was started"))


def compare(file: Path, *words: str) -> int:
    return cli.main(["compare", str(file), *words])


def begun(file: Path, name: str, *overrides: str) -> None:
    """What a run of an earlier comparison leaves."""
    config = load_config(file, overrides)
    run = next(run for run in derive_runs(config, str(file)) if run.name == name)
    run.directory.mkdir(parents=True)
    run.file.write_text(run.text)


def test_a_dry_run_lists_the_runs_and_makes_no_file(config_file: Path, capsys) -> None:
    assert compare(config_file, "--dry-run", "--nproc", "2") == 0
    out, err = capsys.readouterr()
    assert err == ""
    config = load_config(config_file)
    shape = stage_shapes(config, 512)[1]
    step = training_step_flops(get_architecture("gpt2"), shape, 64, 8, checkpointed=False)
    lines = {
        line[: line.index(" seed ") + 7].strip(): line.split()
        for line in out.splitlines()
        if " seed " in line
    }
    assert list(lines) == [
        f"{method} seed {seed}" for seed in (0, 4) for method in ("source", "scratch", "stack", "ligo")
    ]
    train = flops(10 * step)
    assert lines["scratch seed 0"][3:] == [
        "-",
        "10",
        "-",
        "-",
        train,
        train,
        "100%",
        "runs/set/seed-0/scratch",
    ]
    assert lines["ligo seed 4"][3:5] == ["5", "10"]
    assert out.endswith("nothing was started\n")
    assert [path.name for path in Path().iterdir()] == ["set.yaml"]


def test_the_options_take_the_place_of_the_section(config_file: Path, capsys) -> None:
    words = ("--methods", "lossless+fixed, ligo", "--seeds", "1", "--baseline", "ligo")
    assert compare(config_file, "--dry-run", *words) == 0
    out = capsys.readouterr().out
    assert [line.split(" seed ")[0].strip() for line in out.splitlines() if " seed " in line] == [
        "source",
        "lossless+fixed",
        "ligo",
    ]
    assert "of ligo's" in out


@pytest.mark.parametrize(("text", "seeds"), [("3", [0, 1, 2]), ("0,3, 5", [0, 3, 5]), ("1", [0])])
def test_seeds(config_file: Path, text: str, seeds: list[int], capsys) -> None:
    assert compare(config_file, "--dry-run", "--methods", "scratch", "--seeds", text) == 0
    out = capsys.readouterr().out
    assert [seed for seed in range(9) if f"scratch seed {seed}" in out] == seeds


@pytest.mark.parametrize(
    ("text", "said"), [("0", "'0' should be at least 1"), ("a", "'a' should be a number of seeds, or a list"),
                       ("-1", "'-1' should be a number of seeds"), ("1,,2", "'1,,2' should be a number of seeds")]
)  # fmt: skip
def test_seeds_that_are_none(config_file: Path, text: str, said: str, capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        compare(config_file, "--seeds", text)
    assert caught.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--methods", "scratch,stak"], "compare.methods[1]: 'stak' is no method; did you mean 'stack'?"),
        (["--methods", "scratch,stack+"], "compare.methods[1]: 'stack+': after the method comes +learn or +fixed"),
        (["--methods", "scratch+learn"], "'scratch+learn': 'scratch' has no operator; 'scratch' alone would be right"),
        (["--methods", "scratch,ligo,ligo"], "compare.methods: ligo is there more than once"),
        (["--methods", ""], "compare.methods[0]: '' should be text that is not empty"),
        (["compare.variants={stack: {'stages[1].train.steps': 1}}"], "variants.stack: 'stack' has a meaning already"),
        (["compare.variants={a/b: {'stages[1].train.steps': 1}}"], "compare.variants.a/b: names a directory: letters,"),
        (["compare.variants={a: {}}"], "compare.variants.a: changes nothing; such as {'stages[1].grow.tied': false}"),
        (["compare.variants={a: {seed: 1}}"], "compare.variants.a.seed: stages alone may differ; such as"),
        (["compare.variants={late: {'stages[1].train.steps': 1}}", "--methods", "scratch,lat"],
         "compare.methods[1]: 'lat' is no method; did you mean 'late'?"),
        (["--seeds", "2,1,2"], "compare.seeds: 2 is there more than once"),
        (["--methods", "stack,ligo"],
         "compare.baseline: 'scratch' is none of the methods that are compared; there are: stack, ligo"),
        (["compare.seed=3"], "compare.seed: unknown key; did you mean 'seeds'?"),
        (["stages[1].size.heads=5"], "stages[1].size.heads: 5 heads do not divide the width 48"),
        (["--nproc", "9"], "stages[0].train.batch_size: 8 is less than one sample for each of 9 ranks"),
        (["--nproc", "7", "stages[1].grow.learn.steps=0"],
         "ligo seed 0: stages[1].grow.learn.batch_size: 6 is less than one sample for each of 7 ranks"),
    ],
)  # fmt: skip
def test_mistakes_come_before_anything_starts(config_file: Path, words, said, capsys) -> None:
    assert compare(config_file, *words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert [path.name for path in Path().iterdir()] == ["set.yaml"]


def test_another_comparison_in_the_directory(config_file: Path, capsys) -> None:
    begun(config_file, "stack seed 4", "stages[1].train.steps=11", "tracking.log_every_steps=3")
    assert compare(config_file) == 2
    assert capsys.readouterr().err == (
        "ligo-dist: set.yaml: 1 fault\n"
        "  runs/set/seed-4/stack: was made with another configuration; compare with the old values, or in another"
        " run_dir\n    stages[1].train.steps: 11 -> 10\n"
    )


def test_more_methods_and_seeds_are_no_other_comparison(config_file: Path, capsys) -> None:
    begun(config_file, "stack seed 0", "compare.seeds=[0]")
    assert compare(config_file, "--dry-run", "--methods", "scratch,stack,lossless", "--seeds", "5") == 0
    Path("runs/set/seed-0/stack/summary.json").touch()
    assert compare(config_file, "--dry-run") == 0
    assert "runs/set/seed-0/stack (has finished)" in capsys.readouterr().out


def test_a_configuration_that_can_no_longer_be_read(config_file: Path, capsys) -> None:
    begun(config_file, "stack seed 0")
    Path("runs/set/seed-0/stack.yaml").write_text("seed: [")
    assert compare(config_file) == 2
    assert "runs/set/seed-0/stack.yaml: is not YAML" in capsys.readouterr().err


def test_the_directory_of_a_run(config_file: Path, capsys) -> None:
    Path("runs/set").mkdir(parents=True)
    Path("runs/set/metrics.jsonl").touch()
    assert compare(config_file) == 2
    assert (
        "run_dir: 'runs/set' holds a run; a comparison needs a directory of its own"
        in capsys.readouterr().err
    )


def test_a_directory_that_is_in_use(config_file: Path, capsys) -> None:
    Path("runs/set").mkdir(parents=True)
    with FileLock("runs/set/.lock"):
        assert compare(config_file) == 2
    assert "run_dir: another comparison is using 'runs/set'; wait for it" in capsys.readouterr().err


def test_a_directory_that_cannot_be_made(config_file: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert compare(config_file) == 2
    assert "run_dir: 'runs/set' cannot be written: Permission denied" in capsys.readouterr().err


def test_a_secret_is_not_written_to_a_file(config_file: Path, capsys) -> None:
    config_file.write_text(config_file.read_text() + "tracking: {uri: 'http://me:hunter22@there'}\n")
    assert compare(config_file) == 2
    err = capsys.readouterr().err
    assert (
        "stack seed 0: its configuration, which is written to a file, holds a password or token; give it in"
        in err
    )
    assert "hunter22" not in err
