"""Stands in for `ssh OPTIONS HOST COMMAND`: runs the command on this machine, or does as FAKE_SSH/HOST.json says.

say, code        end at once, with this on standard error and this exit code
sleep            seconds before anything is done
instead          a program that runs in the place of the command
noise            printed before the command, as a login shell may
python_options   further options of the command's python
environment      further environment variables
lines            lines of standard input that the command gets before the connection breaks
mount            [directory, options]: a file system of its own there, as this host alone sees it; needs root
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path


def main() -> None:
    *_, host, command = sys.argv
    directory = Path(os.environ["FAKE_SSH"])
    with (directory / f"{host}.argv").open("a", encoding="utf-8") as record:
        record.write(json.dumps(sys.argv[1:]) + "\n")
    path = directory / f"{host}.json"
    told = json.loads(path.read_text()) if path.exists() else {}
    time.sleep(told.get("sleep", 0))
    if "code" in told:
        sys.stderr.write(told["say"])
        sys.exit(told["code"])
    sys.stdout.write(told.get("noise", ""))
    sys.stdout.flush()
    if "python_options" in told:
        command = command.replace(" -c ", f" {told['python_options']} -c ", 1)
    command = told.get("instead", command)
    words = ["sh", "-c", f"exec {command}"]
    if "mount" in told:
        place, options = told["mount"]
        script = 'mount -t tmpfs -o "$2" tmpfs "$1" && shift 2 && exec "$@"'
        words = ["unshare", "--mount", "sh", "-c", script, "sh", place, options, *words]
    environ = {**os.environ, **told.get("environment", {})}
    if "lines" in told:
        taken = "".join(sys.stdin.readline() for _ in range(told["lines"]))
        sys.exit(subprocess.run(words, input=taken, text=True, env=environ).returncode)
    os.execvpe(words[0], words, environ)


if __name__ == "__main__":
    main()
