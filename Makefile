.PHONY: demo nightly repos rig rig-down test

# From a link to a running notebook, on a fresh Debian machine.
demo:
	@scripts/demo

# Everything CI runs.
test:
	@scripts/test

# The tests with random input, on five times as much of it.
nightly:
	@HYPOTHESIS_PROFILE=nightly scripts/test tests/squashfs tests/convert tests/image tests/plan tests/lock tests/conformance \
		tests/repositories

# The repositories of tests/repos, built and run with what this machine has: docs/repositories.md.
repos:
	@sh -c '. scripts/setup.sh; install_project dev'
	@.venv/bin/python -m tests.repositories --docs

# A whole cluster on this machine to try things on (tests/rig/README.md), and its end.
rig:
	@sh -c '. scripts/setup.sh; install_project dev'
	@.venv/bin/python -m tests.rig up

rig-down:
	@.venv/bin/python -m tests.rig down
