"""What Slurm writes into the environment."""

from __future__ import annotations

import pytest

from ligo_dist.runtime.environment import expand_counts, expand_hosts, is_step_task, own_cores
from ligo_dist.runtime.errors import LigoError


@pytest.mark.parametrize(
    ("hosts", "expanded"),
    [
        ("node1", ["node1"]),
        ("a,b-2.cluster", ["a", "b-2.cluster"]),
        ("node[01-03,7],gpu1", ["node01", "node02", "node03", "node7", "gpu1"]),
        ("node[098-101]", ["node098", "node099", "node100", "node101"]),
        ("node[8-10]-ib", ["node8-ib", "node9-ib", "node10-ib"]),
        ("rack[0-1]n[1,3]", ["rack0n1", "rack0n3", "rack1n1", "rack1n3"]),
    ],
)
def test_a_list_of_hosts(hosts: str, expanded: list[str]):
    assert expand_hosts(hosts) == expanded


@pytest.mark.parametrize("hosts", ["", "a,", "node[1-", "node[]", "node[a-b]", "a b"])
def test_what_is_no_list_of_hosts(hosts: str):
    with pytest.raises(LigoError, match="is no list of hosts as Slurm writes it, such as") as caught:
        expand_hosts(hosts)
    assert repr(hosts) in str(caught.value)


@pytest.mark.parametrize(
    ("environ", "answer"),
    [
        ({}, False),
        ({"SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, False),  # an sbatch script
        ({"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "4294967290"}, False),  # a shell of salloc
        ({"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "4294967291"}, False),  # a batch script again
        ({"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0"}, True),
        ({"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "12"}, True),
    ],
)
def test_what_srun_started_is_told_from_what_it_did_not(environ: dict[str, str], answer: bool):
    assert is_step_task(environ) is answer


@pytest.mark.parametrize(
    ("counts", "expanded"), [("4", [4]), ("4(x2)", [4, 4]), ("2(x3),1", [2, 2, 2, 1]), ("5,0", [5, 0])]
)
def test_a_list_of_numbers(counts: str, expanded: list[int]):
    assert expand_counts(counts) == expanded


@pytest.mark.parametrize("counts", ["", "(x2)", "4(x)", "4,", "four", "4 x2"])
def test_what_is_no_list_of_numbers(counts: str):
    with pytest.raises(LigoError, match="is no list of numbers as Slurm writes it, such as"):
        expand_counts(counts)


@pytest.mark.parametrize(
    ("environ", "cores"),
    [
        ({}, 16),
        ({"LOCAL_WORLD_SIZE": "8"}, 2),
        ({"LOCAL_WORLD_SIZE": "32"}, 1),
        ({"SLURM_STEP_ID": "0", "SLURM_STEP_TASKS_PER_NODE": "4(x2)"}, 4),
        ({"SLURM_STEP_ID": "0", "SLURM_STEP_TASKS_PER_NODE": "4", "SLURM_CPUS_PER_TASK": "6"}, 6),
        ({"SLURM_STEP_ID": "0", "SLURM_STEP_TASKS_PER_NODE": "8", "SLURM_CPUS_PER_TASK": "16"}, 16),
        ({"SLURM_CPUS_PER_TASK": "6"}, 16),  # no task of a step
    ],
)
def test_the_cores_of_a_rank_among_sixteen_that_it_may_use(environ: dict[str, str], cores: int):
    assert own_cores(16, environ) == cores
