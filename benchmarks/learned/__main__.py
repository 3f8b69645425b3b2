"""Whether learning how to grow pays, at 20 tokens per parameter and a growth from 2 to 16 layers at 0.8 of them.

    MALLOC_TRIM_THRESHOLD_=4294967296 MALLOC_MMAP_THRESHOLD_=1073741824 python -m benchmarks.learned DIR

The target and its setting are those of `benchmarks/horizon/deep.yaml`. All runs are in this process, on one thread, in
plain PyTorch; all ways of a seed have the same source and the same batches, and end after the same FLOPs, learning
counted. A finished run is a line of DIR/runs.jsonl and is not taken again; --report FILE writes FILE.txt and .jsonl.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

import torch

from benchmarks.horizon.runs import Target
from benchmarks.learned.results import table
from benchmarks.learned.trial import Trial
from benchmarks.learned.ways import WAYS
from benchmarks.provenance import commit, processor
from ligo_dist.config import config_from
from ligo_dist.corpus import build_corpus

RECORD = "runs.jsonl"


def main() -> int:
    arguments = _parser().parse_args()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    file = arguments.directory / RECORD
    if arguments.report is None:
        _take(arguments, file)
    else:
        _report(arguments.report, read_results(file))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", type=Path, metavar="DIR")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rate", type=float, default=1e-2, help="learning rate of the weights")
    parser.add_argument("--only", default="", help="ways in whose name this regular expression is found")
    parser.add_argument("--cache", type=Path, help="where the corpus is prepared; DIR/cache")
    parser.add_argument("--report", type=Path, metavar="FILE")
    return parser


def _take(arguments: argparse.Namespace, file: Path) -> None:
    """All ways of one seed after another."""
    torch.set_num_threads(1)
    target = Target("deep", arguments.rate)
    cache = arguments.cache or arguments.directory / "cache"
    raw = target.base | {"data": target.base["data"] | {"cache_dir": str(cache.absolute())}}
    corpus, of_commit = build_corpus(config_from(raw)), commit()
    for seed in arguments.seeds:
        trial = Trial(target, corpus, seed, arguments.directory)
        for way in WAYS:
            taken = {(each["seed"], each["rate"], each["way"]) for each in read_results(file)}
            if (seed, arguments.rate, way) in taken or not re.search(arguments.only, way):
                continue
            trial.source()
            before = time.monotonic()
            result: dict[str, Any] = {"seed": seed, "rate": arguments.rate, "way": way}
            result |= {"source": trial.source_loss(), "flops": trial.total_flops} | WAYS[way](trial)
            result |= {"seconds": time.monotonic() - before, "commit": of_commit}
            with file.open("a") as end:
                end.write(json.dumps(result) + "\n")
            print(f"seed {seed} {way}: {result['loss']:.4f} in {result['seconds']:.0f} s", flush=True)


def read_results(file: Path) -> list[dict[str, Any]]:
    """Of all finished runs; none before the first has finished."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def _report(file: Path, results: list[dict[str, Any]]) -> None:
    commits = ", ".join(dict.fromkeys(each["commit"] for each in results))
    head = [
        f"{date.today()}, commit {commits}, {processor()}, one thread; python -m benchmarks.learned",
        f"torch {torch.__version__}; {len(results)} runs, {sum(each['seconds'] for each in results) / 60:.0f} minutes",
    ]
    lines = head + table(results)
    file.with_suffix(".txt").write_text("\n".join(lines) + "\n")
    file.with_suffix(".jsonl").write_text("".join(json.dumps(each) + "\n" for each in results))
    print("\n".join(lines))


if __name__ == "__main__":
    sys.exit(main())
