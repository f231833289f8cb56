"""Packages from imports: what the table holds, and what is done with names that it does not."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest
from checkouts import fill, plan_of, reason
from notebook_files import notebook
from packaging.requirements import Requirement
from recorded_index import RecordedResolver

import hpcbinder.plan.code as code
from hpcbinder.errors import DetectError
from hpcbinder.model import Lock, Plan, Wanted
from hpcbinder.plan import load_packs, parse_toml

FOLDER = Path(code.__file__).parent.parent / "buildpacks" / "infer"
TABLE = parse_toml((FOLDER / "modules.toml").read_text(), "modules.toml")
STANDARD = parse_toml((FOLDER / "stdlib.toml").read_text(), "stdlib.toml")


class Index(RecordedResolver):
    """An index that has some names, and only those versions."""

    def __init__(self, *names: str) -> None:
        super().__init__(packages=dict.fromkeys(names, ("1.0", ())))

    def known(self, wanted: Wanted, *, built: bool) -> frozenset[str]:
        return frozenset(line for line in super().known(wanted, built=built) if not line.endswith("==0.0"))


def inferred(folder: Path, *cells: str, index: Sequence[str] = (), **files: str) -> Plan:
    (folder / "a.ipynb").write_bytes(notebook(*cells))
    return plan_of(folder, {name.replace("__", "."): text for name, text in files.items()}, resolver=Index(*index))


def names(plan: Plan) -> list[str]:
    return [found.requirement for found in plan.inferred]


def told(plan: Plan) -> list[str]:
    return [f"{'used' if d.used else 'not used'}: {d.reason}" for d in plan.decisions]


def gathering(folder: Path) -> ModuleType:
    """The pack's own module, which is there once the pack was asked."""
    (folder / "a.ipynb").write_bytes(notebook("1"))
    plan_of(folder, resolver=Index())
    paths = {name: getattr(module, "__file__", None) or "" for name, module in sys.modules.items()}
    return next(sys.modules[name] for name, path in paths.items() if path.endswith("infer/gather.py"))


def test_the_table_is_sound() -> None:
    same, mapped, own = TABLE["same"], TABLE["modules"], TABLE["own"]
    assert len(same) == len({*same}) and {*same}.isdisjoint(own) and {*mapped}.isdisjoint([*same, *own])
    for requirement in [*mapped.values(), *same, *(also["requirement"] for also in TABLE["also"])]:
        assert Requirement(requirement).url is None
    assert {*TABLE["nowhere"]}.isdisjoint([*mapped, *same])
    for also in TABLE["also"]:
        re.compile(also["pattern"])
    standard = {*STANDARD["always"], *STANDARD["two"], *STANDARD["since"], *STANDARD["until"]}
    assert standard.isdisjoint([*mapped, *same])
    for packages in [*TABLE["system"].values(), *TABLE["debian"].values()]:
        assert all(re.fullmatch(r"[a-z0-9][a-z0-9+.-]+", name) for name in packages)


@pytest.mark.parametrize(
    ("module", "distribution"),
    [
        ("cv2", "opencv-python-headless"),
        ("sklearn", "scikit-learn"),
        ("PIL", "pillow"),
        ("yaml", "PyYAML"),
        ("skimage", "scikit-image"),
        ("bs4", "beautifulsoup4"),
        ("dateutil", "python-dateutil"),
        ("serial", "pyserial"),
        ("Crypto", "pycryptodome"),
        ("OpenSSL", "pyOpenSSL"),
        ("attr", "attrs"),
        ("mpl_toolkits", "matplotlib"),
        ("pkg_resources", "setuptools<81"),
    ],
)
def test_well_known_traps(module: str, distribution: str) -> None:
    assert TABLE["modules"][module] == distribution


def test_a_version_that_is_not_there_gives_way(tmp_path: Path) -> None:
    plan = inferred(tmp_path, "!pip install numpy==0.0\nimport numpy")
    assert names(plan) == ["numpy"]
    assert "there is no ==0.0 for Python 3.11" in reason(plan, "a.ipynb")


def test_versions_that_do_not_go_together_give_way(tmp_path: Path) -> None:
    class AtOdds(Index):
        def __call__(self, wanted: Wanted) -> Lock:
            if any("==" in line for line in wanted.requirements):
                raise DetectError("no versions fit together")
            return super().__call__(wanted)

    (tmp_path / "a.ipynb").write_bytes(notebook("!pip install numpy==1 scipy\nimport pkg_resources"))
    plan = plan_of(tmp_path, resolver=AtOdds("setuptools"))
    assert names(plan) == ["numpy", "scipy", "setuptools<81"]
    assert "this version does not go with the others" in reason(plan, "a.ipynb")


