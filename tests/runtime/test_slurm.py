"""What Slurm writes into the environment."""

from __future__ import annotations

import pytest

from ligo_dist.runtime.environment import expand_hosts, is_step_task
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
