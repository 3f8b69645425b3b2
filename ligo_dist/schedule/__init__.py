"""The schedule as flat numbers: stages and phases, where a run stands in them, what they cost."""
