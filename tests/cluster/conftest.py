"""All tests here are marked `cluster` and have one testbed, which each of them finds as it was at first."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster_runs import MODEL, overrides
from runs import MODELS, RunFiles, Site, run_warm
from testbed import Testbed, TestbedError
from testbed.processes import kill, marked

MODELS["cluster"] = MODEL


@pytest.hookimpl(tryfirst=True)  # before `-m cluster` chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.cluster)


@pytest.fixture(scope="session")
def _testbed() -> Iterator[Testbed]:
    try:
        with Testbed() as testbed:
            yield testbed
    except TestbedError as error:
        pytest.fail(f"there is no testbed: {error}", pytrace=False)


@pytest.fixture
def testbed(_testbed: Testbed) -> Iterator[Testbed]:
    yield _testbed
    _testbed.restore()


@pytest.fixture(scope="session")
def undisturbed(site: Site) -> RunFiles:
    """The same schedule on as many ranks of this machine alone."""
    files = site.config("undisturbed", "cluster")
    on_one = [word for word in overrides() if "gloo_interface" not in word]
    assert run_warm(files, 3, *on_one) == (0, "")
    return files


@pytest.fixture
def marker() -> Iterator[str]:
    """A `NAME=value` for the environment of this test's processes. Those that still run after it are killed."""
    marker = f"TESTBED_MARKER={uuid.uuid4()}"
    yield marker
    kill(marked(marker))
