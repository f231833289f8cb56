"""Which Python, where no file names one: notebooks, pins and dates move the choice, and never refuse."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from checkouts import checkout_of, fill, plan_of, reason, step
from recorded_index import RecordedResolver

from hpcbinder.errors import DetectError, OldMetadataError, RegistryError
from hpcbinder.model import AsOf, BaseRef, Lock, Plan, Python, Wanted
from hpcbinder.plan import Foundation, debian_python, load_packs, make_plan


@dataclass
class Offer:
    """Interpreters, some of which cannot be had in the end.

    Attributes:
        asked: Those that were tried.
    """

    out_of_reach: Sequence[str] = ()
    asked: list[str] = field(default_factory=list)

    def __call__(self, python: Python, architecture: str) -> Foundation:
        self.asked.append(f"{python.version} {python.origin}")
        if python.origin in self.out_of_reach:
            raise RegistryError("the registry is silent")
        base = BaseRef(f"debian:{python.suite}", python.suite, "3.11", architecture, "1")
        return Foundation(base, python, debian_python(python.suite))


def python(full: str, origin: str = "folder") -> Python:
    return Python(".".join(full.split(".")[:2]), full, "bookworm", origin, f"/opt/python/{full}", f"/{origin}")


def notebook(version: str = "", kernel: str = "python3", code: str = "1") -> str:
    cells = [{"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": [], "source": [code]}]
    metadata = {"kernelspec": {"name": kernel, "language": "python"}, "language_info": {"version": version}}
    return json.dumps({"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 2})


def plan(
    folder: Path, files: dict[str, str], pythons: Sequence[Python] = (), *, offer: Offer | None = None, as_of: str = ""
) -> Plan:
    date = AsOf(f"{as_of}T23:59:59Z", "a test's") if as_of else None
    return planned(folder, files, pythons, stand=offer or Offer(), as_of=date)


def planned(folder: Path, files: dict[str, str], pythons: Sequence[Python], **options: Any) -> Plan:
    """What `plan_of` does, where other interpreters than Debian's can be had."""
    options = {"stand": Offer(), **options}
    checkout = checkout_of(fill(folder, files))
    return make_plan(
        checkout, packs=load_packs(()), suite="bookworm", architecture="amd64", pythons=tuple(pythons), **options
    )


@pytest.mark.parametrize(
    ("notebooks", "expected"),
    [
        ({"a.ipynb": notebook("3.6.4")}, "3.6"),
        ({"a.ipynb": notebook("3.13.1")}, "3.13"),
        ({"a.ipynb": notebook("2.7.6", "python2"), "b.ipynb": notebook("3.6.1"), "c.ipynb": notebook("3.6.2")}, "3.6"),
        # As many: the newer one.
        ({"a.ipynb": notebook("2.7.6", "python2"), "b.ipynb": notebook("3.6.1")}, "3.6"),
        ({"a.ipynb": notebook(kernel="python2")}, "2.7"),
        ({"a.ipynb": notebook("2.6.1")}, "2.7"),
        ({"a.ipynb": notebook(code="%%time\nprint 'old'")}, "2.7"),
        ({"a.ipynb": notebook(code="try:\n    pass\nexcept ValueError, error:\n    pass")}, "2.7"),
        ({"a.py": "raise ValueError, 'old'\n"}, "2.7"),
        # A notebook that says nothing, and a script that is another matter.
        ({"a.ipynb": notebook(), "a.py": "print 'old'\n"}, "3.11"),
        ({"a.ipynb": notebook(code="%%bash\nprint 'x'")}, "3.11"),
        ({"a.ipynb": notebook("3.9.1", code="print 'a page about Python 2'")}, "3.11"),
        ({"a.py": '"""\nprint this\n"""\n'}, "3.11"),
        ({"a.ipynb": notebook("99.1")}, "3.11"),
        ({"a.ipynb": notebook("3.3.1")}, "3.11"),
        ({"a.ipynb": "{"}, "3.11"),
    ],
)
def test_what_notebooks_and_scripts_tell(tmp_path: Path, notebooks: dict[str, str], expected: str) -> None:
    made = plan(tmp_path, notebooks, [python("2.7.18"), python("3.6.15")])
    assert made.python.version == expected


def test_a_registry_is_asked_only_where_the_usual_python_is_too_new(tmp_path: Path) -> None:
    images = [python("3.12.99", "image"), python("3.8.99", "image"), python("3.7.99", "image")]
    for as_of, asked in (("", "3.11 debian"), ("2023-06-01", "3.11 debian"), ("2019-06-01", "3.7 image")):
        offer = Offer()
        made = plan(tmp_path, {"a.ipynb": notebook("3.7.1")}, images, offer=offer, as_of=as_of)
        assert offer.asked == [asked]
        assert reason(made, "a.ipynb").startswith("used" if asked.startswith("3.7") else "not used")


