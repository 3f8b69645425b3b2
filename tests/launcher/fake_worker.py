"""Stands in for a rank: `cluster.wrapper` puts it before the real worker's command, which it does not run.

It behaves as `behaviours.json` in its working directory says for its rank and for how many times it has been started:
a list of words, one for each start, the last for all further ones. Each start appends a line to `started`: rank,
processes, arguments, and the environment that counts.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_SIZE", "CROSS_RANK", "CROSS_SIZE", "MASTER_ADDR", "MASTER_PORT",
         "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "GREETING", "MLFLOW_TRACKING_TOKEN")  # fmt: skip


def main() -> None:
    rank = os.environ["RANK"]
    starts = [json.loads(line) for line in read("started")]
    before = sum(start["RANK"] == rank for start in starts)
    place = {name: os.environ[name] for name in NAMES if name in os.environ}
    child = subprocess.Popen(["sleep", "300"])  # what a rank may have started
    with open("started", "a") as file:
        file.write(json.dumps({**place, "pids": [os.getpid(), child.pid], "argv": sys.argv[1:]}) + "\n")
    words = json.loads(Path("behaviours.json").read_text()).get(rank, ["finish"])
    print(f"rank {rank} was started {before + 1} times", flush=True)
    behave(words[min(before, len(words) - 1)])
    child.kill()


def behave(word: str) -> None:
    if word == "freeze-early":
        os.kill(os.getpid(), signal.SIGSTOP)
    if word == "wait-early":
        time.sleep(300)
    beat("small train step 7")
    if word.startswith("exit-"):
        print(f"[rank {os.environ['RANK']}] RuntimeError: this is why", file=sys.stderr)
        sys.exit(int(word.removeprefix("exit-")))
    if word == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "kill-agent":
        os.kill(os.getppid(), signal.SIGKILL)
    if word == "freeze":
        os.kill(os.getpid(), signal.SIGSTOP)
    if word == "orderly":  # as the real one: 75 when it is asked to end
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
    if word in ("orderly", "work"):
        while True:
            beat("small train step 8")
            time.sleep(0.1)
    if word == "stubborn":
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, signal.SIG_IGN)
    if word in ("stubborn", "wait", "kill-agent"):
        time.sleep(300)


def beat(where: str) -> None:
    Path(os.environ["LIGO_DIST_HEARTBEAT"]).write_text(f"{where} {time.monotonic()}")


def read(name: str) -> list[str]:
    return Path(name).read_text().splitlines() if Path(name).exists() else []


if __name__ == "__main__":
    main()
