"""Whether learning how to grow pays: ways to learn a growth in depth against damped copies, at equal FLOPs."""
