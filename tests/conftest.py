"""Fixtures that bring up real engines and runtimes; see ``rig/README.md``."""

pytest_plugins = ["profiles", "rig.fixtures", "images", "package_index", "engines", "repo2docker_cases"]