def test_what_fits_together_in_no_version(tmp_path: Path) -> None:
    class Never(Index):
        def __call__(self, wanted: Wanted) -> Lock:
            raise DetectError("no versions fit together", hint="ask for others")

    (tmp_path / "a.ipynb").write_bytes(notebook("import numpy"))
    with pytest.raises(DetectError) as caught:
        plan_of(tmp_path, resolver=Never())
    assert "ask for others; these are what the code imports" in (caught.value.hint or "")


def test_a_file_that_names_packages_is_enough(tmp_path: Path) -> None:
    for file, text in (
        ("requirements.txt", "numpy"),
        ("Pipfile", "[packages]\nnumpy='*'"),
    ):
        folder = tmp_path / file.partition(".")[0]
        folder.mkdir()
        fill(folder, {file: text})
        assert inferred(folder, "import pandas").inferred == ()


PROJECT = "[project]\nname='fitter'\nversion='1'\ndependencies=['numpy']\n[build-system]\nrequires=['setuptools']\n"


def test_what_its_project_does_not_bring(tmp_path: Path) -> None:
    plan = inferred(tmp_path, "import numpy, pandas, fitter", "import squat", index=["squat"], pyproject__toml=PROJECT)
    assert names(plan) == ["pandas"] and plan.asked["python"] == ("numpy", "pandas")
    assert "squat" not in {package.name for package in plan.locks[0].packages}
    (missed,) = (decision.reason for decision in plan.decisions if not decision.used)
    assert "imports squat (cell 2): it is not known which package that is" in missed


def test_a_lock_of_the_project_is_enough(tmp_path: Path) -> None:
    own = "[[package]]\nname = 'fitter'\nversion = '1'\nsource = {virtual = '.'}\n"
    lock = f"version = 1\nrequires-python = '>=3.9'\n{own}"
    assert inferred(tmp_path, "import pandas", pyproject__toml=PROJECT, uv__lock=lock).inferred == ()


@pytest.mark.parametrize(
    ("refused", "expected"),
    [("six==1.0", ["six", "matplotlib>=1"]), ("matplotlib", []), ("numpy", None)],
)
def test_the_project_goes_before_what_it_does_not_name(
    tmp_path: Path, refused: str, expected: list[str] | None
) -> None:
    """Versions of cells give way, then all that does not fit; what the project wants itself is refused as ever."""

    class AtOdds(Index):
        def __call__(self, wanted: Wanted) -> Lock:
            if any(line.startswith(refused) for line in wanted.requirements):
                raise DetectError("no versions fit together")
            return super().__call__(wanted)

    extras = (
        "[project.optional-dependencies]\nplots = ['matplotlib', 'matplotlib>=1', 'matplotlib @ https://a.example/m']\n"
    )
    fill(tmp_path, {"pyproject.toml": PROJECT + extras})
    (tmp_path / "a.ipynb").write_bytes(notebook("!pip install six==1.0\nimport matplotlib"))
    if expected is None:
        with pytest.raises(DetectError, match="no versions fit together"):
            plan_of(tmp_path, resolver=AtOdds())
        return
    plan = plan_of(tmp_path, resolver=AtOdds())
    assert names(plan) == expected
    assert "go with what the project depends on" in reason(plan, "a.ipynb")


def test_a_pyproject_of_tools_alone_names_none(tmp_path: Path) -> None:
    assert names(inferred(tmp_path, "import pandas", pyproject__toml="[tool.black]\nline-length = 100\n")) == ["pandas"]


def test_what_cells_write_is_the_repository_s_own(tmp_path: Path) -> None:
    plan = inferred(tmp_path, "%%writefile made/of_cells.py\nx = 1", "import of_cells, numpy", index=["of-cells"])
    assert names(plan) == ["numpy"]


def test_each_folder_s_own_module_of_one_name(tmp_path: Path) -> None:
    for number in (1, 2):
        fill(tmp_path / f"ch{number}", {"mine.py": f"import squat{number}\n", "a.ipynb": notebook("import mine")})
    plan = plan_of(tmp_path, resolver=Index("squat1", "squat2"))
    assert sorted(names(plan)) == ["squat1", "squat2"]


def test_what_is_guessed_must_be_there_as_a_wheel(tmp_path: Path) -> None:
    (tmp_path / "a.ipynb").write_bytes(notebook("import docopt, to_build"))
    plan = plan_of(tmp_path, resolver=RecordedResolver(packages={"to-build": ("", ())}))
    assert names(plan) == ["docopt"]
    assert "the index has no wheel of a package to_build" in [d.reason for d in plan.decisions if not d.used][0]


