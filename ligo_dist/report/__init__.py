"""What came of runs: loss against FLOPs and time, and what growing saved. While a run goes on, `pictures` draws it."""

from ligo_dist.report.compare import Report, build_report
from ligo_dist.report.report import PICTURE, check_arguments, write_report
from ligo_dist.report.tables import show
from ligo_dist.report.verdicts import notes, verdict

__all__ = [
    "PICTURE",
    "Report",
    "build_report",
    "check_arguments",
    "notes",
    "show",
    "verdict",
    "write_report",
]
