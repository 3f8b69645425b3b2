"""Who a process is, as different launchers say it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from ligo_dist.runtime.environment import (
    RankEnvironment,
    alone,
    export_rank_environment,
    local_size,
    rank_environment,
)
from ligo_dist.runtime.errors import LigoError

MEETING = {"MASTER_ADDR": "head", "MASTER_PORT": "1234"}
SLURM = {
    "SLURM_JOB_ID": "1023456",
    "SLURM_STEP_ID": "1",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_NTASKS": "16",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_NNODES": "4",
    "SLURM_STEP_NODELIST": "node[03-04]",
    "SLURM_JOB_NODELIST": "node[01-04]",
}
SBATCH_SCRIPT = {**SLURM, "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
del SBATCH_SCRIPT["SLURM_STEP_ID"]
OPEN_MPI = {
    "OMPI_COMM_WORLD_RANK": "5",
    "OMPI_COMM_WORLD_SIZE": "8",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "4",
}
MVAPICH = {name.replace("OMPI", "MV2"): value for name, value in OPEN_MPI.items()}


def without(environ: dict[str, str], *names: str) -> dict[str, str]:
    return {name: value for name, value in environ.items() if name not in names}


def announced(rank: int, world_size: int, **more: str) -> dict[str, str]:
    return {"RANK": str(rank), "WORLD_SIZE": str(world_size), **MEETING, **more}


ALONE = ({}, SBATCH_SCRIPT, {**SLURM, "SLURM_STEP_ID": "4294967290"})


def place(*values: int | str) -> RankEnvironment:
    return RankEnvironment(*values, is_announced=True)  # type: ignore[arg-type]


@pytest.mark.parametrize("environ", ALONE)
def test_what_nobody_has_started_as_a_rank_is_one_process(environ: dict[str, str]):
    assert rank_environment(environ) == RankEnvironment(0, 1, 0, 1, "127.0.0.1", 0, is_announced=False)


@pytest.mark.parametrize(
    ("environ", "found"),
    [
        # torchrun
        (
            announced(5, 8, LOCAL_RANK="1", LOCAL_WORLD_SIZE="4", GROUP_WORLD_SIZE="2"),
            place(5, 8, 1, 2, "head", 1234),
        ),
        # `deepspeed`
        (announced(5, 8, LOCAL_RANK="2", LOCAL_SIZE="3", CROSS_SIZE="3"), place(5, 8, 2, 3, "head", 1234)),
        (announced(5, 8), place(5, 8, 0, 1, "head", 1234)),
        (announced(5, 8, LOCAL_WORLD_SIZE="4"), place(5, 8, 1, 2, "head", 1234)),
        (announced(2, 3, LOCAL_WORLD_SIZE="2"), place(2, 3, 0, 2, "head", 1234)),
        ({"RANK": "0", "WORLD_SIZE": "1"}, place()),
        # MPI
        (OPEN_MPI | MEETING, place(5, 8, 1, 2, "head", 1234)),
        (MVAPICH | MEETING, place(5, 8, 1, 2, "head", 1234)),
        (OPEN_MPI | announced(3, 4, LOCAL_RANK="3", LOCAL_WORLD_SIZE="4"), place(3, 4, 3, 1, "head", 1234)),
        # Slurm
        (SLURM, place(5, 8, 1, 2, "node03", 20000 + 3457)),
        (
            without(SLURM, "SLURM_STEP_NUM_TASKS", "SLURM_STEP_NUM_NODES", "SLURM_STEP_NODELIST"),
            place(5, 16, 1, 4, "node01", 20000 + 3457),
        ),
        ({**SLURM, **MEETING}, place(5, 8, 1, 2, "head", 1234)),
        ({**SLURM, "WORLD_SIZE": "8"}, place(5, 8, 1, 2, "node03", 20000 + 3457)),
        ({**SLURM, "SLURM_STEP_NUM_TASKS": "1"}, place()),
        # A launcher in a step of Slurm
        (SLURM | announced(3, 4, LOCAL_RANK="3"), place(3, 4, 3, 2, "head", 1234)),
        (SLURM | announced(3, 4, CROSS_SIZE="1"), place(3, 4, 0, 1, "head", 1234)),
    ],
)
def test_what_launchers_say(environ: dict[str, str], found: RankEnvironment):
    assert rank_environment(environ) == found


@pytest.mark.parametrize("environ", [*ALONE, SLURM, MVAPICH | MEETING, announced(5, 8, LOCAL_WORLD_SIZE="4")])
def test_what_is_exported_says_the_same(environ: dict[str, str]):
    exported = dict(environ)
    found = export_rank_environment(exported)
    assert found == rank_environment(environ)
    assert rank_environment(exported) == replace(found, is_announced=True)  # it is as if started by torchrun
    assert {name: exported[name] for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", *MEETING)} == {
        "RANK": str(found.rank),
        "WORLD_SIZE": str(found.world_size),
        "LOCAL_RANK": str(found.local_rank),
        "MASTER_ADDR": found.master_address,
        "MASTER_PORT": str(found.master_port),
    }


@pytest.mark.parametrize(
    ("environ", "size"),
    [
        ({}, 1),
        (announced(5, 8), 1),
        (announced(5, 8, LOCAL_WORLD_SIZE="4"), 4),
        (announced(5, 8, LOCAL_SIZE="3"), 3),
        (OPEN_MPI, 4),
        (MVAPICH, 4),
        (OPEN_MPI | announced(1, 2, LOCAL_WORLD_SIZE="2"), 2),
        (SLURM, 1),
        ({**SLURM, "SLURM_STEP_TASKS_PER_NODE": "4"}, 4),
        ({**SLURM, "SLURM_STEP_TASKS_PER_NODE": "12(x2),3"}, 12),
        ({**SLURM, "SLURM_NTASKS_PER_NODE": "2"}, 2),
        ({**SLURM, "SLURM_STEP_TASKS_PER_NODE": "12,3(x2)", "SLURM_NODEID": "1"}, 3),
        ({**SBATCH_SCRIPT, "SLURM_NTASKS_PER_NODE": "2"}, 1),
    ],
)
def test_ranks_of_a_node(environ: dict[str, str], size: int):
    assert local_size(environ) == size


@pytest.mark.parametrize("value", ["0", "four", "-1"])
def test_a_node_has_a_rank_at_least(value: str):
    with pytest.raises(LigoError, match=f"LOCAL_SIZE is '{value}'; it should be a whole number from 1 on"):
        local_size({"LOCAL_SIZE": value})


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"RANK": "1", "WORLD_SIZE": "2"}, "WORLD_SIZE is 2, and MASTER_ADDR and MASTER_PORT not set"),
        ({**announced(1, 2), "MASTER_PORT": "http"}, "MASTER_PORT is 'http'; it should be a whole number"),
        (without(announced(1, 2), "MASTER_PORT"), "WORLD_SIZE is 2, and MASTER_PORT not set"),
        (announced(2, 2), "RANK is 2 and WORLD_SIZE 2; ranks count from 0 to 1"),
        (announced(0, 2, RANK="-1"), "RANK is '-1'; it should be a whole number from 0 on"),
        (announced(0, 2, CROSS_SIZE="0"), "CROSS_SIZE is '0'; it should be a whole number from 1 on"),
        (OPEN_MPI, "WORLD_SIZE is 8, and MASTER_ADDR and MASTER_PORT not set"),
        ({"RANK": "1"}, "RANK is set, and of RANK and WORLD_SIZE only this one; set both or none"),
        ({"WORLD_SIZE": "2", **MEETING}, "WORLD_SIZE is set, and of RANK and WORLD_SIZE only this one"),
        (without(SLURM, "SLURM_PROCID"), "SLURM_PROCID is not set, though Slurm sets it for every task"),
        (
            without(SLURM, "SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST"),
            "SLURM_STEP_ID is set, and neither SLURM_STEP_NODELIST nor SLURM_JOB_NODELIST",
        ),
    ],
)
def test_what_does_not_fit_together_is_named(environ: dict[str, str], said: str):
    with pytest.raises(LigoError) as caught:
        rank_environment(environ)
    assert said in str(caught.value)


def test_it_loads_no_torch():
    code = "import sys, ligo_dist.runtime.environment; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_what_a_rank_starts_is_told_of_no_ranks():
    environ = {
        **MEETING,
        **SLURM,
        "RANK": "1",
        "WORLD_SIZE": "2",
        "LOCAL_RANK": "1",
        "OMPI_COMM_WORLD_SIZE": "2",
    }
    assert alone({**environ, "PATH": "/bin", "OMP_NUM_THREADS": "4"}) == {
        "PATH": "/bin",
        "OMP_NUM_THREADS": "4",
    }
