"""A rank as a process: how it is started, watched, stopped, and what it leaves when it ends. Imports no torch."""
