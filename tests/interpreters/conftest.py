from prefixes import prefix

__all__ = ["prefix"]
