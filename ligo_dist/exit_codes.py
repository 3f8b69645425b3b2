"""How a process of ours ends, and what is to be done then. The launcher and the ranks speak the same codes."""

FINISHED = 0
"""The run has come to its end."""

FAILED = 1
"""Something broke. Started again from the last checkpoint, it may well get on."""

MISTAKE = 2
"""What was asked for cannot be done; it would fail the same way again."""

CANNOT_GO_ON = 3
"""What was asked for is right, and the run cannot go on all the same: a loss that is no number. It would come to the
same point again."""

REQUEUE = 75
"""Stopped by a signal with its checkpoint written: the same command goes on. (EX_TEMPFAIL of sysexits.h.)"""

MORE_NODES = 76
"""Stopped at the boundary of a stage that asks for more nodes than there are; the same command goes on with what it
is given."""

INTERRUPTED = 130
"""Stopped by SIGINT, at once: what shells say of it. The same command goes on from the last checkpoint."""

HOPELESS = (MISTAKE, CANNOT_GO_ON)
"""Codes after which starting again is no use."""