def test_names_that_are_guessed_have_a_limit(tmp_path: Path) -> None:
    many = [f"squat{number}" for number in range(40)]
    plan = inferred(tmp_path, f"import {', '.join(many)}", index=many)
    assert len(plan.inferred) == 30 and not any(found.certain for found in plan.inferred)
    assert sum("too many modules are not known" in d.reason for d in plan.decisions) == 10


def test_a_name_that_only_a_script_imports_is_not_guessed(tmp_path: Path) -> None:
    plan = inferred(tmp_path, "import numpy", index=["cowsay"], aside__py="import cowsay, scipy")
    assert names(plan) == ["numpy", "scipy"]


def test_nothing_is_asked_for_what_code_does_not_need(tmp_path: Path) -> None:
    resolver = RecordedResolver()
    (tmp_path / "a.ipynb").write_bytes(notebook("import os"))
    plan = plan_of(tmp_path, resolver=resolver)
    assert plan.inferred == () and [wanted.requirements for wanted in resolver.asked] == [("ipykernel", "pip")]


def test_limits_cut_and_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "MOST_NOTEBOOKS", 2)
    monkeypatch.setattr(code, "SCRIPT_BYTES", 40)
    for number in range(4):
        (tmp_path / f"{number}.ipynb").write_bytes(notebook("import numpy" if number < 2 else "import pandas"))
        (tmp_path / f"s{number}.py").write_text("import scipy  # ----------\n" if number else "import matplotlib\n")
    plan = plan_of(tmp_path, resolver=RecordedResolver())
    assert names(plan) == ["numpy", "matplotlib"]
    assert reason(plan, "2.ipynb") == "not used: not looked at, like 1 more after it: there are too many notebooks"
    assert reason(plan, "s1.py") == "not used: not looked at, like 2 more after it: there are too many scripts"


def test_no_pack_that_could_install_them(tmp_path: Path) -> None:
    (tmp_path / "a.ipynb").write_bytes(notebook("import graphviz"))
    with pytest.raises(DetectError, match="needs the Debian package graphviz") as caught:
        plan_of(tmp_path, without=["apt"], resolver=Index("graphviz"))
    assert "--without infer" in (caught.value.hint or "")
    assert plan_of(tmp_path, without=["python"], resolver=Index()).inferred == ()


def test_a_plan_says_it_as_data(tmp_path: Path) -> None:
    from hpcbinder.model import to_json

    plan = inferred(tmp_path, "x = 1", "import yaml", index=["pyyaml"])
    (told,) = json.loads(json.dumps(to_json(plan)))["inferred"]
    assert told == {"requirement": "PyYAML", "because": "import yaml", "file": "a.ipynb", "cell": 2, "certain": True}
    assert [pack.name for pack in load_packs(())].index("infer") < [p.name for p in load_packs(())].index("python")


@pytest.mark.parametrize("module", ["m\u00f3dulo", "foo_"])
def test_no_package_can_have_a_module_s_name(tmp_path: Path, module: str) -> None:
    plan = inferred(tmp_path, f"import numpy, {module}", f"%pip install {module}", index=["foo_"])
    assert names(plan) == ["numpy"]
    assert any(f"pip install {module}, no name on the index" in d.reason for d in plan.decisions)
    (tmp_path / "aside").mkdir()
    aside = inferred(tmp_path / "aside", f"import numpy, {module}", index=["foo_"])
    assert names(aside) == ["numpy"]
    assert f"not used: imports {module} (cell 1): no package can have that name" in told(aside)


def test_only_so_much_code_is_parsed_and_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering(tmp_path), "_MOST_PARSED", 100)
    cells = ("import numpy", f"import scipy{' ' * 70}", f"import pandas{' ' * 80}", "import yaml")
    plan = inferred(tmp_path, *cells, index=["numpy", "scipy", "pandas"])
    assert names(plan) == ["numpy", "scipy"]
    assert "not used: imports from cell 3 on are not looked for: there is too much code" in told(plan)


def test_only_so_many_imports_count_and_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering(tmp_path), "_MOST_IMPORTS", 2)
    plan = inferred(tmp_path, "import numpy", "import scipy", "import pandas")
    assert names(plan) == ["numpy", "scipy"]
    assert "not used: imports from cell 3 on are not looked for: there are too many" in told(plan)


def test_many_imports_in_many_folders_are_short_work(tmp_path: Path) -> None:
    files = {f"{'d/' * 20}f{number}/own{number}.py": "" for number in range(500)}
    (tmp_path / "a.ipynb").write_bytes(notebook("".join(f"import x{number}\n" for number in range(20_000))))
    begin = time.monotonic()
    plan = plan_of(tmp_path, files, resolver=Index())
    assert time.monotonic() - begin < 10
    assert plan.inferred == ()