def test_a_registry_that_cannot_be_asked_is_asked_once_and_refuses_nothing(tmp_path: Path) -> None:
    offered = [python("3.8.99", "image"), python("3.7.99", "image"), python("3.9.2")]
    offer = Offer(out_of_reach=["image"])
    made = plan(tmp_path, {"a.ipynb": notebook("3.7.1")}, offered, offer=offer, as_of="2019-06-01")
    assert offer.asked == ["3.7 image", "3.9 folder"]
    assert reason(made, "a.ipynb") == "not used: last run with Python 3.7; it cannot be had: the registry is silent"


def test_what_only_an_engine_builds_is_not_taken_for_a_likelihood(tmp_path: Path) -> None:
    older = [python("3.9.2", "packages"), python("2.7.18", "packages")]
    assert plan(tmp_path / "a", {"a.ipynb": notebook("3.9.1")}, older, as_of="2019-06-01").python.version == "3.11"
    assert plan(tmp_path / "b", {"a.py": ""}, older, as_of="2019-06-01").python.version == "3.11"
    assert plan(tmp_path / "c", {"a.ipynb": notebook("2.7.6", "python2")}, older).python.version == "2.7"
    assert plan(tmp_path / "d", {"a.py": "", "runtime.txt": "python-3.9"}, older).python.version == "3.9"


@pytest.mark.parametrize(
    ("lines", "offered", "expected"),
    [
        ("numpy==1.21.6", ["3.6.15", "3.9.18", "3.10.13"], "3.10"),
        ("numpy==1.21.6\npandas==1.2.5", ["3.6.15", "3.9.18", "3.10.13"], "3.9"),
        ("numpy==1.16.4", ["2.7.18", "3.6.15"], "3.6"),
        ("numpy==1.16.4", ["2.7.18"], "2.7"),
        ("numpy==1.16.4", [], "3.11"),
        ("numpy==1.16.4; python_version < '3'", ["3.6.15"], "3.11"),
        ("numpy>=1.16.4", ["3.6.15"], "3.11"),
        ("numpy==1.16.*", ["3.6.15"], "3.11"),
        ("numpy==1.26.4", ["3.6.15"], "3.11"),
        ("numpy==2.5.0", ["3.12.1"], "3.13"),
        ("unheard-of==1.0", ["3.6.15"], "3.11"),
    ],
)
def test_pins_have_wheels_for_some_pythons(tmp_path: Path, lines: str, offered: list[str], expected: str) -> None:
    made = plan(tmp_path, {"requirements.txt": lines}, [python(full) for full in offered])
    assert made.python.version == expected


def test_pins_count_more_than_notebooks(tmp_path: Path) -> None:
    files = {"requirements.txt": "numpy==1.21.6", "a.ipynb": notebook("3.6.4")}
    made = plan(tmp_path, files, [python("3.6.15"), python("3.9.18")])
    assert made.python.version == "3.9"
    # Among those that the pins leave, it is the notebooks' one.
    files["a.ipynb"] = notebook("3.8.1")
    assert plan(tmp_path, files, [python("3.8.18"), python("3.9.18")]).python.version == "3.8"


@pytest.mark.parametrize(
    ("as_of", "expected"),
    [("", "3.11"), ("2024-01-01", "3.11"), ("2021-06-01", "3.9"), ("2019-03-01", "3.7"), ("2015-01-01", "3.7")],
)
def test_the_date_of_the_versions(tmp_path: Path, as_of: str, expected: str) -> None:
    offered = [python("2.7.18"), python("3.7.16"), python("3.9.18")]
    made = plan(tmp_path, {"requirements.txt": "six"}, offered, as_of=as_of)
    assert made.python.version == expected


def test_the_next_one_of_the_same_version_where_a_registry_is_silent(tmp_path: Path) -> None:
    offered = [python("3.9.99", "image"), python("3.9.2", "packages")]
    made = plan(tmp_path, {"runtime.txt": "python-3.9"}, offered, offer=Offer(out_of_reach=["image"]))
    assert made.python.origin == "packages"
    with pytest.raises(RegistryError, match="silent"):
        plan(tmp_path, {"runtime.txt": "python-3.9"}, offered[:1], offer=Offer(out_of_reach=["image"]))


