"""`python -m hpcbinder.config > docs/config.md`."""

from hpcbinder.config import markdown

print(markdown(), end="")
