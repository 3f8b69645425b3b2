"""What the ranks do: build models and engines, run phases step by step, grow from stage to stage."""