@pytest.mark.parametrize(
    ("evidence", "as_of", "offered", "since", "expected"),
    [
        # The nearest newer one of those that were out by then, or of any; never an older one.
        ({"a.ipynb": notebook("3.7.1")}, "2020-07-01", ["3.6.15", "3.7.16", "3.8.18", "3.9.18"], "3.9", "3.9"),
        ({"a.ipynb": notebook("3.7.1")}, "2020-07-01", ["3.6.15", "3.7.16", "3.8.18"], "3.9", "3.11"),
        # Without a date the notebooks' own or the usual one.
        ({"a.ipynb": notebook("3.7.1")}, "", ["3.7.16", "3.9.18"], "3.8", "3.11"),
        ({"a.ipynb": notebook("3.13.1")}, "", [], "3.14", None),
        ({"a.py": ""}, "2020-07-01", ["3.7.16", "3.9.18", "3.10.13"], "3.10", "3.10"),
        # What a file asks for is more than likely.
        ({"runtime.txt": "python-3.7"}, "2020-07-01", ["3.7.16", "3.9.18"], "3.9", None),
        ({"pyproject.toml": "[project]\nname = 'a'\nrequires-python = '==3.7.*'\n"}, "", ["3.7.16"], "3.9", None),
    ],
)
def test_a_python_that_is_only_likely_gives_way_where_nothing_fits(
    tmp_path: Path, evidence: dict[str, str], as_of: str, offered: list[str], since: str, expected: str | None
) -> None:
    resolver = RecordedResolver(packages={"jaxlib": ("0.4.30", ())}, since={"jaxlib": since})
    date = AsOf(f"{as_of}T23:59:59Z", "a test's") if as_of else None
    files, pythons = {"requirements.txt": "jaxlib", **evidence}, [python(full) for full in offered]
    if expected is None:
        with pytest.raises(DetectError, match="jaxlib has no wheels"):
            planned(tmp_path, files, pythons, resolver=resolver, as_of=date)
        return
    made = planned(tmp_path, files, pythons, resolver=resolver, as_of=date)
    assert made.python.version == expected
    assert [lock.python for lock in made.locks] == [expected]
    assert f"python {expected}" in step(made, "python/environment").reason.lower()
    told = [decision for decision in made.decisions if "no versions fit together" in decision.reason]
    file = "a.ipynb" if "a.ipynb" in evidence else "(date)"
    assert [(decision.file, decision.used) for decision in told] == [(file, False)]


def test_registries_that_are_silent_are_asked_once_for_another_python(tmp_path: Path) -> None:
    offered = [python("3.7.16"), python("3.8.99", "image"), python("3.9.99", "image")]
    resolver = RecordedResolver(packages={"jaxlib": ("0.4.30", ())}, since={"jaxlib": "3.9"})
    files = {"requirements.txt": "jaxlib", "a.ipynb": notebook("3.7.1")}
    offer = Offer(out_of_reach=["image"])
    date = AsOf("2020-07-01T23:59:59Z", "a test's")
    made = planned(tmp_path, files, offered, resolver=resolver, as_of=date, stand=offer)
    assert (made.python.version, offer.asked) == ("3.11", ["3.7 folder", "3.8 image", "3.11 debian"])


# What uv does not do.


def test_python_2_gets_an_environment_of_virtualenv_and_its_last_pip(tmp_path: Path) -> None:
    files = {"runtime.txt": "python-2.7", "requirements.txt": "six==1.16.0\ntornado==4.5.3"}
    resolver = RecordedResolver()
    made = planned(tmp_path, files, [python("2.7.18")], resolver=resolver)
    assert resolver.asked == []  # uv knows no such Python
    environment, packages = step(made, "python/environment"), step(made, "python/packages")
    assert "virtualenv==20.21.1 --hash=sha256:" in environment.data["virtualenv.txt"]
    assert environment.caches and not environment.runs_repository_code
    assert packages.runs_repository_code and not packages.caches and packages.assembly is None
    assert packages.data["requirements.txt"] == "six==1.16.0\ntornado==4.5.3\n"
    # What the repository pins is not limited otherwise.
    assert packages.data["constraints.txt"].split() == ["ipykernel<5", "ipython<6", "jupyter-client<6", "setuptools<45"]
    assert packages.data["pip.txt"] == ""
    assert made.labels["org.hpcbinder.kernels"] == "python2"


def test_a_lock_for_python_2_is_followed_by_pip(tmp_path: Path) -> None:
    sha = "a" * 64
    package = {"hashes": [f"sha256:{sha}"], "index": "pypi", "version": "==1.16.0"}
    sources = [{"name": "pypi", "url": "https://pypi.org/simple", "verify_ssl": True}]
    meta = {"hash": {"sha256": sha}, "pipfile-spec": 6, "requires": {"python_version": "2.7"}, "sources": sources}
    lock = json.dumps({"_meta": meta, "default": {"six": package}, "develop": {}})
    made = planned(tmp_path, {"Pipfile.lock": lock}, [python("2.7.18")])
    data = step(made, "python/packages").data
    assert data["locked.txt"] == f"six==1.16.0 --hash=sha256:{sha}\n"
    assert "six==1.16.0\n" in data["constraints.txt"]


