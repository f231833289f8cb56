"""The packs for Julia, Spack, definition files of Apptainer and devcontainer.json: what they read and what they refuse.

Whole plans of them are in tests/plan/snapshots and tests/plan/repos; docs/support.md says what is built for real.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from pathlib import Path

import pytest
from checkouts import plan_of, reason, step

from hpcbinder.buildpacks.julia.versions import allows, releases
from hpcbinder.errors import DetectError

Files = dict[str, str | bytes]
UUID = "a93c6f00-e57d-5684-b7b6-d8193f3e46c0"


@pytest.mark.parametrize(
    ("spec", "yes", "no"),
    [
        ("1", ["1.0.0", "1.12.7"], ["2.0.0"]),
        ("1.6", ["1.6.0", "1.10.4"], ["1.5.4"]),
        ("^1.6.3", ["1.6.3", "1.7.0"], ["1.6.2"]),
        ("~1.6", ["1.6.7"], ["1.7.0", "1.5.9"]),
        ("~1", ["1.6.7"], ["2.0.0"]),
        ("~1.6.3", ["1.6.7"], ["1.7.0", "1.6.2"]),
        ("=1.9.4", ["1.9.4"], ["1.9.3"]),
        ("0.7, 1", ["0.7.5", "1.3.1"], ["0.8.0"]),
        ("^0.0.3", ["0.0.3"], ["0.0.4"]),
        ("0.0", ["0.0.9"], ["0.1.0"]),
        ("1.6 - 1.8", ["1.6.0", "1.8.5"], ["1.9.0"]),
        ("1.6.2 - 1.8.1", ["1.8.1"], ["1.8.2", "1.6.1"]),
        (">= 1.6", ["1.6.0", "2.1.0"], ["1.5.9"]),
        ("<1.10", ["1.9.4"], ["1.10.0"]),
        ("≤1.10", ["1.10.0"], ["1.10.1"]),
    ],
)
def test_what_compat_allows(spec: str, yes: list[str], no: list[str]) -> None:
    assert [allows(spec, version) for version in (*yes, *no)] == [True] * len(yes) + [False] * len(no)


def test_a_compat_that_cannot_be_read_allows_nothing_else() -> None:
    assert allows("latest", "1.0.0") is None


def test_releases_of_julia_are_pinned() -> None:
    for architecture, machine in (("amd64", "x86_64"), ("arm64", "aarch64")):
        there = releases(architecture)
        assert {"1.6.7", "1.10.4", "1.12.7"} <= set(there)
        assert all(len(release.sha256) == 64 and machine in release.path for release in there.values())


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"Project.toml": f'[deps]\nA = "{UUID}"\n[compat]\njulia = "2"\n'},
            "asks for Julia 2, which is not known here",
        ),
        (
            {"Project.toml": f'[deps]\nA = "{UUID}"\n', "Manifest.toml": 'julia_version = "3.0.1"\n'},
            r"^Manifest.toml: was made with Julia 3.0.1, which is not known here",
        ),
        (
            {
                "Project.toml": f'[deps]\nA = "{UUID}"\n',
                "Manifest.toml": f'julia_version = "1.10.4"\n[[deps.A]]\npath = "../A"\nuuid = "{UUID}"\n',
            },
            r"^Manifest.toml: takes A from ../A, which is no folder of the repository",
        ),
        ({"Project.toml": "[deps\n"}, None),
        ({"JuliaProject.toml": "deps = 1\n"}, r"^JuliaProject.toml: \[deps\] is no table"),
    ],
)
def test_projects_of_julia_that_cannot_be_built(tmp_path: Path, files: Files, message: str | None) -> None:
    if message is None:
        assert not [s for s in plan_of(tmp_path, files).steps if s.name.startswith("julia/")]
        return
    with pytest.raises(DetectError, match=message):
        plan_of(tmp_path, files)


def test_a_release_that_is_not_known_gives_way_to_the_next_patch(tmp_path: Path) -> None:
    files: Files = {"Project.toml": f'[deps]\nA = "{UUID}"\n', "Manifest.toml": 'julia_version = "1.6.99"\n'}
    plan = plan_of(tmp_path, files)
    assert "Julia 1.6.7 (Manifest.toml was made with 1.6.99, which is not known here)" in reason(plan, "Project.toml")
    assert plan.path[0] == "/opt/julia/bin"


def test_the_login_of_a_mirror_of_julia_is_in_no_list_of_processes(tmp_path: Path) -> None:
    plan = plan_of(tmp_path / "repo", {"Project.toml": f'[deps]\nA = "{UUID}"\n'})
    run = step(plan, "julia/program")
    for name in ("path", "sha256"):
        (tmp_path / name).write_text(run.data[name])
    curl = tmp_path / "curl"
    curl.write_text('#!/bin/sh\nprintf "%s\\n" "$@" >arguments\ncat >settings\nexit 22\n')
    curl.chmod(0o755)
    script = run.script.replace("/run/hpcbinder/step/files", str(tmp_path))
    env = {"PATH": f"{tmp_path}:{os.defpath}", "HPCBINDER_JULIA": "https://me:s%cret@julia.site/bin"}
    done = subprocess.run(["sh", "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        1,
        f"hpcbinder: Julia cannot be had from julia.site/bin/{run.data['path'].strip()}: see site.julia_mirror.\n",
    )
    assert "s%cret" not in (tmp_path / "arguments").read_text()
    assert (tmp_path / "settings").read_text() == (
        f'url = "https://me:s%cret@julia.site/bin/{run.data["path"].strip()}"\n'
    )


SPEC = "spack:\n  specs: [{}]\n"
TENFOLD = "".join(
    ["a0: &0 [x]\n"]
    + [f"a{level}: &{level} [{', '.join([f'*{level - 1}'] * 10)}]\n" for level in range(1, 12)]
    + ["spack:\n  specs: [a]\n  definitions: *11\n"]
)
"""What ends in 10¹¹ words."""


@pytest.mark.parametrize(
    ("spec", "kept"),
    [
        ("hdf5 +mpi", "hdf5 +mpi"),
        ("hdf5%gcc@12.2.0 target=zen3", "hdf5"),
        ("fftw precision=float arch=linux-rhel8-zen3 ^mpich@4%oneapi", "fftw precision=float ^mpich@4"),
        ("petsc@3.20: ~hypre os=rhel8 platform=linux", "petsc@3.20: ~hypre"),
        ("netcdf-c target='zen3:'", "netcdf-c"),
    ],
)
def test_specs_without_pins_to_one_machine(tmp_path: Path, spec: str, kept: str) -> None:
    run = step(plan_of(tmp_path, {"spack.yaml": SPEC.format(json.dumps(spec))}), "spack/install")
    assert json.loads(run.data["spack.yaml"])["spack"]["specs"] == [kept]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SPEC.format("hdf5, 'zlib/abcdef1'"), "^spack.yaml:2: names what is installed on one machine"),
        (SPEC.format("'a; rm -rf /'"), "^spack.yaml:2: has 'a; rm -rf /', which is no spec"),
        ("spack:\n  specs: []\n", "has no specs"),
        ("spack:\n  specs: [a]\n  repos: [./mine]\n", "^spack.yaml:3: has repos: recipes of one's own"),
        ("spack:\n  specs: [a]\n  develop: {a: {spec: a}}\n", "^spack.yaml:3: has develop"),
        ("spack: [\n", "^spack.yaml:2: is not YAML"),
        ("a: &a [x]\nspack:\n  specs: *a\n", "^spack.yaml:1: has YAML's anchors"),
        ("a: &1 [x]\nspack:\n  specs: *1\n", "^spack.yaml:1: has YAML's anchors"),
        ("spack:\n  specs: [a]\n  definitions: [{&a b: c}]\n", "^spack.yaml:3: has YAML's anchors"),
        ("spack:\n  specs: [!!str &a b]\n", "^spack.yaml:2: has YAML's anchors"),
        ("spack:\n  specs: [a]\n  definitions: *é\n", "^spack.yaml:3: has YAML's anchors"),
        (TENFOLD, "^spack.yaml:1: has YAML's anchors"),
        ("[" * 5000, "larger or deeper"),
    ],
)
def test_spack_environments_that_cannot_be_built(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DetectError, match=message):
        plan_of(tmp_path, {"spack.yaml": text})


def test_marks_of_anchors_in_words_are_none(tmp_path: Path) -> None:
    text = "# for R&D, *all* of us: &me\nspack:\n  specs: ['zlib cflags=\"-g *b\"']\n"
    run = step(plan_of(tmp_path, {"spack.yaml": text}), "spack/install")
    assert json.loads(run.data["spack.yaml"])["spack"]["specs"] == ['zlib cflags="-g *b"']


def test_python_packages_of_spack_need_a_kernel_there(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {"spack.yaml": SPEC.format("py-numpy")})
    assert "py-numpy come for Spack's own Python, which no kernel runs" in reason(plan, "spack.yaml")
    plan = plan_of(tmp_path, {"spack.yaml": SPEC.format("py-numpy, py-ipykernel")})
    assert plan.labels["org.hpcbinder.kernels"] == "python3 spack"


HEAD = "Bootstrap: docker\nFrom: debian:bookworm-slim\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Bootstrap: localimage\nFrom: base.sif\n", "^Singularity:2: stands on localimage: base.sif, and only"),
        ("Bootstrap: docker\nFrom: debian:jessie\n", "^Singularity:2: stands on docker: debian:jessie, and only"),
        (
            "Bootstrap: docker\nFrom: python:3.6\n",
            "^Singularity:2: stands on docker: python:3.6, which is not to be had",
        ),
        (f"{HEAD}%appinstall tool\n  make\n", "^Singularity:3: has a section %appinstall"),
        (f"{HEAD}%arguments\nV=1\n", "^Singularity:3: has a section %arguments"),
        (f"{HEAD}%post\n  echo {{{{ V }}}}\n", "^Singularity:4: has {{"),
        (f"{HEAD}%files from build\n  a /b\n", "^Singularity:3: takes files from another stage"),
        (f"{HEAD}%files\n  /etc/hosts /opt/hosts\n", "^Singularity:4: copies /etc/hosts, which is no file"),
        (f"{HEAD}%files\n  Singularity /home/me/x\n", "^Singularity:4: copies to /home/me/x, which clusters bind over"),
        (f"{HEAD}%files\n  data/* /opt/data\n", "^Singularity:4: copies .*not one plain path"),
        (f"{HEAD}%environment\n  source /opt/rc\n", "^Singularity:4: does more in %environment"),
        (f"{HEAD}%environment\n  export A=$(date)\n", "^Singularity:4: does more in %environment"),
        (f"{HEAD}%environment\n  export HOME=/opt\n", "variable 'HOME' cannot be set"),
        (
            f"{HEAD}%post\n  echo 'export A=1' >>$SINGULARITY_ENVIRONMENT\n",
            "^Singularity:4: writes the image's variables",
        ),
        (f"{HEAD}%post -c /usr/bin/python3\n", "^Singularity:3: runs %post with"),
        (f"{HEAD}%post\n  true\n\nBootstrap: docker\nFrom: debian:12\n", "more than one stage"),
    ],
)
def test_definitions_that_cannot_be_brought_onto_the_base(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DetectError, match=message):
        plan_of(tmp_path, {"Singularity": text})


@pytest.mark.parametrize(
    ("header", "suite"),
    [
        ("Bootstrap: docker\nFrom: debian:13\n", "trixie"),
        ("Bootstrap: library\nFrom: library/debian:12.5-slim\n", "bookworm"),
        ("Bootstrap: docker\nFrom: docker.io/library/python:3.13-slim\n", "trixie"),
        ("BootStrap: debootstrap\nOSVersion: trixie\nMirrorURL: http://deb.debian.org/debian\n", "trixie"),
        ("Bootstrap: docker\nFrom: debian:latest\n", "bookworm"),
    ],
)
def test_the_release_a_definition_stands_on(tmp_path: Path, header: str, suite: str) -> None:
    plan = plan_of(tmp_path, {"Singularity": f"{header}%post\n  true\n"})
    assert plan.base.suite == suite
    # The lines that a shell names are those of the file.
    text = step(plan, "apptainer/post").data["post"]
    assert text.split("\n")[f"{header}%post\n".count("\n")] == "  true"


def test_variables_of_a_definition(tmp_path: Path) -> None:
    lines = [
        "A='it''s $B'",
        "B=/opt/b",
        'export PATH="$B/bin:$PATH:/opt/c"',
        "C=${B}/c:$NOTHING",
        "LD_LIBRARY_PATH=:$B/lib",
    ]
    text = HEAD + "%environment\n" + "\n".join([*lines[1:], "export B C"]) + "\n"
    plan = plan_of(tmp_path, {"Singularity": text})
    assert (plan.env["B"], plan.env["C"], plan.env["LD_LIBRARY_PATH"]) == ("/opt/b", "/opt/b/c:", "/opt/b/lib")
    assert plan.path[:2] == ("/opt/b/bin", "/opt/c")
    with pytest.raises(DetectError, match="does more in %environment"):
        plan_of(tmp_path, {"Singularity": f"{HEAD}%environment\n{lines[0]}\n"})


CONTAINER = ".devcontainer/devcontainer.json"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({CONTAINER: "{\n  nothing\n}"}, f"^{CONTAINER}:2: is no JSON"),
        ({CONTAINER: '{\n "dockerComposeFile": "x.yml"\n}'}, f"^{CONTAINER}:2: stands on a dockerComposeFile"),
        ({CONTAINER: "{}"}, "names neither an image nor a Dockerfile"),
        ({CONTAINER: '{"image": "a\\nRUN x"}'}, "of which it does not say what it is"),
        ({CONTAINER: '{"build": {"dockerfile": "Dockerfile"}}'}, "has no Dockerfile at .devcontainer/Dockerfile"),
        (
            {CONTAINER: '{"build": {"dockerfile": "D"}}', ".devcontainer/D": "FROM a\nCOPY x /x\n"},
            r"builds with \.devcontainer as its context",
        ),
        ({CONTAINER: '{"image": "a", "postCreateCommand": [1]}'}, "has postCreateCommand, which is no command"),
        ({CONTAINER: '{"image": "a", "containerEnv": {"A B": "x"}}'}, "sets a variable A B, which is no name"),
        (
            {CONTAINER: '{"build": {"dockerfile": "D", "context": ".."}}', ".devcontainer/D": "FROM a\nFROM b c\n"},
            r"^\.devcontainer/D:2: has a FROM that is not understood",
        ),
    ],
)
def test_devcontainers_that_cannot_be_built(tmp_path: Path, files: Files, message: str) -> None:
    with pytest.raises(DetectError, match=message):
        plan_of(tmp_path, files)


def with_arguments(arguments: dict[str, str]) -> Files:
    """A devcontainer.json that gives its Dockerfile these."""
    build = json.dumps({"build": {"dockerfile": "D", "context": "..", "args": arguments}}, indent=1)
    return {CONTAINER: build, ".devcontainer/D": "FROM a\n"}


@pytest.mark.parametrize(
    "name",
    [
        *("BUILDKIT_SYNTAX", "buildkit_syntax", "BUILDKIT_CONTEXT_KEEP_GIT_DIR", "SOURCE_DATE_EPOCH"),
        *("http_proxy", "HTTPS_PROXY", "Ftp_Proxy", "ALL_PROXY", "no_proxy"),
    ],
)
def test_build_arguments_that_steer_an_engine_are_refused(tmp_path: Path, name: str) -> None:
    message = rf"^\.devcontainer/devcontainer\.json:7: gives the build argument {name}, which is the site's to give"
    with pytest.raises(DetectError, match=message):
        plan_of(tmp_path, with_arguments({"A": "b", name: "evil.example/frontend:1"}))


@pytest.mark.parametrize(
    "arguments",
    [{"": "x"}, {"A B": "x"}, {"A=b": "x"}, {"-a": "x"}, {"A\n": "x"}, {"A": "\ud800"}, {"A": "\0"}],
)
def test_build_arguments_that_are_not_plain_are_refused(tmp_path: Path, arguments: dict[str, str]) -> None:
    with pytest.raises(DetectError, match=r"devcontainer\.json:5: has build arguments that are not plain texts"):
        plan_of(tmp_path, with_arguments(arguments))


def test_build_arguments_of_a_devcontainer_are_its_dockerfiles(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, with_arguments({"VARIANT": "3.12", "MY_HTTP_PROXY": "x"}))
    assert plan.own is not None
    assert plan.own.arguments == {"NB_UID": "1000", "NB_USER": "jovyan", "VARIANT": "3.12", "MY_HTTP_PROXY": "x"}


def test_a_variable_that_is_no_text_is_left_out(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {CONTAINER: '{"image": "a", "containerEnv": {"A": "\\ud800", "B": "\\ud83d\\ude00"}}'})
    assert plan.own is not None and 'ENV B="\U0001f600"' in plan.own.text and "ENV A" not in plan.own.text
    assert "A is not set, which needs more than the file to know" in reason(plan, CONTAINER)


def test_what_is_written_for_a_devcontainer_lies_beside_it(tmp_path: Path) -> None:
    """A folder `.devcontainer` may be a link, and no file of ours goes through one."""
    (tmp_path / ".devcontainer").symlink_to("elsewhere")
    (tmp_path / "elsewhere").mkdir()
    plan = plan_of(tmp_path, {".devcontainer.json": '{"image": "a"}', "elsewhere/a.py": ""})
    assert plan.own is not None and plan.own.path == ".devcontainer.json.Dockerfile"


def test_a_devcontainer_behind_a_link_is_not_looked_at(tmp_path: Path) -> None:
    (tmp_path / ".devcontainer").symlink_to("elsewhere")
    assert plan_of(tmp_path, {"elsewhere/devcontainer.json": '{"image": "a"}'}).own is None


def test_a_devcontainer_beside_a_binder_folder_is_for_editors(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {CONTAINER: '{"image": "a"}', "binder/apt.txt": "sox\n"})
    assert plan.own is None
    assert reason(plan, CONTAINER).startswith("not used: ")


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("install.R", 'a <- c("x")\n' * 20_000),
        ("install.R", 'install.packages("x")\n' * 10_000),
        ("DESCRIPTION", "Package: a\nImports: b\n" + " ,c\n" * 50_000),
        ("Singularity", "Bootstrap: docker\nFrom: debian\n%post\n" + "{" * 1_000_000),
        ("Singularity", "Bootstrap: docker\nFrom: debian\n%environment\nA=" + "$aa" * 300_000 + "!"),
        ("spack.yaml", "spack: " + "[" * 100_000),
        ("spack.yaml", "spack:\n  specs: [" + "a, " * 10_000 + "[x]]"),
        (".devcontainer.json", "/*" * 500_000),
        (".devcontainer.json", "," * 1_000_000),
        (".devcontainer.json", '{"' + '\\"' * 100_000),
        (".devcontainer.json", '{"' + '\\"' * 100_000 + "\\"),
        (".devcontainer.json", '{"' + '\\"' * 100_000 + "\\\n"),
        ("Project.toml", f'[deps]\nA = "{UUID}"\n[compat]\njulia = "' + "1 - " * 200_000 + '"\n'),
    ],
)
def test_large_files_take_no_time_that_anybody_notices(tmp_path: Path, file: str, text: str) -> None:
    """It ends, which what looks at every beginning anew would not: minutes or more."""
    with contextlib.suppress(DetectError):
        plan_of(tmp_path, {file: text})


@pytest.mark.parametrize(
    "text", ["FROM a\n" + "\n" * 200_000, "FROM a\n" + " \t" * 100_000, "\n \n" * 66_000 + "FROM a"]
)
def test_a_dockerfile_of_blanks_takes_no_time_that_anybody_notices(tmp_path: Path, text: str) -> None:
    """Its devcontainer.json has a context of its own, so that what it copies is looked for."""
    plan = plan_of(tmp_path, {CONTAINER: '{"build": {"dockerfile": "D"}}', ".devcontainer/D": text})
    assert plan.own is not None
