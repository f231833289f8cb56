"""A repository's own Dockerfile: which images it means, what is changed in it, and what no engine may ever see."""

from __future__ import annotations

import dataclasses
import io
import tarfile
from pathlib import Path
from typing import Any

import pytest
from checkouts import checkout_of, fill, reason
from hypothesis import given
from hypothesis import strategies as st

from hpcbinder.builders.own import build_own
from hpcbinder.buildpacks.dockerfile.parse import rewrite
from hpcbinder.config import Config, SiteConfig
from hpcbinder.engine import Foreign
from hpcbinder.errors import DetectError, RegistryError
from hpcbinder.model import Plan
from hpcbinder.plan import dockerfile, explain, load_packs, make_plan, write_own_context
from hpcbinder.progress import Silent


def rewritten(text: str, architecture: str = "amd64") -> str:
    """The Dockerfile with `<NAME>` for each image from elsewhere."""
    return rewrite(text, "Dockerfile", lambda name, where: f"<{name}>", arguments={}, architecture=architecture).text


def known(name: str, architecture: str) -> str:
    if "nowhere" in name:
        raise RegistryError("there is no such image", where="registry.example.org")
    return f"registry.example.org/{name}@sha256:{'0' * 64}"


def plan_own(folder: Path, files: dict[str, str | bytes], *without: str) -> Plan:
    fill(folder, files)
    return make_plan(
        checkout_of(folder),
        packs=load_packs(),
        suite="bookworm",
        architecture="amd64",
        without=without,
        outside=known,
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FROM python:3.12-slim\n", "FROM <python:3.12-slim>\n"),
        ("from   python:3  as Base\nFROM base\n", "from   <python:3>  as Base\nFROM base\n"),
        ("FROM scratch\nCOPY --from=alpine /a /b", "FROM scratch\nCOPY --from=<alpine> /a /b"),
        ("FROM a\nCOPY --chown=1 --from=b / /\n", "FROM <a>\nCOPY --chown=1 --from=<b> / /\n"),
        (
            "FROM a\nRUN --mount=type=bind,from=b,target=/x ls\n",
            "FROM <a>\nRUN --mount=type=bind,from=<b>,target=/x ls\n",
        ),
        ("FROM a\nRUN --mount=target=/x,From=b ls\n", "FROM <a>\nRUN --mount=target=/x,From=<b> ls\n"),
        (
            "FROM a\nRUN --mount=type=cache,target=/root/.cache ls\n",
            "FROM <a>\nRUN --mount=type=cache,target=/root/.cache ls\n",
        ),
        ("FROM a\nONBUILD COPY --from=b / /\n", "FROM <a>\nONBUILD COPY --from=<b> / /\n"),
        ("ARG V=3.12\nFROM python:$V\n", "ARG V=3.12\nFROM <python:3.12>\n"),
        ("ARG V='3' W=x\nFROM python:${V}-${W:-y}${Z:-z}\n", "ARG V='3' W=x\nFROM <python:3-xz>\n"),
        ("ARG A=x\nARG B=$A/y\nFROM ${B}:${A:+z}\n", "ARG A=x\nARG B=$A/y\nFROM <x/y:z>\n"),
        ("FROM --platform=linux/amd64 a\n", "FROM --platform=linux/amd64 <a>\n"),
        ("FROM --platform=$BUILDPLATFORM a\n", "FROM --platform=$BUILDPLATFORM <a>\n"),
        ("FROM a-$TARGETARCH\n", "FROM <a-amd64>\n"),
        ("FROM \\\n  # why\n\n  a \\\n AS b\n", "FROM \\\n  # why\n\n  <a> \\\n AS b\n"),
        (
            "FROM a\nRUN <<EOF\nfrom math import pi\nprint(pi)\nEOF\nRUN ls",
            "FROM <a>\nRUN <<EOF\nfrom math import pi\nprint(pi)\nEOF\nRUN ls",
        ),
        (
            "FROM a\nCOPY <<-'E' /x\n\tFROM b c d\n\tE\nUSER x\n",
            "FROM <a>\nCOPY <<-'E' /x\n\tFROM b c d\n\tE\nUSER x\n",
        ),
        ('FROM a\nRUN echo "FROM b"\n', 'FROM <a>\nRUN echo "FROM b"\n'),
    ],
)
def test_only_the_names_of_images_from_elsewhere_are_others(text: str, expected: str) -> None:
    assert rewritten(text) == expected


