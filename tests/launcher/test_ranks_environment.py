from __future__ import annotations

from launcher.environment import ranks_environment
from launcher.messages import Job, NodeJob
from launcher.rank_process import rank_environment
from ligo_dist.config.cluster import Cluster

ENVIRON = {
    "MLFLOW_TRACKING_TOKEN": "secret",
    "NCCL_DEBUG": "INFO",
    "CUDA_VISIBLE_DEVICES": "5",
    "HOME": "/home/someone",
    "MY_FLAG": "1",
    "OTHER": "2",
}


def job(devices: tuple[int, ...] = (0, 1), environment: dict[str, str] | None = None) -> Job:
    return Job(
        nodes=(NodeJob("alpha", 0, (0,)), NodeJob("beta", 1, devices)),
        master_address="alpha",
        master_port=1234,
        directory="/",
        config="c",
        overrides=(),
        wrapper=(),
        environment=environment or {},
        logs="logs",
        hang_seconds=1.0,
        lost_seconds=1.0,
        grace_seconds=1.0,
    )


def test_what_goes_to_other_machines():
    cluster = Cluster(
        environment={"A": "1, 2 3"}, forward=["MY_FLAG"], nccl_interface="ib0", gloo_interface="eth0"
    )
    assert ranks_environment(cluster, ENVIRON, everything=False) == {
        "MLFLOW_TRACKING_TOKEN": "secret",
        "NCCL_DEBUG": "INFO",
        "MY_FLAG": "1",
        "NCCL_SOCKET_IFNAME": "ib0",
        "GLOO_SOCKET_IFNAME": "eth0",
        "A": "1, 2 3",
    }


def test_on_this_machine_the_ranks_inherit_the_rest():
    assert ranks_environment(Cluster(environment={"A": "1"}), ENVIRON, everything=True) == {"A": "1"}


def test_the_configuration_wins():
    cluster = Cluster(environment={"NCCL_DEBUG": "WARN"})
    assert ranks_environment(cluster, ENVIRON, everything=False)["NCCL_DEBUG"] == "WARN"


def test_a_rank_knows_its_place():
    environ = rank_environment(job(), 1, 1, {"PATH": "/bin", "DS_ACCELERATOR": "cpu"})
    assert environ.pop("OMP_NUM_THREADS").isdecimal()
    assert environ == {
        "PATH": "/bin",
        "DS_ACCELERATOR": "cpu",
        "RANK": "2",
        "WORLD_SIZE": "3",
        "LOCAL_RANK": "1",
        "LOCAL_WORLD_SIZE": "2",
        "LOCAL_SIZE": "2",
        "CROSS_RANK": "1",
        "CROSS_SIZE": "2",
        "MASTER_ADDR": "alpha",
        "MASTER_PORT": "1234",
    }


def test_accelerators_are_those_of_the_slots(monkeypatch):
    monkeypatch.setattr("launcher.rank_process.count_accelerators", lambda environ: 4)
    assert rank_environment(job((1, 3)), 1, 0, {})["CUDA_VISIBLE_DEVICES"] == "1,3"
    assert "DS_ACCELERATOR" not in rank_environment(job(), 1, 0, {})
    seen = rank_environment(job((0, 2)), 1, 0, {"CUDA_VISIBLE_DEVICES": "4, 5,GPU-7"})
    assert seen["CUDA_VISIBLE_DEVICES"] == "4,GPU-7"


def test_the_number_of_threads_may_be_said():
    assert rank_environment(job(environment={"OMP_NUM_THREADS": "3"}), 0, 0, {})["OMP_NUM_THREADS"] == "3"
