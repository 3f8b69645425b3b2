"""Looking at the machines of a run before it is started: what would go wrong, on which one, and what to do."""

from launcher.doctor.checks import Check
from launcher.doctor.report import DoctorReport, run_preflight
from launcher.doctor.ssh import reachable_nodes

__all__ = ["Check", "DoctorReport", "reachable_nodes", "run_preflight"]
