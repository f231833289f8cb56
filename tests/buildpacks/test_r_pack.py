"""The pack for R: what is read of its files, and where the packages come from. What R makes of it: test_r_image.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from checkouts import plan_of, reason, step
from hypothesis import given
from hypothesis import strategies as st

from hpcbinder.buildpacks.r.debian import RELEASES, at_least, debian_name, packages, same
from hpcbinder.buildpacks.r.script import read_script
from hpcbinder.errors import DetectError
from hpcbinder.plan import SUITES


def installs(text: str) -> tuple[list[str], bool]:
    script = read_script(text, lambda name: name.startswith("deb"))
    assert [len(line) for line in script.rest.split("\n")] == [len(line) for line in text.split("\n")]
    return [install.name for install in script.installs], script.runs


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('install.packages("abc")', ["abc"]),
        ("install.packages('abc', repos='http://cran.us.r-project.org')\n# done", ["abc"]),
        ('install.packages(c("R6",\n  "data.table"), dependencies = TRUE, Ncpus = 4)', ["R6", "data.table"]),
        ('utils::install.packages("abc"); install.packages(pkgs = "def", quiet=T)', ["abc", "def"]),
        ('all <- c("abc", "def")\ninstall.packages(all)', ["abc", "def"]),
        ('options(repos = c(CRAN = "https://cloud.r-project.org"))\ninstall.packages("abc")', ["abc"]),
        ('BiocManager::install(c("deb1", "deb2"), ask = FALSE)', ["deb1", "deb2"]),
        ('install.packages("abc", repos = "https://packagemanager.posit.co/cran/2023-01-01")', ["abc"]),
        ("\n\n# nothing\n", []),
    ],
)
def test_statements_that_only_install_are_taken_out(text: str, names: list[str]) -> None:
    assert installs(text) == (names, False)


@pytest.mark.parametrize(
    "text",
    [
        'if (!require("abc"))\n  install.packages("abc")',
        'for (x in 1)\n\n install.packages("abc")',
        'f <- function()\n  install.packages("abc")',
        'x <-\n install.packages("abc")',
        'if (a) { b } else\n install.packages("abc")',
        '{\n  install.packages("abc")\n}',
        'install.packages("abc", lib = "/x")',
        'install.packages("abc", "/x")',
        'install.packages("abc", type = "source")',
        'install.packages("abc", repos = NULL)',
        'install.packages("abc", repos = "https://inla.r-inla-download.org/R/stable")',
        'install.packages("abc_1.0.tar.gz")',
        "install.packages(names)",
        'n <- "abc"\nn <- "def"\ninstall.packages(n)',
        'install.packages(paste0("a", "bc"))',
        'install.packages("abc")$x',
        'BiocManager::install(c("deb1", "other"))',
        'devtools::install_github("a/b")',
        'install.packages("abc"',
        'x = r"(install.packages("abc"))"\ninstall.packages("abc")',
        '"\ninstall.packages("abc")\n"',
        "install.packages('abc', repos = 'https://example.org/?https://cloud.r-project.org')",
    ],
)
def test_all_else_is_run(text: str) -> None:
    assert installs(text) == ([], True)


@given(st.text("abc.install.packages()\"'\\,;={}[]# \n<-", max_size=200))
def test_whatever_stands_in_a_script_its_lines_stay(text: str) -> None:
    installs(text)


def test_what_is_run_keeps_its_lines_and_says_what_it_needs() -> None:
    text = 'install.packages("abc")\nlibrary(deb)\nremotes::install_github("a/b")\n'
    script = read_script(text, lambda name: False)
    assert script.rest == f'{" " * 23}\nlibrary(deb)\nremotes::install_github("a/b")\n'
    assert script.mentions == ("deb", "remotes")


def test_versions_are_compared_as_r_does() -> None:
    assert at_least("1.10", "1.9") and at_least("7.3-58.2", "7.3.58.2") and not at_least("3.4.1", "3.5.0")
    assert same("1.0-9", "1.0.9") and not same("1.0", "1.0.1")


def test_every_release_has_what_an_image_needs() -> None:
    assert set(RELEASES) == {name for name in SUITES if name != "buster"}
    for suite in RELEASES:
        assert debian_name("IRkernel", suite) == "r-cran-irkernel"
        assert debian_name("DESeq2", suite) == "r-bioc-deseq2"
        assert debian_name("no.such.package", suite) is None
        assert len(packages(suite)) > 1000


@pytest.mark.parametrize(
    ("files", "suite"),
    [
        ({"runtime.txt": "r-4.5-2025-06-01\n"}, "trixie"),
        ({"runtime.txt": "r-4.2-2025-06-01\n"}, "bookworm"),
        ({"runtime.txt": "r-4.3"}, "trixie"),
        ({"runtime.txt": "r-3.4-2018-01-01"}, "bookworm"),
        ({"runtime.txt": "r-2025-06-01"}, "trixie"),
        ({"runtime.txt": "r-2023-06-01"}, "bookworm"),
        ({"DESCRIPTION": "Package: a\nDepends: R (>= 4.3)\n"}, "trixie"),
        ({"DESCRIPTION": "Package: a\nDepends: R (>= 4.1)\n"}, "bookworm"),
        ({"renv.lock": '{"R": {"Version": "4.5.2"}, "Packages": {}}'}, "trixie"),
        # What names a Python counts more.
        ({"runtime.txt": "r-4.5-2025-06-01\n", ".python-version": "3.11"}, "bookworm"),
    ],
)
def test_the_debian_release_whose_r_comes_nearest(tmp_path: Path, files: dict[str, str | bytes], suite: str) -> None:
    plan = plan_of(tmp_path, files)
    assert plan.base.suite == suite
    asked = next(file for file in files if file != ".python-version")
    assert f"R {RELEASES[suite].version} of Debian {suite}" in reason(plan, asked)


def test_cran_is_asked_as_of_the_day_that_is_named(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {"runtime.txt": "r-4.2-2023-06-01", "install.R": 'install.packages("notdebians")'}
    run = step(plan_of(tmp_path, files), "r/packages")
    assert (run.data["date"], run.data["suite"], run.data["packages"]) == (
        "2023-06-01\n",
        "bookworm\n",
        "notdebians *\n",
    )
    assert run.runs_repository_code and not run.caches
    (tmp_path / "runtime.txt").write_text("r-2015-01-01")
    assert step(plan_of(tmp_path), "r/packages").data["date"] == "2017-10-10\n"


def test_nothing_of_the_home_folder_is_read_and_of_the_repository_what_r_would_read(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {"install.R": "", ".Rprofile": "options(digits = 3)\n"})
    assert plan.env["R_LIBS_USER"] == plan.env["R_ENVIRON_USER"] == "/nonexistent"
    assert plan.env["R_PROFILE_USER"] == "/srv/repo/.Rprofile"
    plan = plan_of(tmp_path, {".Rprofile": 'source("renv/activate.R")\n'})
    assert plan.env["R_PROFILE_USER"] == "/nonexistent"
    assert reason(plan, ".Rprofile").startswith("not used: starts renv")


def test_the_kernel_is_there_without_running_anything(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {"install.R": 'install.packages("digest")'})
    assert plan.labels["org.hpcbinder.kernels"] == "python3 ir"
    assert all(s.assembly is not None for s in plan.steps if s.name.startswith(("r/", "apt/")))


def test_a_script_gets_the_files_it_names(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "binder/install.R": 'source("R/a.R")\nx <- read.csv("./data/x.csv")\ny <- dir("more")',
        "R/a.R": "",
        "data/x.csv": "",
        "more/y": "",
        "other": "",
    }
    assert step(plan_of(tmp_path, files), "r/install").reads == ("R/a.R", "binder/install.R", "data/x.csv", "more/y")


def test_without_r_its_files_say_nothing(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {"install.R": "x", "runtime.txt": "r-4.2"}, without=["r"])
    assert not [s for s in plan.steps if s.name.startswith("r/")]
    assert reason(plan, "install.R") == "not used: left out by --without r"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"runtime.txt": "r-4.2-2023-02-30"}, r"^runtime.txt:1: 'r-4.2-2023-02-30' is no version of R"),
        ({"DESCRIPTION": "Package: a\nImports: b (> = 1)\n"}, r"^DESCRIPTION:2: Imports has 'b \(> = 1\)'"),
        ({"DESCRIPTION": "Package: a\nwhat\n"}, r"^DESCRIPTION:2: 'what' is no field"),
        ({"renv.lock": "{\n!"}, r"^renv.lock:2: is no lock of renv"),
        ({"renv.lock": '{"Packages": {"a;b": {"Version": "1"}}}'}, r"^renv.lock:1: 'a;b' has no version"),
        ({"renv.lock": '{"Packages":\n {"abc": {"Version": "1\\n2"}}}'}, r"^renv.lock:2: 'abc' has no version"),
    ],
)
def test_what_cannot_be_read_is_said_with_its_line(tmp_path: Path, files: dict[str, str | bytes], message: str) -> None:
    with pytest.raises(DetectError, match=message):
        plan_of(tmp_path, files)
