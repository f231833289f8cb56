"""A package that the repository brings, installed as it says in pyproject.toml."""


def answer() -> int:
    return 42
