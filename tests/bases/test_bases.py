"""Bases: made once, safely kept, plain errors. A stand-in for mmdebstrap where the real one takes half a minute."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import tarfile
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from hpcbinder.bases import BaseImage, base_tag, ensure_base
from hpcbinder.config import SiteConfig, load
from hpcbinder.contract import STEP_DIR
from hpcbinder.errors import BuildError
from hpcbinder.image import DockerArchive
from hpcbinder.interpreters.fit import LIBRARIES
from hpcbinder.model import BaseRef
from hpcbinder.plan import BASE_VARIANT, SUITES
from hpcbinder.progress import Silent
from rig import Rig, User

REF = BaseRef("debian:bookworm", "bookworm", "3.11", "amd64", BASE_VARIANT)

# Says what it is told by $FAKE_SAYS and fails, or makes a root file system of one link.
MMDEBSTRAP = """\
#!/bin/sh
echo run >> "$HOME/runs"
cat > "$HOME/sources"
echo "$@" > "$HOME/arguments"
env > "$HOME/environment"
if [ -e "$HOME/says" ]; then cat "$HOME/says" >&2; exit 1; fi
sleep "$(cat "$HOME/seconds")"
mkdir -p "$HOME/root/usr/bin"
ln -sf python3.11 "$HOME/root/usr/bin/python3"
exec tar -C "$HOME/root" -c .
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stand-in's home, where it reads what to do and writes what it was asked."""
    home = tmp_path / "home"
    (home / "bin").mkdir(parents=True)
    (home / "bin/mmdebstrap").write_text(MMDEBSTRAP)
    (home / "bin/mmdebstrap").chmod(0o755)
    (home / "seconds").write_text("0")
    monkeypatch.setenv("PATH", f"{home}/bin:/usr/bin:/bin")
    monkeypatch.setenv("HOME", str(home))
    return home


def make(folder: Path, site: SiteConfig | None = None, ref: BaseRef = REF, **arguments: tuple[Path, ...]) -> BaseImage:
    return ensure_base(ref, folder=folder, site=site or SiteConfig(), reporter=Silent(), **arguments)


def test_a_base_is_made_once(fake: Path, tmp_path: Path) -> None:
    first, second = make(tmp_path / "bases"), make(tmp_path / "bases")
    assert first == second
    assert (fake / "runs").read_text() == "run\n"
    assert first.tag == base_tag(REF)
    assert first.config == DockerArchive(first.archive).config
    assert first.config.labels == {"org.hpcbinder.base": "debian:bookworm", "org.hpcbinder.base.variant": BASE_VARIANT}
    assert first.config.entrypoint == ()
    assert set(first.config.env) == {"PATH"}


def test_many_at_once_make_it_once(fake: Path, tmp_path: Path) -> None:
    (fake / "seconds").write_text("0.5")
    program = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[2]); from test_bases import make; "
        "print(make(Path(sys.argv[1])).config.digest)"
    )
    argv = [sys.executable, "-c", program, str(tmp_path / "bases"), str(Path(__file__).parent)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    with ThreadPoolExecutor(3) as pool:
        found = list(
            pool.map(lambda _: subprocess.run(argv, capture_output=True, text=True, env=environment), range(3))
        )
    assert [done.returncode for done in found] == [0, 0, 0], found[0].stderr
    assert len({done.stdout for done in found}) == 1
    assert (fake / "runs").read_text() == "run\n"


def test_a_killed_process_leaves_nothing_that_counts(fake: Path, tmp_path: Path) -> None:
    (fake / "seconds").write_text("60")
    program = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[2]); from test_bases import make; "
        "make(Path(sys.argv[1]))"
    )
    argv = [sys.executable, "-c", program, str(tmp_path / "bases"), str(Path(__file__).parent)]
    child = subprocess.Popen(argv, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])})
    while not (fake / "runs").exists() or not (fake / "runs").read_text():
        assert child.poll() is None
    child.send_signal(signal.SIGKILL)
    child.wait()
    (fake / "seconds").write_text("0")
    made = make(tmp_path / "bases")
    assert (fake / "runs").read_text() == "run\nrun\n"
    key = made.archive.parent.name
    assert sorted(path.name for path in (tmp_path / "bases").iterdir()) == [f".{key}.lock", key]


def test_a_damaged_one_is_made_anew(fake: Path, tmp_path: Path) -> None:
    first = make(tmp_path / "bases")
    first.archive.write_bytes(b"cut off")
    assert make(tmp_path / "bases") == first


def test_a_shared_one_is_taken(fake: Path, tmp_path: Path) -> None:
    theirs = make(tmp_path / "site")
    assert make(tmp_path / "mine", shared=(tmp_path / "site",)) == theirs
    assert not (tmp_path / "mine").exists()


