"""The repositories of tests/repos, built and run for real: what is expected of each, the runner, the table of the docs.

`python -m tests.repositories` from the checkout (`make repos`), or `test_repositories.py`.
"""
