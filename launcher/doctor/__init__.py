"""Looking at the machines of a run before it is started: what would go wrong, on which one, and what to do."""

from launcher.doctor.checks import Check
from launcher.doctor.conversation import reachable_nodes
from launcher.doctor.examination import run_preflight
from launcher.doctor.report import Report

__all__ = ["Check", "Report", "reachable_nodes", "run_preflight"]