def test_a_shared_one_out_of_reach_is_not_needed(fake: Path, tmp_path: Path) -> None:
    # Stands for a folder that others closed, which root could enter all the same.
    closed = tmp_path / ("x" * 300)
    assert make(tmp_path / "mine", shared=(closed,)).archive.is_relative_to(tmp_path / "mine")


def test_others_can_read_a_base_whatever_the_umask(fake: Path, tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        archive = make(tmp_path / "bases").archive
    finally:
        os.umask(old)
    assert stat.S_IMODE(archive.stat().st_mode) == 0o644
    assert stat.S_IMODE(archive.parent.stat().st_mode) == 0o755


def test_a_folder_that_cannot_be_written(fake: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BuildError, match="the base cannot be kept: Not a directory"):
        make(tmp_path / "file" / "bases")


def test_mirrors_and_proxies_reach_the_tool_but_not_its_arguments(fake: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_text("certificates")
    site = SiteConfig(
        apt_mirror="https://me:s3cret@mirror.site/debian",
        https_proxy="http://you:hidden@proxy.site:1",
        ca_certificates=bundle,
    )
    made = make(tmp_path / "bases", site)
    sources = (fake / "sources").read_text()
    assert "https://me:s3cret@mirror.site/debian bookworm main\n" in sources
    assert "http://deb.debian.org/debian-security bookworm-security main\n" in sources
    assert "https_proxy=http://you:hidden@proxy.site:1\n" in (fake / "environment").read_text()
    arguments = (fake / "arguments").read_text()
    assert "s3cret" not in arguments and "hidden" not in arguments
    assert make(tmp_path / "without").config == made.config  # the site's settings are no part of what it is


@pytest.mark.parametrize(
    ("says", "reason", "hint"),
    [
        ("E: failed to parse /etc/subuid and /etc/subgid", "failed to parse /etc/subuid", "usermod --add-subuids"),
        ("E: unshare syscall failed: Operation not permitted", "unshare", "user namespaces are switched off"),
        (
            "E: The repository 'http://deb.debian.org/debian bookworm InRelease' is not signed.\nE: apt update failed",
            "is not signed",
            "debian-archive-keyring",
        ),
        (
            "Err:1 https://me:pw@mirror.site bookworm InRelease\nE: Could not resolve 'mirror.site'",
            "",
            "site.apt_mirror",
        ),
        (
            "Err:2 http://mirror.site/debian bullseye Release\n  404  Not Found\n"
            "E: The repository 'http://mirror.site/debian bullseye Release' does not have a Release file.",
            "http://mirror.site/debian bullseye Release",
            "site.apt_archive_mirror",
        ),
        ("E: No space left on device", "No space", "TMPDIR"),
        ("\x1b[31msomething\x1b[0m", "\\x1b[31msomething", ""),
        ("", "it said nothing", ""),
    ],
)
def test_what_it_says_becomes_one_line(fake: Path, tmp_path: Path, says: str, reason: str, hint: str) -> None:
    (fake / "says").write_text(f"{says}\n")
    with pytest.raises(BuildError) as caught:
        make(tmp_path / "bases")
    assert caught.value.message.startswith("the base Debian bookworm could not be made: ")
    assert reason in caught.value.message
    assert hint in (caught.value.hint or "")
    assert "\n" not in str(caught.value) and "me:pw" not in str(caught.value)


def test_no_mmdebstrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuildError, match="mmdebstrap is not installed.*apt-get install mmdebstrap"):
        make(tmp_path / "bases")


@pytest.mark.parametrize(
    "ref",
    [BaseRef("debian:sid", "sid", "3.15", "amd64", "1"), BaseRef("debian:bookworm", "bookworm", "3.9", "amd64", "1")],
)
def test_no_recipe(ref: BaseRef, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="no base for Debian.*bookworm with 3.11, trixie with 3.13"):
        make(tmp_path, ref=ref)


def test_every_suite_a_plan_can_name_has_a_recipe() -> None:
    tags = {
        base_tag(BaseRef(f"debian:{suite.name}", suite.name, suite.python, architecture, BASE_VARIANT))
        for suite in SUITES.values()
        for architecture in ("amd64", "arm64")
    }
    assert len(tags) == 2 * len(SUITES)


# The real thing.


def real_site() -> SiteConfig:
    """What this machine needs to reach Debian's mirrors."""
    return load({}, user_file=Path("/nonexistent"), site_file=Path("/nonexistent")).site


@pytest.fixture(scope="session")
def bookworm(rig: Rig) -> BaseImage:
    """Kept between test runs."""
    return make(rig.folder / "bases", real_site())


@pytest.mark.rig
def test_what_a_base_holds(bookworm: BaseImage) -> None:
    members, texts = {}, {}
    for _, stream in DockerArchive(bookworm.archive).layers(bookworm.config.diff_ids):
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            for member in tar:
                members[f"/{member.name}"] = member
                if member.name.startswith("etc/") and member.isreg():
                    file = tar.extractfile(member)
                    assert file is not None
                    texts[f"/{member.name}"] = file.read().decode(errors="replace")
    for program in ("python3", "git", "curl", "less", "ps", "unzip"):
        assert f"/usr/bin/{program}" in members or f"/bin/{program}" in members, program
    assert not {"/usr/bin/gcc", "/usr/bin/cc"} & set(members)
    assert not any(stat.S_ISCHR(m.mode) or m.ischr() or m.isblk() for m in members.values())
    for path in ("/scratch", "/mnt", "/home", f"{STEP_DIR}/step", f"{STEP_DIR}/site"):
        assert members[path].isdir()
        assert not any(other.startswith(f"{path}/") for other in members)
    for path in ("/etc/resolv.conf", "/etc/hosts"):
        assert members[path].isreg()
    assert "/etc/machine-id" not in members
    assert "/etc/apt/sources.list" not in members
    assert texts["/etc/apt/sources.list.d/debian.sources"].count("URIs: http://deb.debian.org/debian") == 2
    assert not any(os.uname().nodename in text.split() for text in texts.values() if os.uname().nodename != "localhost")
    assert all(m.mtime <= 1577836800 for m in members.values())
    assert "/usr/share/doc/python3/copyright" in members
    assert not any(path.startswith("/usr/share/man/man1/") for path in members)
    assert sum(m.size for m in members.values()) < 230_000_000


@pytest.mark.rig
def test_a_base_has_the_libraries_that_interpreters_may_need(bookworm: BaseImage) -> None:
    names = set()
    for _, stream in DockerArchive(bookworm.archive).layers(bookworm.config.diff_ids):
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            names = {member.name.rpartition("/")[2] for member in tar}
    loaders = {name for name in LIBRARIES["bookworm"] if name.startswith("ld")}
    assert names & loaders
    assert LIBRARIES["bookworm"] - loaders <= names


class Proxy(BaseHTTPRequestHandler):
    """Fetches what it is asked for; remembers who asked."""

    seen: set[str] = set()

    def do_GET(self) -> None:
        Proxy.seen.add(self.headers.get("Proxy-Authorization", ""))
        request = urllib.request.Request(self.path, headers={"User-Agent": "test"})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                self.send_response(200)
                self.send_header("Content-Length", answer.headers["Content-Length"])
                self.end_headers()
                while block := answer.read(1 << 16):
                    self.wfile.write(block)
        except urllib.error.HTTPError as error:
            self.send_error(error.code)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def proxy() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://canary-user:canary-word@127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.mark.rig
@pytest.mark.heavy
def test_the_same_packages_give_the_same_bytes_whatever_the_site(
    bookworm: BaseImage, rig: Rig, proxy: str, tmp_path: Path
) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_text("canary-certificate\n")
    again = make(tmp_path / "bases", SiteConfig(http_proxy=proxy, ca_certificates=bundle))
    assert any(value.startswith("Basic ") for value in Proxy.seen)
    content = again.archive.read_bytes()
    assert b"canary-user" not in content and b"canary-word" not in content and b"canary-certificate" not in content
    if again.config.digest != bookworm.config.digest:  # the kept one may have older packages
        bookworm = make(tmp_path / "plain", real_site())
    assert again.config.digest == bookworm.config.digest


AS_USER = """\
import json, sys
from pathlib import Path
from hpcbinder.bases import ensure_base
from hpcbinder.config import SiteConfig
from hpcbinder.errors import BuildError
from hpcbinder.model import BaseRef
from hpcbinder.progress import Silent

ref = BaseRef("debian:bookworm", "bookworm", "3.11", "amd64", sys.argv[2])
try:
    print(json.dumps(ensure_base(ref, folder=Path(sys.argv[1]), site=SiteConfig(), reporter=Silent()).config.digest))
except BuildError as error:
    print(json.dumps(str(error)))
"""


@pytest.mark.heavy
def test_an_ordinary_user_makes_the_same(bookworm: BaseImage, user: User, tmp_path: Path) -> None:
    argv = [sys.executable, "-c", AS_USER, str(user.home / "bases"), BASE_VARIANT]
    made = json.loads(user.run(argv, env={"PYTHONPATH": str(Path(__file__).parents[2])}).stdout)
    if made != bookworm.config.digest:
        bookworm = make(tmp_path / "bases", real_site())
    assert made == bookworm.config.digest


@pytest.mark.rig
@pytest.mark.skipif(os.getuid() != 0, reason="only root can become a user without a range of ids")
def test_a_user_without_a_range_of_ids(open_tmp_path: Path, rig: Rig) -> None:
    open_tmp_path.chmod(0o1777)
    done = subprocess.run(
        [sys.executable, "-c", AS_USER, str(open_tmp_path / "bases"), BASE_VARIANT],
        env={"PATH": "/usr/bin:/bin", "HOME": str(open_tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        user=54321,
        group=54321,
        extra_groups=[],
    )
    assert "/etc/subuid" in json.loads(done.stdout)