def test_stages_are_no_images_from_elsewhere() -> None:
    text = "FROM a AS one\nFROM b\nCOPY --from=One / /\nCOPY --from=0 / /\nRUN --mount=from=one ls\n"
    assert rewritten(text) == text.replace("FROM a", "FROM <a>").replace("FROM b", "FROM <b>")


def test_a_syntax_line_goes_wherever_an_engine_would_find_it() -> None:
    done = rewrite(
        "#!/x\n# syntax=evil/frontend:1\n# escape=\\\nFROM a\n# syntax=later\n",
        "Dockerfile",
        lambda name, where: name,
        arguments={},
        architecture="amd64",
    )
    assert done.text == "#!/x\n# escape=\\\nFROM a\n# syntax=later\n"
    assert done.notes == ["without its syntax line (evil/frontend:1): the engine's own is used"]


PRIVATE = "localhost/hpcbinder/private:1"
"""An image that lies in the engine, and is none of this repository's business."""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r":1: has no FROM"),
        ("RUN ls\n", r":1: has RUN before FROM"),
        ("FROM\n", r":1: has a FROM that is not understood"),
        ("FROM a b c\n", r":1: has a FROM that is not understood"),
        ("FROM a AS $x\n", r":1: calls a stage \$x"),
        ("FROM $X\n", r":1: names an image \$X, of which it does not say what it is"),
        ("ARG X\nFROM ${X}\n", r":2: names an image"),
        ("FROM ${X:?y}\n", r":1: names an image"),
        ("FROM a\\b\n", r":1: names an image"),
        ("FROM --platform=linux/arm64 a\n", r":1: asks for --platform=linux/arm64"),
        ("FROM a\nINCLUDE b\n", r":2: has INCLUDE, which is no instruction"),
        ("//syntax=x\nFROM a\n", r":1: has //syntax=x, which is no instruction"),
        ('{"syntax": "x"}\nFROM a\n', r":1: has \{\"syntax\":, which is no instruction"),
        ("# hello\n\n  FROM a # b\n", r":3: has a FROM that is not understood"),
        ("# escape=`\nFROM a\n", r":1: makes ` the sign for continued lines"),
        # What hides an image's name from one reader or another.
        ("FROM a\nCOPY --from=$X / /\n", r":2: takes files from an image whose name is a variable"),
        ("FROM a\nCOPY --from=1 / /\n", r":2: takes files from stage 1, which is not there before"),
        ("FROM a\nCOPY --from=0 / /\n", r":2: takes files from stage 0"),
        (f"FROM a\nCOPY --chown='a b' --from={PRIVATE} / /\n", r":2: has quotes or backslashes"),
        (f"FROM a\nCOPY --fr\\\nom={PRIVATE} / /\n", r":2: has quotes or backslashes"),
        (f"FROM a\nCOPY \u00a0--from={PRIVATE} / /\n", r":2: has quotes or backslashes, or blanks that are no spaces"),
        (f"FROM a\nRUN --network=none\u2003--mount=from={PRIVATE} ls\n", r":2: has quotes or backslashes, or blanks"),
        (f"FROM a\nCO\\\nPY --from={PRIVATE} / /\n", r":2: has CO.*, which is no instruction"),
        ("FROM a\\\nb\n", r":1: has a FROM that is not understood"),
        (f'FROM a\nRUN --mount=type=bind,"from={PRIVATE}" ls\n', r":2: has quotes or backslashes"),
        (
            f'FROM a\nRUN echo "<<EOF"\nFROM {PRIVATE}\nEOF\n',
            r":3: has a line inside of an instruction that begins with FROM",
        ),
        (f"FROM a\nRUN <<EOF\nCOPY --from={PRIVATE} / /\nEOF\n", r":3: has a line inside"),
        (f"FROM a\nRUN echo \\\n  # c\n  FROM {PRIVATE}\n", r":4: has a line inside"),
        (f"FROM a\nRUN x \\\\\nFROM {PRIVATE}\n", r":2: ends with two backslashes"),
        ("FROM a\nRUN <<EOF\nls\n", r":2: has a heredoc without its end"),
        ("FROM a\nRUN x\x0bFROM\n", r":2: has the control character"),
        ("FROM a\nONBUILD FROM b\n", r":2: has ONBUILD FROM"),
        # What would write into the caches of all builds.
        ("FROM a\nRUN --mount=type=cache,id=hpcbinder-uv,target=/x ls\n", r":2: mounts a cache that is not its own"),
        ("FROM a\nRUN --mount=type=cache,target=hpcbinder-uv ls\n", r":2: mounts a cache that is not its own"),
        ("FROM a\nRUN --mount=type=Cache,target=./HPCBINDER-uv ls\n", r":2: mounts a cache that is not its own"),
        ("FROM a\nRUN --mount=type=cache,target=$X ls\n", r":2: mounts a cache that is not its own"),
        ("FROM a\nRUN --network=host ls\n", r":2: has --network=host: its network is the site's choice"),
        ("FROM a\nRUN --security=insecure ls\n", r":2: has --security=insecure, which asks for more"),
        ("FROM a\nRUN --device=vendor.com/gpu ls\n", r":2: has --device=vendor.com/gpu, which asks for more"),
        ("FROM a\nARG T=cache\nRUN --mount=type=$T,id=hpcbinder-uv ls\n", r":3: mounts something whose type"),
    ],
)
def test_what_is_not_understood_is_refused(text: str, message: str) -> None:
    with pytest.raises(DetectError, match=rf"^Dockerfile{message}"):
        rewritten(text)


