"""What tests ask for: ``rig``, its parts by their names (``dockerd``, ``registry``, …), and ``user``; and their order,
which of them stay together when several processes share the work among them.

A part that cannot be had on a machine skips its tests with the reason; in CI a skip that is not on
``tests/allowed_skips.txt`` is a failure.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from . import (
    Apptainer,
    Builder,
    Charliecloud,
    Dockerd,
    HTCondor,
    Hub,
    Registry,
    Rig,
    RigError,
    Slurm,
    Sshd,
    User,
    packages,
)

_PARTS = {
    *("rig", "dockerd", "apptainer", "charliecloud", "registry", "slurm", "htcondor", "sshd", "hub"),
    *("user", "builder"),
}
HUB_SETTINGS = {"poll_interval": 2, "queue_interval": 1.0}
"""How the hub of a session begins: it looks at its servers more often than one does that has many."""
_GROUPS = {"engines": "builder", "docker": "dockerd", "slurm": "slurm"}
"""Who asks for the part is in the group, whose tests are one process's: what they build, others of them find there. The
first that fits."""
_ALLOWED = Path(__file__).parent.parent / "allowed_skips.txt"


@pytest.fixture(scope="session")
def rig() -> Iterator[Rig]:
    """The rig; nothing is brought up by asking for it."""
    rig = Rig()
    yield rig
    rig.close()


@contextlib.contextmanager
def _borrowed(rig: Rig, name: str) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        try:
            with packages.machine():
                stack.enter_context(rig.borrowed(name))
        except RigError as error:
            pytest.skip(f"rig: {error}")
        yield


@pytest.fixture(scope="session")
def dockerd(rig: Rig) -> Iterator[Dockerd]:
    """A Docker daemon of the tests' own; give ``dockerd.host``, or ``dockerd.environment`` to a client."""
    with _borrowed(rig, "dockerd"):
        yield rig.dockerd


@pytest.fixture(scope="session")
def apptainer(rig: Rig) -> Iterator[Apptainer]:
    """Apptainer: ``apptainer.path`` is the program, ``apptainer.bin`` the folder for ``PATH``."""
    with _borrowed(rig, "apptainer"):
        yield rig.apptainer


@pytest.fixture(scope="session")
def charliecloud(rig: Rig) -> Iterator[Charliecloud]:
    """Debian's Charliecloud: ``charliecloud.path`` is ``ch-run``."""
    with _borrowed(rig, "charliecloud"):
        yield rig.charliecloud


@pytest.fixture(scope="session")
def registry(rig: Rig) -> Iterator[Registry]:
    """A registry that lets everybody in: ``registry.host`` is what names in it begin with. Others push there too."""
    with _borrowed(rig, "registry"):
        yield rig.registry


@pytest.fixture(scope="session")
def slurm(rig: Rig) -> Iterator[Slurm]:
    """A Slurm cluster of two nodes; this machine is its login node, `slurm.environment` leads to it."""
    with _borrowed(rig, "slurm"):
        yield rig.slurm


@pytest.fixture(scope="session")
def htcondor(rig: Rig) -> Iterator[HTCondor]:
    """A pool of HTCondor; this machine submits, `htcondor.environment` leads to it."""
    with _borrowed(rig, "htcondor"):
        yield rig.htcondor


@pytest.fixture(scope="session")
def sshd(rig: Rig) -> Iterator[Sshd]:
    """A login node that is reached by SSH: `sshd.host`, `sshd.port`, `sshd.known_hosts`."""
    with _borrowed(rig, "sshd"):
        yield rig.sshd


@pytest.fixture(scope="session")
def hub(rig: Rig, slurm: Slurm, apptainer: Apptainer) -> Iterator[Hub]:
    """A JupyterHub of this session's own on the cluster, with the persons `hub.accounts["alice"]` and `["bob"]`."""
    hub = Hub(rig.folder, slurm, apptainer, f"tests-{os.getpid()}")
    try:
        with packages.machine():
            hub.start(settings=HUB_SETTINGS)
    except RigError as error:
        pytest.skip(f"rig: {error}")
    yield hub
    hub.stop()


