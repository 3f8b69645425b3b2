"""Stands in for `deepspeed`: the same tree of processes (runner, launch.py, two ranks), behaving as told by
FAKE.

Each process appends its id to FAKE_PIDS. Like the real one, the runner does not pass signals on, and gives
exit code 0 where launch.py was killed; launch.py ends its ranks when one fails.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def main() -> int:
    role = os.environ.get("FAKE_ROLE", "runner")
    with open(os.environ["FAKE_PIDS"], "a") as pids:
        pids.write(f"{os.getpid()}\n")
    return {"runner": runner, "launch": launch, "rank": rank}[role]()


def start(role: str, **extra: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, *sys.argv], env={**os.environ, "FAKE_ROLE": role, **extra})


def runner() -> int:
    code = start("launch").wait()
    return code if code > 0 else 0


def launch() -> int:
    ranks = [start("rank", RANK=str(index)) for index in range(2)]

    def end(signum: int, frame: object) -> None:
        for process in ranks:
            process.terminate()
        sys.exit(1)

    signal.signal(signal.SIGTERM, end)
    while True:
        running = any(process.poll() is None for process in ranks)
        failed = [process.returncode for process in ranks if process.returncode]
        if failed:
            for process in ranks:
                process.terminate()
            return failed[0]
        if not running:
            return 0
        time.sleep(0.02)


def rank() -> int:
    behaviour, is_first = os.environ["FAKE"], os.environ["RANK"] == "0"
    if behaviour == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if behaviour == "kill-launch" and is_first:
        os.kill(os.getppid(), signal.SIGKILL)
    if behaviour.startswith("exit-") and is_first:
        return int(behaviour.removeprefix("exit-"))
    if behaviour in ("finish", "old-result") and is_first:
        run_dir = next(word.removeprefix("run_dir=") for word in sys.argv if word.startswith("run_dir="))
        launch_id = os.environ["LIGO_DIST_LAUNCH_ID"] if behaviour == "finish" else "another"
        Path(run_dir, "result.json").write_text(json.dumps({"status": "finished", "launch_id": launch_id}))
    if behaviour in ("sleep", "stubborn", "kill-launch"):
        time.sleep(60)
    return 0


if __name__ == "__main__":
    sys.exit(main())
