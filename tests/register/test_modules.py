"""Images as modules of the real Lmod and the real Environment Modules, run by an ordinary user."""

from __future__ import annotations

import dataclasses
import json
import os
import pty
import select
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from stored_image import put

from hpcbinder.catalog import Catalog
from hpcbinder.cli.main import cli
from hpcbinder.cli.session import Session
from hpcbinder.config import Config, RuntimeConfig
from hpcbinder.errors import RegisterError, UsageError
from hpcbinder.model import Entry
from hpcbinder.register import module_of, register_module, unregister_modules
from hpcbinder.register.modulefile import Module, lua, owner, tcl
from rig import Apptainer, Rig, RigError, User
from rig.modules import module_programs

CONFIG = Config(runtime=RuntimeConfig(name="apptainer"))
NAME = "small/1970.01.01-0123456"
HOSTILE = (
    'x"]] .. os.execute("touch owned") .. [[ $(touch owned) `touch owned` [exec touch owned] ${PATH} \\ } {\n%s\u00e9'
)


@pytest.fixture(scope="session")
def programs(rig: Rig) -> dict[str, str]:
    try:
        return module_programs(rig.folder)
    except RigError as error:
        pytest.skip(f"rig: {error}")


@dataclasses.dataclass
class Line:
    """A store with a small image, its module, and a user who loads it."""

    catalog: Catalog
    entry: Entry
    user: User
    folder: Path
    work: Path
    programs: dict[str, str]

    def bash(self, program: str, script: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        text = f"{self.programs[program]}module use {self.folder}\n{script}"
        env = {"LC_ALL": "C.UTF-8"}
        return self.user.run(["/bin/bash", "-c", text], cwd=self.work, env=env, check=check)


@pytest.fixture
def line(
    apptainer: Apptainer,
    user: User,
    small_image: Entry,
    programs: dict[str, str],
    open_tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Line]:
    monkeypatch.setenv("PATH", f"{apptainer.bin}:/usr/bin:/bin")
    entry = dataclasses.replace(small_image, ref=HOSTILE, source=f"https://example.org/{HOSTILE}")
    work = user.home / "work folder"
    work.mkdir()
    user.own(work)
    catalog = Catalog(open_tmp_path / "store")
    folder = open_tmp_path / "modulefiles"
    register_module(catalog, entry, CONFIG, folder=folder)
    yield Line(catalog, entry, user, folder, work, programs)
    shutil.rmtree(open_tmp_path)


@pytest.mark.parametrize("program", ["lmod", "environment-modules"])
def test_a_module_brings_the_images_commands(line: Line, program: str) -> None:
    words = ["a b", "it's", "$HOME", "*", '"', "-x", ""]
    code = "import os, sys; print(os.environ['IMAGE_ID'], sys.argv[1:], os.getcwd(), sys.stdin.read())"
    done = line.bash(
        program,
        f"""before=$PATH
module load small
command -v python
echo in | python -c {shlex.quote(code)} {shlex.join(words)}
python -c 'raise SystemExit(7)'
echo status $?
module unload small
[ "$PATH" = "$before" ] && echo as it was
command -v python || echo no python
module load {NAME} && command -v python
""",
    )
    bin_ = f"{line.catalog.path}/modules/{line.entry.id}/bin/python"
    lines = [text for text in done.stdout.splitlines() if text]
    assert lines == [
        bin_,
        f"small {words} {line.work} in",
        "status 7",
        "as it was",
        *([str(found)] if (found := shutil.which("python", path="/usr/local/bin:/usr/bin:/bin")) else ["no python"]),
        bin_,
    ]
    assert not list(line.work.iterdir())


@pytest.mark.parametrize("program", ["lmod", "environment-modules"])
def test_what_a_module_says_is_text(line: Line, program: str) -> None:
    for asked in (f"whatis {NAME}", f"help {NAME}", "avail"):
        done = line.bash(program, f"module {asked} 2>&1")
        if asked == "avail":
            # Once: each program takes its own file of the two.
            assert done.stdout.count("small/") == 1 and "1970.01.01-0123456.lua" not in done.stdout
        else:
            assert "touch owned" in done.stdout and "[exec touch owned] ${PATH} \\ } {" in done.stdout
            assert f"Image: {line.entry.id}" in done.stdout
    assert not list(line.work.iterdir())


def test_a_command_ends_with_whom_it_serves_and_leaves_nothing(line: Line) -> None:
    line.bash(
        "lmod", "module load small && timeout --signal=TERM 1 python -c 'import time; time.sleep(600)'", check=False
    )
    for process in line.user.processes():
        assert process.wait(20)


def test_registering_again_changes_nothing_and_unregistering_takes_all(line: Line) -> None:
    def state() -> dict[Path, int]:
        return {
            path: path.stat().st_mtime_ns
            for top in (line.folder, line.catalog.path / "modules")
            for path in top.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }

    before = state()
    made = register_module(line.catalog, line.entry, CONFIG, folder=line.folder)
    assert state() == before and made.name == NAME and "python" in made.commands
    other = register_module(line.catalog, line.entry, CONFIG, folder=line.folder, name="mine/1")
    assert module_of(line.catalog, line.entry.id) in (*made.files, *other.files)
    removed = unregister_modules(line.catalog, line.entry.id)
    assert set(removed) == {*made.files, *other.files}
    assert list(line.folder.iterdir()) == [] and not (line.catalog.path / "modules" / line.entry.id).exists()
    assert unregister_modules(line.catalog, line.entry.id) == () and module_of(line.catalog, line.entry.id) is None


def test_the_command_line_makes_a_module_and_takes_it_back(line: Line) -> None:
    with line.catalog.temporary() as scratch:
        (scratch / "image").mkdir()
        shutil.copy(line.entry.formats["squashfs"], scratch / "image" / "image.squashfs")
        other = dataclasses.replace(line.entry, id="other-0123456789ab", formats={"squashfs": "image.squashfs"})
        line.catalog.add(other, scratch / "image")

    def hpcbinder(*arguments: str) -> str:
        words = ["--store", str(line.catalog.path), *arguments]
        env = {"HOME": str(line.work), "JUPYTER_DATA_DIR": str(line.work)}
        ran = CliRunner().invoke(cli, words, obj=Session(), env=env, standalone_mode=False)
        if ran.exception is not None:
            raise ran.exception
        return ran.stdout

    said = json.loads(hpcbinder("register", "other", "--module", "--runtime", "apptainer", "--json"))
    files = [Path(path) for path in said["module"]["files"]]
    assert said["module"]["name"] == "other/1970.01.01-0123456" and "python" in said["module"]["commands"]
    assert {path.parent for path in files} == {line.catalog.path / "modulefiles" / "other"}
    kept = json.loads(hpcbinder("gc", "--images", "--older-than", "0", "--no-engine", "--json"))["kept"]
    assert kept == {other.id: f"module {files[0]}"}
    assert hpcbinder("unregister", "other").splitlines() == [f"removed module  {path}" for path in files]
    assert not any(path.exists() for path in files)


def test_nobody_elses_modulefile_is_replaced_or_removed(line: Line) -> None:
    foreign = line.folder / "gcc"
    foreign.mkdir()
    (foreign / "12").write_text("#%Module1.0\n")
    with pytest.raises(RegisterError, match="was not made by hpcbinder"):
        register_module(line.catalog, line.entry, CONFIG, folder=line.folder, name="gcc/12")
    assert not (foreign / "12.lua").exists()
    taken = line.folder / "small" / "1970.01.01-0123456"
    taken.write_text("#%Module1.0\n")
    assert str(taken) not in unregister_modules(line.catalog, line.entry.id)
    assert taken.exists() and not taken.with_name(f"{taken.name}.lua").exists()


@pytest.mark.parametrize("name", ["", "../x", "a/b/c", "a b", "a/.b", "-x", "a\n", "x/"])
def test_what_cannot_be_a_modules_name(line: Line, name: str) -> None:
    with pytest.raises(UsageError, match="not a name for a module"):
        register_module(line.catalog, line.entry, CONFIG, folder=line.folder, name=name)


def test_an_image_without_the_file_says_so(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "store")
    with pytest.raises(RegisterError, match="neither a SIF nor a squashfs"):
        register_module(catalog, put(catalog), CONFIG)
    assert not (catalog.path / "modules").exists()


TEXTS = st.lists(
    st.one_of(st.text(), st.sampled_from([HOSTILE, "\0", "\\", '"', "$x", "[x]", "]]", "\r\n", "--"])), min_size=1
)


def module(about: list[tuple[str, str]]) -> Module:
    return Module("small-0123456789ab", "small", "1", about, ("python",), "/store/bin")


@settings(max_examples=25)
@given(TEXTS)
def test_lua_reads_what_was_meant(programs: dict[str, str], texts: list[str]) -> None:
    """Lua itself, with our own `whatis`."""
    text = lua(module([("T", each) for each in texts]))
    prelude = b'function whatis(s) print((s:gsub(".", function(c) return string.format("%02x", c:byte()) end))) end\n'
    rest = b"function help() end\nfunction prepend_path() end\n"
    done = subprocess.run(["lua5.3", "-"], input=prelude + rest + text, capture_output=True, check=True)
    assert done.stdout.split() == [f"T: {each}".encode("utf-8", "replace").hex().encode() for each in texts]
    assert owner(text) == "small-0123456789ab"


@settings(max_examples=25)
@given(TEXTS)
def test_tcl_reads_what_was_meant(programs: dict[str, str], texts: list[str]) -> None:
    """Tcl itself, with our own `module-whatis`."""
    text = tcl(module([("T", each) for each in texts]))
    shown = b'foreach c [split $s ""] { append o [format "%04x" [scan $c %c]] }'
    prelude = b'proc module-whatis {s} { set o "" ; ' + shown + b" ; puts $o }\n"
    rest = b"proc conflict {x} {}\nproc prepend-path {x y} {}\n"
    environ = {**os.environ, "LC_ALL": "C.UTF-8"}
    done = subprocess.run(["tclsh"], input=prelude + rest + text, capture_output=True, check=True, env=environ)
    meant = [[ord(char) if ord(char) < 0x10000 else 0xFFFD for char in f"T: {each}"] for each in texts]
    assert done.stdout.decode().split() == ["".join(f"{code:04x}" for code in codes) for codes in meant]
    assert done.stderr == b"" and owner(text) == "small-0123456789ab"


def test_a_person_at_a_terminal_interrupts_what_runs(line: Line) -> None:
    """Ctrl-C reaches the command and nothing else: an interactive interpreter goes on."""
    script = f"{line.programs['lmod']}module use {line.folder}\nmodule load small\nexec python -i -c 'print(6 * 7)'"
    pid, terminal = pty.fork()
    if pid == 0:
        try:
            command = line.user.command(["/bin/bash", "-c", script])
            os.execvpe(command[0], command, line.user.environment({"TERM": "dumb"}))
        finally:
            os._exit(127)
    said = b""

    def until(mark: bytes) -> None:
        nonlocal said
        while mark not in said:
            assert select.select([terminal], [], [], 120)[0], said
            said += os.read(terminal, 4096)
        said = said.partition(mark)[2]

    until(b"42\r\n>>> ")
    os.write(terminal, b"import time; print('go' + 'ing'); time.sleep(600)\n")
    until(b"going\r\n")
    os.write(terminal, b"\x03")
    until(b"KeyboardInterrupt")
    until(b">>> ")
    os.write(terminal, b"print('still ' + 'here')\n")
    until(b"still here")
    os.write(terminal, b"raise SystemExit(3)\n")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
    os.close(terminal)