@dataclass
class Refusing(RecordedResolver):
    """As uv does where a package says `pytz (>=2011k)`; tests/lock asks the real one."""

    def __call__(self, wanted: Wanted) -> Lock:
        raise OldMetadataError("no versions fit together: pandas==0.24.2 has invalid metadata")


@pytest.mark.parametrize(("full", "pip"), [("3.6.15", "pip==21.3.1"), ("3.7.16", "pip==24.0"), ("3.8.18", "pip==24.0")])
def test_what_uv_refuses_is_left_to_the_last_pip_that_takes_it(tmp_path: Path, full: str, pip: str) -> None:
    files = {"runtime.txt": f"python-{full}", "requirements.txt": "pandas==0.24.2"}
    made = planned(tmp_path, files, [python(full)], resolver=Refusing())
    packages = step(made, "python/packages")
    assert packages.data["pip.txt"].split()[0] == pip
    assert packages.reason.endswith("uv refuses what pandas says of itself")
    assert "virtualenv.txt" not in step(made, "python/environment").data
    assert made.labels["org.hpcbinder.kernels"] == "python3"


def test_a_lock_whose_pins_uv_refuses_is_followed_by_pip(tmp_path: Path) -> None:
    sha = "a" * 64
    package = {"hashes": [f"sha256:{sha}"], "index": "pypi", "version": "==0.24.2"}
    sources = [{"name": "pypi", "url": "https://pypi.org/simple", "verify_ssl": True}]
    meta = {"hash": {"sha256": sha}, "pipfile-spec": 6, "requires": {"python_version": "3.7"}, "sources": sources}
    files = {"Pipfile.lock": json.dumps({"_meta": meta, "default": {"pandas": package}, "develop": {}})}
    made = planned(tmp_path, files, [python("3.7.16")], resolver=Refusing())
    packages = step(made, "python/packages")
    assert packages.data["locked.txt"] == f"pandas==0.24.2 --hash=sha256:{sha}\n"
    assert "pandas==0.24.2" in packages.data["constraints.txt"].split()
    assert packages.data["pip.txt"].split()[0] == "pip==24.0"
    assert packages.reason.endswith("uv refuses what pandas says of itself")
    # A Python for which no old pip takes it.
    meta["requires"] = {"python_version": "3.11"}
    files = {"Pipfile.lock": json.dumps({"_meta": meta, "default": {"pandas": package}, "develop": {}})}
    with pytest.raises(DetectError, match="invalid metadata") as caught:
        planned(tmp_path, files, [], resolver=Refusing())
    assert caught.value.where == "Pipfile.lock"


def test_what_does_not_fit_together_is_still_an_error(tmp_path: Path) -> None:
    # Nothing is for this Python that an old pip would take.
    with pytest.raises(DetectError) as caught:
        planned(tmp_path, {"requirements.txt": "pandas==0.24.2"}, [], resolver=Refusing())
    assert caught.value.where == "requirements.txt" and not isinstance(caught.value, OldMetadataError)
    with pytest.raises(DetectError, match="no versions fit together"):
        plan_of(tmp_path, {"requirements.txt": "unheard-of"}, resolver=RecordedResolver())


def test_requirements3_takes_no_project(tmp_path: Path) -> None:
    files = {"runtime.txt": "python-2.7", "requirements3.txt": "six\n-e .\n", "setup.py": "import setuptools\n"}
    with pytest.raises(DetectError) as caught:
        planned(tmp_path, files, [python("2.7.18")])
    assert caught.value.where == "requirements3.txt:2"


@pytest.mark.parametrize("full", ["3.6.15", "3.7.16"])
@pytest.mark.parametrize("resolver", [None, RecordedResolver()])
def test_requirements3_runs_nothing_before_a_step_that_sees_the_login(
    tmp_path: Path, full: str, resolver: RecordedResolver | None
) -> None:
    # Its source packages run as root. The kernel python3 is the environment's: its wheels come in last.
    files = {"runtime.txt": f"python-{full}", "requirements.txt": "numpy", "requirements3.txt": "six"}
    made = planned(tmp_path, files, [python(full)], resolver=resolver)
    names = [s.name for s in made.steps]
    assert names.index("python/server") < names.index("python/wheels")
    late = made.steps[names.index("python/server") + 1 :]
    assert [s.name for s in late if not (s.runs_repository_code or s.apart)] == []
    (tmp_path / "requirements3.txt").unlink()
    del files["requirements3.txt"]
    assert step(planned(tmp_path, files, [python(full)], resolver=resolver), "python/wheels").apart == ()


def test_a_number_of_thousands_of_digits_is_no_evidence(tmp_path: Path) -> None:
    lines = f"numpy=={'9' * 5000}\npandas==1.0.0\n"
    made = plan(tmp_path, {"requirements.txt": lines}, [python("3.6.15"), python("3.9.18")])
    assert made.python.version == "3.6"
