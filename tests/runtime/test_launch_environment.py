"""Which variables of the host enter an image."""

import pytest

from hpcbinder.config import RuntimeConfig
from hpcbinder.runtime.launch.environment import allowed, host_environment

LEAKS = {
    "PYTHONPATH": "/host",
    "PYTHONHOME": "/host",
    "PYTHONUSERBASE": "/host",
    "LD_PRELOAD": "/host.so",
    "LD_LIBRARY_PATH": "/host",
    "CONDA_PREFIX": "/host",
    "VIRTUAL_ENV": "/host",
    "JUPYTER_PATH": "/host",
    "PATH": "/host",
    "R_LIBS_USER": "/host",
    "BASH_ENV": "/host",
    "BASH_FUNC_module%%": "() { :; }",
    "SLURM_JWT": "token",
}


def test_the_configuration_s_list_lets_a_job_through_and_nothing_of_the_host_s_software() -> None:
    job = {"SLURM_JOB_ID": "7", "CUDA_VISIBLE_DEVICES": "0", "TERM": "xterm", "USER": "alice", "LOGNAME": "alice"}
    environ = {**LEAKS, **job, "SECRET": "x", "HOME": "/home/alice"}
    assert allowed(environ, RuntimeConfig().environment, {}) == job


@pytest.mark.parametrize("pattern", ["*", "P*", "LD_*", "??THONPATH", "SLURM_*"])
def test_a_glob_never_lets_the_host_s_software_in(pattern: str) -> None:
    assert not allowed(LEAKS, [pattern], {})


def test_an_exact_name_does() -> None:
    assert allowed(LEAKS, ["PYTHONPATH"], {}) == {"PYTHONPATH": "/host"}


@pytest.mark.parametrize("name", ["HOME", "PWD", "TMPDIR", "JPY_PARENT_PID"])
def test_what_the_runtime_decides_is_never_passed(name: str) -> None:
    assert not allowed({name: "1"}, [name, "*"], {})


def test_a_batch_system_that_tells_nobody_s_name() -> None:
    complete = host_environment({"PATH": "/bin", "USER": ""})
    assert complete["HOME"]
    assert complete["USER"] == complete["LOGNAME"] != ""
    assert complete["PATH"] == "/bin"


def test_a_locale_of_the_host_that_the_image_does_not_have_stays_outside() -> None:
    host = {"LANG": "de_DE.UTF-8", "LC_TIME": "de_DE.UTF-8", "TZ": "Europe/Berlin"}
    assert allowed(host, ["LANG", "LC_*", "TZ"], {"LANG": "C.UTF-8"}) == {"TZ": "Europe/Berlin"}
    assert allowed(host, ["LANG", "LC_*", "TZ"], {}) == host