@pytest.fixture
def user(rig: Rig, request: pytest.FixtureRequest) -> Iterator[User]:
    """An ordinary user with an empty home: ``user.run([...], network=False)``."""
    try:
        user = rig.user
    except RigError as error:
        pytest.skip(f"rig: {error}")
    yield user
    rig.slurm.cancel(user.uid)
    if "htcondor" in request.fixturenames:
        rig.htcondor.remove(user.uid)
    user.clean()


@pytest.fixture(scope="session")
def builder(rig: Rig) -> Builder:
    """An ordinary user with podman and buildah, whose home and images outlive the tests."""
    try:
        with packages.machine():
            return rig.builder
    except RigError as error:
        pytest.skip(f"rig: {error}")


@pytest.fixture
def open_tmp_path() -> Iterator[Path]:
    """A folder that every user can read; `tmp_path` is closed to all but the one who runs pytest."""
    with tempfile.TemporaryDirectory(prefix="hpcbinder-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Fast tests first, those of the rig then, heavy ones last; a test that asks for a part is one of the rig's."""
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        if _PARTS & _asked(item):
            item.add_marker("rig")
        files.setdefault(item.path, []).append(item)
    for tests in files.values():
        # A file's are in one group: what it makes for all of them is made once.
        sharing = [item for item in tests if not _asked(item).isdisjoint(_GROUPS.values())]
        names = set().union(*(_asked(item) for item in sharing))
        for group in [group for group, part in _GROUPS.items() if part in names][:1]:
            for item in sharing:
                if item.get_closest_marker("xdist_group") is None:
                    item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: 2 if item.get_closest_marker("heavy") else 1 if item.get_closest_marker("rig") else 0)
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=_turn)


def _asked(item: pytest.Item) -> set[str]:
    return set(getattr(item, "fixturenames", ()))


def _turn(item: pytest.Item) -> int:
    """When it is handed out: the long groups after the fast tests, so that each process has one, and the rest when they
    end, what takes longest first."""
    if item.get_closest_marker("xdist_group"):
        return 1
    if item.get_closest_marker("heavy"):
        return 2
    return 3 if item.get_closest_marker("rig") else 0


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Bytes do not name a test: some hold the time of day (gzip), and all processes must call it the same."""
    return argname if isinstance(val, bytes) else None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With ``--dist=loadgroup`` what is in no group stays together by files: they have fixtures and folders of their
    own."""
    if config.getoption("dist") != "loadgroup":
        return None
    from xdist.scheduler import LoadGroupScheduling

    class Scheduling(LoadGroupScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return str(super()._split_scope(nodeid)).partition("::")[0]

    return Scheduling(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a skip nobody agreed to is a failure."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail"):
        _judge(report, item.nodeid)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a whole file that skips itself."""
    report = yield
    if report.skipped:
        _judge(report, collector.nodeid)
    return report


def _judge(report: pytest.TestReport | pytest.CollectReport, nodeid: str) -> None:
    for group in _GROUPS:  # pytest-xdist writes it behind the name
        nodeid = nodeid.removesuffix(f"@{group}")
    if os.environ.get("CI") and not any(pattern.fullmatch(nodeid) for pattern in allowed_skips(_ALLOWED.read_text())):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{reason}\nCI is set, and this test is not on tests/{_ALLOWED.name}"


def allowed_skips(text: str) -> list[re.Pattern[str]]:
    """Read the list of tests that may skip in CI.

    Args:
        text: Lines ``NODEID  # REASON``; ``*`` in the node id stands for anything; other lines are comments or empty.

    Raises:
        ValueError: a line has no reason.
    """
    patterns = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            nodeid, hash_, reason = line.partition("  # ")
            if not hash_ or not reason.strip():
                raise ValueError(f"{_ALLOWED.name}:{number}: NODEID, two blanks, # and a reason are wanted")
            patterns.append(re.compile(re.escape(nodeid.strip()).replace(r"\*", ".*"), re.DOTALL))
    return patterns
