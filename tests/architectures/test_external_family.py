"""A family that the package does not know, added from outside, and what is said where that goes wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import transformers

from ligo_dist.architectures import architecture_names, get_architecture
from ligo_dist.runtime.errors import ArchitectureError
from small_models import library_model, small_shape
from tensor_parallel import tensor_parallel_faults

PHI = "phi_family:PHI"
SOURCE = Path(__file__).parents[1] / "phi_family.py"


def test_it_takes_less_than_forty_lines():
    assert "phi" not in architecture_names()
    assert len(SOURCE.read_text().splitlines()) < 40


@pytest.mark.parametrize("shape", [{}, {"layers": 3, "heads": 7, "key_value_heads": 1}])
def test_its_table_fits_the_library_model(shape: dict[str, int]):
    architecture, small = get_architecture(PHI), small_shape(PHI, **shape)
    model = library_model(PHI, small)
    architecture.check_model(small, {name: tuple(p.shape) for name, p in model.named_parameters()})
    assert architecture.shape_from(model.config.to_dict()) == small
    assert tensor_parallel_faults(architecture, small, transformers.PhiConfig.base_model_tp_plan) == []


def test_a_module_in_the_working_directory_is_found(tmp_path: Path):
    # A console script does not have the working directory on its path, as `python -c` with -P does not.
    (tmp_path / "mine.py").write_text(SOURCE.read_text())
    script = "from ligo_dist.architectures import get_architecture as get; print(get('mine:PHI').model_class)"
    command = [sys.executable, "-P", "-c", script]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("PhiForCausalLM\n", "")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (":PHI", "model family ':PHI': should be `package.module:NAME`"),
        ("phi_family:", "model family 'phi_family:': should be `package.module:NAME`"),
        (
            "no_such.module:PHI",
            "model family 'no_such.module:PHI': no_such.module cannot be imported: ModuleNotFoundError: No module"
            " named 'no_such'",
        ),
        ("phi_family:PHY", "model family 'phi_family:PHY': phi_family has no 'PHY'; did you mean 'PHI'?"),
        (
            "phi_family:_table",
            "model family 'phi_family:_table': _table is of type function, not an Architecture",
        ),
    ],
)
def test_what_is_no_family_is_named(name: str, said: str):
    with pytest.raises(ArchitectureError) as caught:
        get_architecture(name)
    assert str(caught.value) == said


def test_a_module_that_fails_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "failing_family.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ArchitectureError, match=r"failing_family cannot be imported: ZeroDivisionError: div"):
        get_architecture("failing_family:X")
