"""The section `evaluation.harness`: tasks of lm-evaluation-harness that the exports of a run are measured on."""

from __future__ import annotations

from ligo_dist.config.section import Count, CountOrZero, PathText, Section, Text


class Harness(Section):
    """Tasks of lm-evaluation-harness (`pip install 'ligo_dist[eval]'`) on each export, when its stage ends: the last
    one's, with `checkpoints.export_stages` every one's. The first rank's machine runs them while the other ranks wait;
    what comes out is recorded as `evaluate/TASK/METRIC`, as `ligo-dist evaluate` does it."""

    tasks: list[Text] = []
    """As the harness calls them: tasks, groups, patterns such as `lambada_*`. Empty: nothing is evaluated."""
    include_path: PathText | None = None
    """Directory of tasks of your own, as YAML files."""
    num_fewshot: CountOrZero | None = None
    """Examples before each question; `null`: the task's own choice."""
    limit: Count | None = None
    """Questions of each task; `null`: all."""
    batch_size: Count | None = None
    """Questions at a time; `null`: `evaluation.micro_batch_size`."""
