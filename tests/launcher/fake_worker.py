"""Stands in for a rank: `cluster.wrapper` puts it before the real one's command, which it does not run. It is watched
as the real one is, and does nothing but to behave as `behaviours.json` in its working directory says for its rank and
for how many times it has been started: a list of words, one for each start, the last for all further ones.

Each start appends a line to `started`: rank, processes, arguments, and the environment that counts.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import yaml

from ligo_dist.runtime import heartbeat, watchdog
from ligo_dist.runtime.environment import export_rank_environment
from ligo_dist.runtime.launch import LaunchDirectory
from ligo_dist.runtime.process import become_rank
from ligo_dist.runtime.signals import StopSignals
from ligo_dist.runtime.watch import Watch

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_SIZE", "CROSS_RANK", "CROSS_SIZE", "MASTER_ADDR", "MASTER_PORT",
         "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "GREETING", "MLFLOW_TRACKING_TOKEN")  # fmt: skip


def main() -> int:
    freeze_first()
    become_rank()
    export_rank_environment()
    rank = os.environ["RANK"]
    starts = [json.loads(line) for line in read("started")]
    before = sum(start["RANK"] == rank for start in starts)
    place = {name: os.environ[name] for name in NAMES if name in os.environ}
    child = subprocess.Popen(["sleep", "300"])  # what a rank may have started
    with open("started", "a") as file:
        file.write(json.dumps({**place, "pids": [os.getpid(), child.pid], "argv": sys.argv[1:]}) + "\n")
    words = json.loads(Path("behaviours.json").read_text()).get(rank, ["finish"])
    print(f"rank {rank} was started {before + 1} times", flush=True)
    cluster = yaml.safe_load(Path(sys.argv[-1]).read_text())["cluster"]
    watchdog.tell(hang_seconds=cluster["hang_seconds"], grace_seconds=cluster["grace_seconds"])
    with StopSignals() as signals:
        signals.before_end(lambda reason: child.kill())
        Watch(
            signals,
            lost_seconds=cluster["lost_seconds"],
            grace_seconds=cluster["grace_seconds"],
            leads=os.environ["LOCAL_RANK"] == "0",
            launch=LaunchDirectory.given(),
        ).start()
        code = behave(words[min(before, len(words) - 1)], signals, cluster["hang_seconds"])
    child.kill()
    watchdog.tell(code=code)
    return code


def freeze_first() -> None:
    """Before it is watched, once."""
    rank = os.environ.get("RANK")  # Slurm says it under another name
    words = json.loads(Path("behaviours.json").read_text()).get(rank, [])
    marker = Path(f"frozen-{rank}")
    if "freeze-first" in words[:1] and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGSTOP)


def behave(word: str, signals: StopSignals, hang_seconds: float) -> int:
    """The exit code."""
    if word == "freeze-early":
        os.kill(os.getpid(), signal.SIGSTOP)
    if word == "wait-early":
        time.sleep(300)
    if word in ("freeze", "wait"):
        wait_for_all()  # so that they are at it together
    heartbeat.enter("small train")
    heartbeat.beat("step 7")
    heartbeat.start(hang_seconds)
    time.sleep(0.1)
    if word.startswith("exit-"):
        wait_for_all()
        print(f"[rank {os.environ['RANK']}] RuntimeError: this is why", file=sys.stderr)
        return int(word.removeprefix("exit-"))
    if word == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "kill-parent":
        wait_for_all()
        signals.defer()
        os.kill(os.getppid(), signal.SIGKILL)
    if word == "freeze":
        os.kill(os.getpid(), signal.SIGSTOP)
    if word == "wait":
        time.sleep(300)
    if word == "stubborn":
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, signal.SIG_IGN)
        signals.ask = lambda *_: None  # type: ignore[method-assign]
    if word == "survive":
        time.sleep(1.0)
        print("[rank 0] RuntimeError: Connection closed by peer", file=sys.stderr)
        return 1
    if word in ("orderly", "kill-parent", "work", "stubborn"):
        signals.defer()
        while signals.requested is None or word == "stubborn":
            heartbeat.beat("step 8")
            time.sleep(0.05)
        return 1 if word == "work" else 75  # at work with others that have gone
    return 0


def wait_for_all() -> None:
    """Until all ranks have been started as often as this one, and heed what ends them."""
    deadline = time.monotonic() + 30
    ranks = [str(rank) for rank in range(int(os.environ["WORLD_SIZE"]))]
    while time.monotonic() < deadline:
        started = [json.loads(line)["RANK"] for line in read("started")]
        if len({started.count(rank) for rank in ranks}) == 1:
            break
        time.sleep(0.05)
    time.sleep(0.5)


def read(name: str) -> list[str]:
    return Path(name).read_text().splitlines() if Path(name).exists() else []


if __name__ == "__main__":
    sys.exit(main())
