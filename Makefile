.PHONY: demo nightly test

# From a link to a running notebook, on a fresh Debian machine.
demo:
	@scripts/demo

# Everything CI runs.
test:
	@scripts/test

# The tests with random input, on five times as much of it.
nightly:
	@HYPOTHESIS_PROFILE=nightly scripts/test tests/squashfs tests/convert tests/image tests/plan tests/lock
