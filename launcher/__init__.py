"""How a run starts: what can be said before a process is launched, then the real `deepspeed` command, and what is done
when that fails. Imports no torch."""
