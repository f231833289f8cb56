"""requirements.txt: what is taken, what is refused and with which words."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from checkouts import fill, plan_of, reason, step
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpcbinder.errors import DetectError

HASH = "sha256:" + "0" * 64


def lines(folder: Path, text: str | bytes, **files: str) -> list[str]:
    """What uv is given for a requirements.txt."""
    plan = plan_of(folder, {"requirements.txt": text, **{name.replace("_", "."): body for name, body in files.items()}})
    return step(plan, "python/packages").data["requirements.txt"].splitlines()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("numpy", ["numpy"]),
        ("numpy  # why\n\n# nothing\n   scipy>=1.2,<2", ["numpy", "scipy<2,>=1.2"]),
        ("pandas[excel, sql]==2.*; python_version > '3'", ['pandas[excel,sql]==2.* ; python_version > "3"']),
        (f"six==1.16.0 --hash={HASH} \\\n   --hash {HASH}", [f"six==1.16.0 --hash={HASH} --hash={HASH}"]),
        ("a \\\n==1\nb", ["a==1", "b"]),
        ("a\\\n# comment\nb", ["a", "b"]),
        (b"\xef\xbb\xbfnumpy\r\nscipy\r\n", ["numpy", "scipy"]),
        ("x @ https://example.org/x-1-py3-none-any.whl", ["x @ https://example.org/x-1-py3-none-any.whl"]),
        ("https://example.org/x-1.tar.gz", ["https://example.org/x-1.tar.gz"]),
        ("git+https://example.org/x.git@v1#egg=x", ["x @ git+https://example.org/x.git@v1"]),
        ("-e git+https://example.org/x@v1#egg=x&subdirectory=a", ["x @ git+https://example.org/x@v1#subdirectory=a"]),
        ("git+https://example.org/x ; python_version > '3'", ["git+https://example.org/x ; python_version > '3'"]),
        ("--extra-index-url https://example.org/cpu\ntorch", ["--extra-index-url https://example.org/cpu", "torch"]),
        ('-f "https://example.org/a.html"\na', ["--find-links https://example.org/a.html", "a"]),
        ("-i https://example.org/simple", ["--index-url https://example.org/simple"]),
        ("--no-binary lxml,numpy\nlxml", ["--no-binary lxml,numpy", "lxml"]),
        ("--prefer-binary\n--trusted-host example.org\nnumpy", ["numpy"]),
        ("", []),
    ],
)
def test_what_is_taken(tmp_path: Path, text: str | bytes, expected: list[str]) -> None:
    assert lines(tmp_path, text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("numpy\n${TOKEN}", r":2: has \$\{…\}, which would take something from the environment"),
        ("https://example.org/${TOKEN}/x.whl", r":1: has \$\{…\}"),
        ("--index-url https://${USER}@example.org/", r":1: has \$\{…\}"),
        ("numpy=1.2", r":1: is not a requirement.*write name==version"),
        ("pip install numpy", r":1: is not a requirement.*no commands"),
        ("numpy; touch canary", r":1: is not a requirement"),
        ("-r ../other.txt", r":1: includes \.\./other\.txt, which is outside the repository"),
        ("-r /etc/passwd", r":1: includes /etc/passwd, which is outside"),
        ("-c https://example.org/c.txt", r":1: includes a file from elsewhere"),
        ("-r missing.txt", r":1: includes missing\.txt, which is no file"),
        ("-e ..", r":1: names \.\., which is outside the repository"),
        ("./a/../../b", r":1: names \./a/\.\./\.\./b, which is outside"),
        ("/abs/path", r":1: names /abs/path, which is outside"),
        ("~/x", r":1: names ~/x, which is outside"),
        ("x @ file:///etc", r":1: names ///etc, which is outside"),
        ("./nothing", r":1: names nothing, which is not in the repository"),
        ("-e ./nothing[a b]", r":1: 'a b' is not the name of an extra"),
        ("./x y", r":1: names a path with characters that are not supported"),
        ("./x ; python_version > '3'", r":1: has a marker or something else behind a path"),
        ("git+ssh://git@example.org/x", r":1: has a URL of the kind 'git\+ssh'.*use git\+https"),
        ("http://example.org/x.whl", r":1: has a URL of the kind 'http'.*use https"),
        ("hg+https://example.org/x", r":1: has a URL of the kind 'hg\+https'"),
        ("git+file:///x", r":1: has a URL of the kind 'git\+file'"),
        ("ext::sh", r":1: is not a requirement"),
        ("https://user:word@example.org/x.whl", r":1: has credentials in a URL"),
        ("--extra-index-url https://token@example.org/", r":1: has credentials in a URL"),
        ("-i http://example.org/", r":1: has a URL of the kind 'http'"),
        ("-f ./wheels", r":1: has a URL of the kind '\./wheels'"),
        ("git+https://-oProxyCommand=x/y", r":1: has a URL without a host"),
        ("git+https://example.org/x@--upload-pack=touch", r":1: has a URL whose revision could be an option"),
        ("https://example.org/a%0ab.whl", r":1: has a URL with characters that do not belong"),
        ("https://example.org/$(touch x).whl`", r":1: has a URL with characters"),
        ("https://[::1", r":1: has a malformed URL"),
        ("numpy --config-settings=x=y", r":1: has the option --config-settings, which is not supported"),
        ("numpy --global-option=x", r":1: has the option --global-option"),
        ("--config-settings x=y", r":1: has the option --config-settings"),
        ("--install-option=x", r":1: has the option --install-option"),
        ("--no-index", r":1: has the option --no-index"),
        ("-Z", r":1: has the option -Z"),
        ("--", r":1: has the option --"),
        ("numpy --hash=md5:00", r":1: has the option --hash"),
        ("--no-binary $(x)", r":1: --no-binary needs names"),
        ("a\x1b[2J", r":1: has control characters"),
        ("a\u2028b", r":1: has control characters"),
        (b"a\0b", r":1: has a NUL byte"),
        ("numpy\nscipy".encode("utf-16")[:-1], r":2: begins as UTF-16 does, and is not"),
        ("a\0b".encode("utf-16"), r":1: has a NUL byte"),
        (b"\xff\xfe\x00\xd8a\x00", r":1: begins as UTF-16 does"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(DetectError, match=f"^requirements.txt{message}") as caught:
        lines(tmp_path, text)
    assert len(str(caught.value).splitlines()) == 1


def test_files_that_include_others(tmp_path: Path) -> None:
    files = {
        "binder/requirements.txt": "-r ../base.txt\n-rmore/extra.txt\n-c ../limits.txt\nscipy",
        "base.txt": "numpy\n-r base.txt\n",
        "binder/more/extra.txt": "--requirement=deeper.txt\n",
        "binder/more/deeper.txt": "pandas",
        "limits.txt": "numpy<2\npandas>1",
    }
    plan = plan_of(tmp_path, files)
    packages = step(plan, "python/packages")
    assert packages.data["requirements.txt"] == "numpy\npandas\nscipy\n"
    assert packages.data["constraints.txt"] == "numpy<2\npandas>1\n"
    assert reason(plan, "limits.txt") == "used: 2 constraints"
    assert reason(plan, "binder/more/deeper.txt") == "used: 1 requirement"


def test_a_chain_of_files_has_an_end(tmp_path: Path) -> None:
    files = {f"r{number}.txt": f"-r r{number + 1}.txt" for number in range(50)}
    with pytest.raises(DetectError, match="more than 20 files include one another"):
        plan_of(tmp_path, {"requirements.txt": "-r r0.txt", **files})


def test_an_included_file_may_be_a_link_inside_the_repository_only(tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    fill(tmp_path, {"outside.txt": "secret", "repo/real/r.txt": "numpy", "repo/requirements.txt": "-r link/r.txt"})
    (repo / "link").symlink_to("real")
    assert reason(plan_of(repo), "real/r.txt") == "used: 1 requirement"
    (repo / "link").unlink()
    (repo / "link").symlink_to("..")
    with pytest.raises(DetectError, match=r"^requirements\.txt:1: includes link/o\.txt") as caught:
        plan_of(repo, {"requirements.txt": "-r link/o.txt"})
    assert "secret" not in str(caught.value)


def test_wheels_come_first_and_what_must_be_built_later(tmp_path: Path) -> None:
    text = (
        "numpy\ngit+https://example.org/x#egg=x\nhttps://example.org/y-1.zip\nhttps://example.org/z-1-py3-none-any.whl"
    )
    plan = plan_of(tmp_path, {"requirements.txt": text})
    assert step(plan, "python/wheels").data["wheels.txt"].splitlines() == [
        "numpy",
        "https://example.org/z-1-py3-none-any.whl",
    ]
    assert len(step(plan, "python/packages").data["requirements.txt"].splitlines()) == 4


def test_options_that_change_how_uv_resolves_are_variables_of_the_steps(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {"requirements.txt": "--pre\n--extra-index-url https://example.org/\nnumpy"})
    assert step(plan, "python/packages").env == {
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_PRERELEASE": "allow",
    }
    assert (
        reason(plan, "requirements.txt")
        == "used: 1 requirement; packages also from https://example.org/, so that the build finds the versions"
    )
    plan = plan_of(tmp_path, {"requirements.txt": "--pre\nnumpy"})
    for name in ("python/wheels", "python/packages"):
        assert step(plan, name).env == {"UV_PRERELEASE": "allow"}


def test_what_is_ignored_is_said(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {"requirements.txt": "--trusted-host example.org\nnumpy"})
    assert "--trusted-host is ignored: certificates are always checked" in reason(plan, "requirements.txt")


def test_a_kernel_and_pip_are_in_every_environment(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {"requirements.txt": "ipykernel==6.0"})
    assert step(plan, "python/wheels").data["always.txt"] == "ipykernel\npip\n"
    assert step(plan, "python/wheels").data["wheels.txt"] == "ipykernel==6.0\n"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=60) | st.text("ab-=. ;@/:[]#\\\n'\"<~!$+", max_size=60)
)
def test_any_text_is_taken_or_refused_with_its_line(tmp_path: Path, text: str) -> None:
    try:
        lines(tmp_path, text)
    except DetectError as error:
        assert str(error).startswith("requirements.txt")


@pytest.mark.parametrize(
    "text",
    [
        " " * 500_000 + "x",
        "a" + " " * 500_000 + "b",
        "a" + " -" * 200_000,
        "./" + " " * 500_000 + "[",
        "\\\n" * 200_000,
        "# " * 200_000 + "\n" + "#\\\n" * 100_000,
        "git+https://example.org/" + " " * 500_000 + ";",
        "a[" * 100_000,
        "a;" + "(" * 50_000,
    ],
)
def test_texts_made_to_take_ages_do_not(tmp_path: Path, text: str) -> None:
    start = time.process_time()
    try:
        lines(tmp_path, text)
    except DetectError as error:
        assert len(str(error)) < 2000
    assert time.process_time() - start < 5
