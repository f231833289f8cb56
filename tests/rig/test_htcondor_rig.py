"""The pool of the rig: jobs of an ordinary user, on a host that is not this machine."""

from __future__ import annotations

import re
import time

from . import HTCondor, User

DESCRIPTION = """\
executable = /bin/sh
arguments = "-c 'hostname; id -u; echo $HOME; ip route'"
transfer_executable = False
should_transfer_files = NO
initialdir = {home}
output = out
error = err
log = log
request_memory = 100MB
queue
"""


def test_a_job_runs_as_who_submitted_it(htcondor: HTCondor, user: User) -> None:
    done = user.run(["condor_submit"], env=htcondor.environment, input=DESCRIPTION.format(home=user.home))
    assert re.search(r"1 job\(s\) submitted to cluster [0-9]+\.", done.stdout)
    user.run(["condor_wait", "-wait", "120", user.home / "log"], env=htcondor.environment)
    assert (user.home / "err").read_text() == ""
    host, uid, *_, route = (user.home / "out").read_text().splitlines()
    assert (host, uid) == ("condor", str(user.uid))
    assert (user.home / "out").stat().st_uid == user.uid


def test_a_job_that_is_removed_is_gone(htcondor: HTCondor, user: User) -> None:
    description = DESCRIPTION.format(home=user.home).replace("hostname;", "setsid sleep 1000 & sleep 1000;")
    user.run(["condor_submit"], env=htcondor.environment, input=description)
    end = time.monotonic() + 120
    while not any("sleep 1000" in line for line in user.processes().values()):
        assert time.monotonic() < end, user.run(["condor_q", "-better"], env=htcondor.environment).stdout
        time.sleep(0.1)
    htcondor.remove(user.uid)
    while user.processes():
        assert time.monotonic() < end, user.processes()
        time.sleep(0.1)
