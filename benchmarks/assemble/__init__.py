"""`python -m benchmarks.assemble`: images made of squashed packages."""
