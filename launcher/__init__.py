"""How a run starts: what can be said before a process is launched, then the `deepspeed` command. Imports no
torch."""
