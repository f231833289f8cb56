"""Fixtures that bring up real engines and runtimes; see ``rig/README.md``."""

import os
import signal

pytest_plugins = ["profiles", "rig.fixtures", "images", "package_index", "engines", "repo2docker_cases"]

# Whoever starts the tests in the background (`&` in a script, nohup) has them ignore these, and with them every program
# that a test starts: nothing could be interrupted then.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if "PYTEST_XDIST_WORKER" in os.environ:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
