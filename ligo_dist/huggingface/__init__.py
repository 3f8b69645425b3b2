"""The library's models and directories: what comes in, and what goes out."""
