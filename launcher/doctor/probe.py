"""What a machine says of itself before a run is started there.

The launcher sends this very file to the machine's python, then requests, a line of JSON each, and reads a line of JSON
as the answer to each (`ssh.py`). Nothing of ours may be installed there: it uses the standard library alone,
and nothing newer than Python 3.8, so that a wrong python is told rather than stumbled over. When the requests end it
removes what it has made.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from importlib import metadata
from pathlib import Path
from typing import Any

ANSWER = "ligo-dist answers: "
"""Begins the lines that are for the launcher: a login shell may print others."""

PACKAGES = ("torch", "deepspeed", "transformers", "datasets", "sentencepiece", "mlflow")
_OURS = ("ligo_dist", "launcher")
_CONNECT_SECONDS = 3.0
_ASK_TORCH = """\
import json, warnings
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    import torch
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
why = str(said[-1].message) if said else ""
if torch.version.cuda is None:
    why = "it was built without CUDA"
nccl = torch.distributed.is_available() and torch.distributed.is_nccl_available()
print(json.dumps({"count": count, "why": why.split("(Triggered")[0].strip(), "nccl": nccl}))
"""
"""In a process apart: it takes seconds, and memory of the accelerators for as long as the process is there."""
_NVIDIA_SMI_SECONDS = 10.0


class Machine:
    """Answers requests; the names of its public methods are what `do` may say."""

    def __init__(self) -> None:
        self.traces: list[str] = []
        """The files that it has made."""

    def look(
        self,
        directory: str,
        python_path: list[str],
        run_dir: str,
        mark: str,
        trace: str,
        port: int | None,
        torch_seconds: float | None,
    ) -> dict[str, Any]:
        """Everything that the machine can say alone; what cannot be done has its reason there, else None.

        Args:
            directory: to work in; without it nothing else is looked at.
            python_path: where the ranks find packages beside the environment's own.
            run_dir: directory that all machines share.
            mark: name of the launcher's file in it.
            trace: name of the file that is written beside it, for the launcher to see.
            port: where to listen from now on; None: nowhere.
            torch_seconds: how long torch may take to say which accelerators it sees; None: it is not asked.
        """
        try:
            os.chdir(directory)
        except OSError as error:
            return {"no_directory": reason(error)}
        sys.path[1:1] = python_path
        there, sees_mark = accelerators(), os.path.exists(os.path.join(run_dir, mark))
        return {
            "no_directory": None,
            "python": platform.python_version(),
            "executable": sys.executable,
            "machine": machine_identity(),
            "packages": package_versions(),
            "code": code_digest(),
            "accelerators": there,
            "capabilities": capabilities(),
            "processor_flags": processor_flags(),
            "torch": ask_torch(torch_seconds, python_path) if there and torch_seconds else None,
            "memory": available_memory(),
            "disk": free_disk(run_dir),
            "sees_mark": sees_mark,
            "unwritable": self._write(os.path.abspath(os.path.join(run_dir, trace))) if sees_mark else None,
            "cannot_listen": None if port is None else _listen(port),
        }

    def reach(self, address: str | None, port: int) -> dict[str, Any]:
        """Whether a port of another machine can be reached (None: not asked for), and what the clock says."""
        failure = None if address is None else _connect(address, port)
        return {"cannot_reach": failure, "time": time.time()}

    def _write(self, path: str) -> str | None:
        self.traces.append(path)
        try:
            write_through(path)
        except OSError as error:
            return reason(error)
        return None


def write_through(path: str) -> None:
    """Write a file for another machine to see, through to the disk.

    Raises:
        OSError: it cannot be written.
    """
    with open(path, "w", encoding="utf-8") as file:
        file.write("of a check before a launch; may be removed\n")
        file.flush()
        os.fsync(file.fileno())


def machine_identity() -> str | None:
    """The same for every name that leads here, and another in each container; None: the system does not say."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot = file.read().strip()
        return " ".join([boot, *(str(os.stat(f"/proc/self/ns/{kind}").st_ino) for kind in ("net", "mnt"))])
    except OSError:
        return None


