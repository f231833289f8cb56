"""Fuzzing with atheris: what a stranger may hand us, at random, and inputs that once did harm (docs/development.md)."""