WORDS = st.sampled_from(
    ["FROM", "COPY", "RUN", "a", "--from=p", "--mount=from=p", "\\", "<<E", "<<-E", "E", "#", '"', "$p", "p", "\n", " "]
)


@given(st.lists(WORDS, max_size=25))
def test_no_line_is_left_that_some_reader_could_take_for_an_image_from_elsewhere(words: list[str]) -> None:
    """Engines differ in where an instruction ends. So each line is read here by itself."""
    try:
        text = rewritten("FROM a\n" + " ".join(words))
    except DetectError:
        return
    for line in text.split("\n"):
        parts = line.replace("\\", " ").split() or [""]
        if parts[0] == "FROM" and len(parts) == 2:
            assert parts[1].startswith("<")
        flags = {"COPY": "--from=p", "RUN": "--mount=from=p"}
        assert parts[1:2] != [flags.get(parts[0], "-")]


FILES: dict[str, str | bytes] = {
    "Dockerfile": "# syntax=x\nFROM python:3.12\nCOPY . /x\n",
    "requirements.txt": "numpy",
    "environment.yml": "",
    ".dockerignore": "data\n",
    "data/big": "x",
    "a.ipynb": "{}",
}


def test_it_is_the_whole_recipe(tmp_path: Path) -> None:
    plan = plan_own(tmp_path, FILES)
    assert plan.own is not None and plan.steps == ()
    assert plan.own.text == f"FROM {plan.own.images[0].tag}\nCOPY . /x\n"
    assert plan.own.images[0].image == f"registry.example.org/python:3.12@sha256:{'0' * 64}"
    assert plan.own.images[0].tag.startswith("localhost/hpcbinder/from:")
    assert plan.own.arguments == {"NB_UID": "1000", "NB_USER": "jovyan"}
    assert (plan.base.name, plan.base.image) == ("python:3.12", plan.own.images[0].image)
    assert plan.labels["org.hpcbinder.level"] == "dockerfile"
    assert reason(plan, "Dockerfile") == (
        "used: is built as it is, on python:3.12; without its syntax line (x): the engine's own is used"
    )
    for name in ("requirements.txt", "environment.yml"):
        assert reason(plan, name) == (
            "not used: Dockerfile says all that is built (--without dockerfile builds without it)"
        )
    assert "python:3.12 is registry.example.org/python:3.12@sha256:" in explain(plan)
    assert dockerfile(plan, base_image="", tools_image="", server_image=None) == plan.own.text
    assert plan_own(tmp_path, {}, "dockerfile", "conda").own is None


