"""Grow a small transformer into a large one and go on pre-training it, sharded by ZeRO-3 from end to end."""

__version__ = "0.1.0"
