"""Stands in for `ssh`: runs the command here. Hosts that are named in the file `away` do not answer."""

from __future__ import annotations

import os
import sys
from pathlib import Path

name, command = sys.argv[-2:]
host = name.rpartition("@")[2]
with open("ssh-arguments", "a") as file:
    file.write("\n".join(sys.argv[1:]) + "\n\n")
if Path("away").exists() and host in Path("away").read_text().split():
    sys.exit(f"ssh: connect to host {host} port 22: No route to host")
os.environ.pop("MLFLOW_TRACKING_TOKEN", None)  # a login knows nothing of the launcher's environment
os.execvp("sh", ["sh", "-c", command])