def package_versions() -> dict[str, str | None]:
    """Versions of the packages that a run rests on, none of them imported; None: not there."""
    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def code_digest() -> str | None:
    """A hash of this project's own code, as python would find it; None: not there.

    A version says too little: the machines may hold checkouts of different days.
    """
    digest = hashlib.sha256()
    for package in _OURS:
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            return None
        root = Path(spec.origin).parent
        for path in sorted(root.rglob("*.py")):
            digest.update(str(path.relative_to(root)).encode())
            with contextlib.suppress(OSError):
                digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def accelerators() -> list[int | None]:
    """Free memory of each NVIDIA GPU, in bytes; None where it is not known."""
    free = [int(text) << 20 if text.isdigit() else None for text in _ask_nvidia("memory.free")]
    files = [name for name in os.listdir("/dev") if re.fullmatch(r"nvidia\d+", name)]
    return free or [None] * len(files)


def capabilities() -> list[float]:
    """The compute capability of each NVIDIA GPU, such as 9.0, as far as it is known."""
    return [float(text) for text in _ask_nvidia("compute_cap") if re.fullmatch(r"\d+\.\d+", text)]


def _ask_nvidia(field: str) -> list[str]:
    """What `nvidia-smi` says of each GPU; nothing where it is missing, or too old to know the field."""
    query = ["nvidia-smi", "--query-gpu=" + field, "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(
            query, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=_NVIDIA_SMI_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    lines = done.stdout.decode().split("\n") if done.returncode == 0 else []
    return [line.strip() for line in lines if line.strip()]


def processor_flags() -> list[str]:
    """As `ligo_dist.runtime.machine` has it."""
    try:
        with open("/proc/cpuinfo", encoding="ascii") as file:
            match = re.search(r"^(?:flags|Features)\s*:(.*)$", file.read(), re.MULTILINE)
    except (OSError, UnicodeDecodeError):
        return []
    return match[1].split() if match else []


def ask_torch(seconds: float, python_path: list[str]) -> dict[str, Any] | None:
    """What torch itself sees here: the `count` of accelerators whatever CUDA_VISIBLE_DEVICES says, `why` there are no
    more where it says so, and whether it has `nccl`, by which they talk. None: it did not say so soon."""
    environ = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    environ["PYTHONPATH"] = os.pathsep.join([*python_path, environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", _ASK_TORCH]
    try:
        done = subprocess.run(command, capture_output=True, env=environ, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return None
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["it ended without a word"]
        return {"count": 0, "why": lines[-1], "nccl": False}
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def available_memory() -> int | None:
    """Memory that processes may still take without swapping, in bytes; None where the system does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            match = re.search(r"^MemAvailable:\s+(\d+) kB$", file.read(), re.MULTILINE)
    except OSError:
        return None
    return int(match[1]) << 10 if match else None


def free_disk(path: str) -> int | None:
    """Free bytes where a directory is or would be; None where the system does not say."""
    ancestor = os.path.abspath(path)
    while not os.path.lexists(ancestor):
        ancestor = os.path.dirname(ancestor)
    try:
        return shutil.disk_usage(ancestor).free
    except OSError:
        return None


def reason(error: OSError) -> str:
    """What the system says of an error, without the numbers and names around it."""
    if error.errno is not None and error.errno > 0:  # negative: a name that does not resolve
        return os.strerror(error.errno)
    return error.strerror or str(error)


def _listen(port: int) -> str | None:
    """Listen on all addresses for as long as this process lives; the reason, if that cannot be done."""
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        server = socket.create_server(("", port), family=family, dualstack_ipv6=both)
    except OSError as error:
        return reason(error)
    threading.Thread(target=_accept, args=(server,), daemon=True).start()
    return None


def _accept(server: socket.socket) -> None:
    while True:
        connection, _ = server.accept()
        connection.close()


def _connect(address: str, port: int) -> str | None:
    try:
        socket.create_connection((address, port), timeout=_CONNECT_SECONDS).close()
    except OSError as error:
        return reason(error)
    return None


def main() -> None:
    machine = Machine()
    try:
        for line in sys.stdin:
            request = json.loads(line)
            answer = getattr(machine, request.pop("do"))(**request)
            print(ANSWER + json.dumps(answer), flush=True)
    finally:
        for path in machine.traces:
            with contextlib.suppress(OSError):  # the launcher was faster
                os.remove(path)


if __name__ == "__main__":
    main()
