"""Stands in for the `deepspeed` command, whose imports take ten seconds: starts the ranks of all hosts here, and treats
them as the real one does. tests/cluster and tests/test_watched.py start the real one.

A host that is named in the file `away` is not reached, and pdsh says so. When a rank of a host fails, the others of
that host get SIGTERM, and SIGKILL after a while. The exit code is the largest of the hosts'.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

_GRACE_SECONDS = 4.0


def main() -> int:
    parser = argparse.ArgumentParser()
    for name in ("hostfile", "include", "exclude", "launcher", "launcher_args", "master_addr", "num_nodes"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--num_gpus", type=int)
    parser.add_argument("--master_port", type=int)
    for name in ("no_local_rank", "quiet", "no_ssh_check", "force_multi", "module"):
        parser.add_argument(f"--{name}", action="store_true")
    parser.add_argument("--no_python", nargs=argparse.REMAINDER, required=True)
    options = parser.parse_args()
    with open("deepspeed-calls", "a") as file:
        file.write(
            json.dumps([sys.argv[1:], {k: v for k, v in os.environ.items() if k.startswith("MLFLOW")}]) + "\n"
        )
    hosts = {"localhost": options.num_gpus}
    environ = dict(os.environ)
    if options.hostfile:
        lines = [line.partition("#")[0].split() for line in Path(options.hostfile).read_text().splitlines()]
        hosts = {words[0]: int(words[1].removeprefix("slots=")) for words in lines if words}
        for name in (options.exclude or "").split("@"):
            hosts.pop(name, None)
        for line in Path(os.environ["DS_ENV_FILE"]).read_text().splitlines():
            name, _, value = line.partition("=")
            environ[name] = value
    environ |= {"MASTER_ADDR": options.master_addr or "127.0.0.1", "MASTER_PORT": str(options.master_port)}
    codes: dict[str, int] = {}
    threads = []
    for number, host in enumerate(hosts):
        ranks = start(number, hosts, options.no_python, environ)
        threads.append(threading.Thread(target=watch, args=(host, ranks, codes)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return max(codes.values())


def start(
    number: int, hosts: dict[str, int], command: list[str], environ: dict[str, str]
) -> list[subprocess.Popen]:
    """The ranks of one host; from the main thread, as their end is that of the thread that starts them."""
    name, size = list(hosts.items())[number]
    host = name.rpartition("@")[2]  # as pdsh calls it
    first = sum(list(hosts.values())[:number])
    away = Path("away")
    if away.exists() and host in away.read_text().split():
        print(f"{host}: ssh: connect to host {host} port 22: No route to host", file=sys.stderr)
        print(f"pdsh@here: {host}: ssh exited with exit code 255", file=sys.stderr, flush=True)
        return []
    place = {
        "WORLD_SIZE": sum(hosts.values()),
        "LOCAL_SIZE": size,
        "CROSS_RANK": number,
        "CROSS_SIZE": len(hosts),
    }
    ranks = []
    for local in range(size):
        own = {
            name: str(value) for name, value in {**place, "RANK": first + local, "LOCAL_RANK": local}.items()
        }
        ranks.append(subprocess.Popen(command, env={**environ, **own}))
    return ranks


def watch(host: str, ranks: list[subprocess.Popen], codes: dict[str, int]) -> None:
    codes[host] = 0 if ranks else 255
    while any(rank.poll() is None for rank in ranks):
        failed = [rank.returncode for rank in ranks if rank.returncode]
        if failed:
            codes[host] = failed[0]
            for rank in ranks:
                if rank.poll() is None:
                    rank.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + _GRACE_SECONDS
            while any(rank.poll() is None for rank in ranks) and time.monotonic() < deadline:
                time.sleep(0.05)
            for rank in ranks:
                rank.kill()
            break
        time.sleep(0.05)
    codes[host] = codes[host] or max(rank.wait() for rank in ranks)
    if codes[host] and ranks and host != "localhost":
        print(
            f"pdsh@here: {host}: ssh exited with exit code {codes[host] % 256}", file=sys.stderr, flush=True
        )


if __name__ == "__main__":
    sys.exit(main())
