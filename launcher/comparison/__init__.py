"""A comparison: ordinary runs that differ in the seed and in how their last stage begins, derived from one
configuration, run one after another, and held against each other by the report."""
