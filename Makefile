.PHONY: demo test

# From a link to a running notebook, on a fresh Debian machine.
demo:
	@scripts/demo

# Everything CI runs.
test:
	@scripts/test
