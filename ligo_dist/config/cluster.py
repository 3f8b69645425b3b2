"""The section `cluster`: on which machines a run is started, how, and what is done when one of them fails."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ligo_dist.config.section import (
    Count,
    CountOrZero,
    PathText,
    Port,
    Positive,
    PositiveOrZero,
    Section,
    Text,
)


class Slurm(Section):
    """What `ligo-dist submit` writes into the head of its sbatch file."""

    partition: Text | None = None
    """`--partition`."""
    account: Text | None = None
    """`--account`."""
    time: Text | None = None
    """`--time`, as Slurm writes it: `12:00:00`, `2-12:00:00`."""
    nodes: Count | None = None
    """`--nodes`."""
    gpus_per_node: Count | None = None
    """`--gpus-per-node`; `null`: the ranks run on processors, `ranks_per_node` of them."""
    ranks_per_node: Count | None = None
    """Ranks on each node; `null`: one per GPU, else one."""
    cpus_per_task: Count | None = None
    """`--cpus-per-task`: cores of each rank; `null`: as Slurm gives them, often one."""
    options: list[Text] = []
    """Further options, each a word such as `--qos=long`."""

    @property
    def ranks(self) -> int:
        """Ranks on each node."""
        return self.ranks_per_node or self.gpus_per_node or 1


class Cluster(Section):
    """On which machines a run is started, how, and what is done when one of them fails. It changes no number of the
    run, and may be another at each launch."""

    hostfile: PathText | None = None
    """A file of lines `HOST slots=N`, as DeepSpeed's; `--hostfile` on the command line wins. `null`: this machine
    alone."""
    include: Text | None = None
    """The only hosts, or slots of hosts, that are used: `host1@host2:0,2`."""
    exclude: Text | None = None
    """Hosts, or slots of hosts, that are not used."""
    launcher: Literal["pdsh", "openmpi", "impi", "mvapich"] = "pdsh"
    """DeepSpeed's `--launcher`: what starts the ranks on the hosts. It has to be installed here."""
    launcher_args: list[Text] = []
    """DeepSpeed's `--launcher_args`: further words for it."""
    ssh_port: Port | None = None
    """Port of the hosts' sshd; `null`: as ssh's own configuration says."""
    ssh_options: list[Text] = []
    """Further words for ssh, such as `-oStrictHostKeyChecking=yes` or `-i`, `key`."""
    python: PathText | None = None
    """The environment's python, at the same path on the hosts and here; `null`: the one that runs the launcher."""
    directory: PathText | None = None
    """Working directory of the ranks, to which `run_dir` and `data.cache_dir` are relative. It has to be shared by all
    hosts and the machine of the launcher, at the same path. `null`: the one of the launcher."""
    nccl_interface: Text | None = None
    """Network interface of NCCL (`NCCL_SOCKET_IFNAME`); `null`: its own choice."""
    gloo_interface: Text | None = None
    """Network interface of gloo (`GLOO_SOCKET_IFNAME`); `null`: its own choice."""
    wrapper: list[Text] = []
    """Words before each rank's command: a profiler, or `numactl` with its options."""
    environment: dict[str, str] = {}
    """Environment variables of the ranks."""
    forward: list[Text] = []
    """Names of further variables of the launcher's environment that the ranks on other machines get. Those of NCCL,
    gloo, torch, CUDA, DeepSpeed, MLflow, Hugging Face and of this project are passed on anyway."""
    master_address: Text | None = None
    """Address of the first host as the others reach it; `null`: its name in the host file."""
    master_port: Port | None = None
    """TCP port on the first host where the ranks meet; `null`: a free one on one machine, else 29500 and those after
    it."""
    preflight: bool = True
    """Check all hosts before a launch, as `ligo-dist doctor` does."""
    preflight_seconds: Count = 30
    """How long a host may take to answer."""
    max_restarts: CountOrZero = 3
    """How often a run that failed is started again from its last complete checkpoint. What would fail the same way
    again (a mistake in the configuration, a loss that is no number) is not."""
    backoff_seconds: PositiveOrZero = 5.0
    """Pause before the first restart; it doubles with each one, up to five minutes."""
    min_nodes: Count | None = None
    """Go on with so few nodes when others stay away; `null`: with all or not at all. The batches stay the same."""
    node_wait_seconds: PositiveOrZero = 60.0
    """How long a restart waits for nodes that stay away, before it goes on without them or gives up."""
    lost_seconds: Positive = 30.0
    """A connection without an answer for so long is lost: the run stops everywhere and is started again. A launcher
    without a sign of life for so long is lost: the ranks write a checkpoint and end."""
    hang_seconds: Annotated[float, Field(ge=2)] = 600.0
    """A rank that does not get on for so long, once the ranks have met, hangs: the run stops and is started again. It
    must cover the longest single thing a rank does: a step, a batch of the evaluation, a tensor that is grown."""
    grace_seconds: Positive = 60.0
    """How long the ranks have, once they are asked to stop, to finish their step and write a checkpoint."""
    slurm: Slurm = Slurm()
    """What `ligo-dist submit` asks Slurm for."""
