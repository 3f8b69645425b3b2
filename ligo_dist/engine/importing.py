"""DeepSpeed imported without what takes every rank seconds and serves none: the MLflow of its autotuner, and the
compiler for its Muon optimizer, which every engine asks whether it is that one."""

import sys
from contextlib import suppress

import torch

_ABSENT = "mlflow" not in sys.modules
_compile = torch.compile
if _ABSENT:
    sys.modules["mlflow"] = None  # type: ignore[assignment]  # whoever imports it meanwhile is told that it is missing
torch.compile = lambda model=None, **_: model or (lambda function: function)  # type: ignore[assignment]
try:
    import deepspeed

    with suppress(ImportError):  # another version has it elsewhere
        import deepspeed.runtime.zero.muon.original_muon  # noqa: F401
finally:
    torch.compile = _compile
    if _ABSENT:
        del sys.modules["mlflow"]
