"""The commands of `ligo-dist`, a module each: `add_parser` says what may be typed, `run` does it."""
