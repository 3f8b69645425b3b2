"""Stands in for liger-kernel where there is no GPU: the places that it takes over, computed by torch."""