def test_its_images_are_part_of_what_names_the_plan(tmp_path: Path) -> None:
    first = plan_own(tmp_path, FILES)
    assert plan_own(tmp_path, {}).id == first.id
    assert plan_own(tmp_path, {"Dockerfile": "FROM python:3.12\nCOPY . /y\n"}).id != first.id
    assert plan_own(tmp_path, {**FILES, "a.ipynb": "{ }"}).id != first.id
    assert plan_own(tmp_path, {**FILES, "data/big": "y"}).id == first.id


def sent(plan: Plan, folder: Path) -> dict[str, str]:
    """What an engine gets."""
    out = io.BytesIO()
    assert plan.own is not None
    write_own_context(plan, checkout_of(folder), plan.own, out)
    out.seek(0)
    with tarfile.open(fileobj=out) as tar:
        return {m.name: tar.extractfile(m).read().decode() for m in tar if m.isreg()}  # type: ignore[union-attr]


def test_the_context_is_the_repository_by_dockers_rules(tmp_path: Path) -> None:
    plan = plan_own(tmp_path, {**FILES, ".git/config": "x"})
    assert plan.own is not None
    context = sent(plan, tmp_path)
    assert set(context) == {"Dockerfile", "requirements.txt", "environment.yml", ".dockerignore", "a.ipynb"}
    assert context["Dockerfile"] == plan.own.text


def test_in_a_binder_folder_its_context_is_still_the_whole_repository(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "binder/Dockerfile": "FROM a\n",
        "binder/Dockerfile.dockerignore": "secret\nbinder\n",
        ".dockerignore": "*",
        "Dockerfile": "another",
        "secret": "x",
        "a.py": "",
    }
    plan = plan_own(tmp_path, files)
    assert plan.own is not None and plan.own.path == "binder/Dockerfile"
    assert reason(plan, "Dockerfile").startswith("not used: there is a binder folder")
    context = sent(plan, tmp_path)
    assert set(context) == {"binder/Dockerfile", "Dockerfile", "a.py", ".dockerignore"}
    assert context["Dockerfile"] == "another"
    assert context["binder/Dockerfile"] == plan.own.text


def test_a_link_to_a_dockerfile_in_the_repository(tmp_path: Path) -> None:
    fill(tmp_path, {"docker/main": "FROM a\n", "a.py": ""})
    (tmp_path / "Dockerfile").symlink_to("docker/main")
    plan = plan_own(tmp_path, {})
    assert plan.own is not None and plan.own.path == "docker/main"
    assert sent(plan, tmp_path)["docker/main"] == plan.own.text
    (tmp_path / "Dockerfile").unlink()
    (tmp_path / "Dockerfile").symlink_to("/etc/passwd")
    with pytest.raises(DetectError, match=r"^Dockerfile: symlink that leaves the repository"):
        plan_own(tmp_path, {})


def test_an_image_that_cannot_be_had_is_named_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(RegistryError) as caught:
        plan_own(tmp_path, {"Dockerfile": "\nFROM nowhere/x:1\n"})
    assert str(caught.value) == (
        "Dockerfile:2: nowhere/x:1: there is no such image "
        '(bases.images."nowhere/x:1" may name another image to take in its place)'
    )


class Listening:
    """An engine that has every image, and keeps what it is told to build."""

    def __init__(self) -> None:
        self.foreign: list[Foreign] = []

    def image(self, ref: str) -> str:
        return ref

    def build(self, write: object, *, tag: str, foreign: Foreign | None = None, **_: object) -> str:
        self.foreign += [foreign] if foreign else []
        return tag


def test_no_argument_of_a_plan_comes_before_the_sites_proxies(tmp_path: Path) -> None:
    plan = plan_own(tmp_path, FILES)
    assert plan.own is not None
    own = dataclasses.replace(plan.own, arguments={"A": "b", "HTTPS_PROXY": "http://evil.example"})
    engine: Any = Listening()
    site = SiteConfig(https_proxy="http://me:secret@proxy.example.org:3128")
    build_own(
        plan,
        own,
        checkout_of(tmp_path),
        engine,
        bases_dir=tmp_path,
        scratch=tmp_path,
        config=Config(site=site),
        reporter=Silent(),
    )
    proxy = "http://proxy.example.org:3128"
    assert [foreign.arguments for foreign in engine.foreign] == [{"A": "b", "https_proxy": proxy, "HTTPS_PROXY": proxy}]
