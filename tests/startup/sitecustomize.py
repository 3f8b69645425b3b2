"""Python runs this at the start of each process that has this folder in PYTHONPATH. DeepSpeed's launcher, and nothing
else that tests start, is told that there is no MLflow: it spends half of its time on importing that, for an autotuner
that nobody asks for."""

import os
import sys

if any(
    os.path.basename(word) == "deepspeed" or word.startswith("deepspeed.launcher")
    for word in sys.orig_argv[1:4]
):
    sys.modules["mlflow"] = None
