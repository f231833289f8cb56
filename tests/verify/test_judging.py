"""From what happened to a verdict, without a run."""

from __future__ import annotations

import json
import re
from importlib import resources
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from notebook_files import cell, notebook

from hpcbinder.notebooks import Notebook, read_notebook
from hpcbinder.verify import Status, Verdict
from hpcbinder.verify.causes import distribution, likely_cause
from hpcbinder.verify.judge import Bounds, Happened, Raised, judge, may_fail
from hpcbinder.verify.running import happened

BOUNDS = Bounds(cell=60, notebook=600, memory=1 << 30)
NAMES = ("ImportError", "ModuleNotFoundError", "KeyError", "FileNotFoundError", "OSError", "URLError", "", "a\nb")


def of(*cells: str | dict[str, Any], **metadata: Any) -> Notebook:
    return read_notebook("a.ipynb", notebook(*cells, **metadata))


def judged(read: Notebook, run: Happened, *, offline: bool = True, paths: tuple[str, ...] = ()) -> Verdict:
    return judge(read, run, kernel="python3", paths=paths, offline=offline, bounds=BOUNDS)


def failed(name: str, message: str, index: int = 0, traceback: str = "") -> Happened:
    return Happened("error", tuple(range(index + 1)), (Raised(index, name, message, traceback),))


@given(
    how=st.sampled_from(
        ["done", "error", "timeout", "dead", "lost", "time", "memory", "unreadable", "nbclient", "gone"]
    ),
    begun=st.lists(st.integers(-3, 9), max_size=5),
    raised=st.lists(st.tuples(st.integers(-3, 9), st.sampled_from(NAMES), st.text(max_size=80)), max_size=3),
    saved=st.lists(st.sampled_from(NAMES[:4]), min_size=1, max_size=4),
    offline=st.booleans(),
    started=st.booleans(),
    said=st.lists(st.tuples(st.integers(-3, 9), st.booleans()), max_size=4),
    end=st.tuples(st.none() | st.integers(-70, 200), st.text(max_size=80)),
)
def test_a_verdict_on_whatever_happened(
    how: str,
    begun: list[int],
    raised: list[tuple[int, str, str]],
    saved: list[str],
    offline: bool,
    started: bool,
    said: list[tuple[int, bool]],
    end: tuple[int | None, str],
) -> None:
    read = of(*(cell("1/0", saved=name) for name in saved))
    errors = tuple(Raised(index, name, text, text) for index, name, text in raised)
    run = Happened(how, tuple(begun), errors, started, "x", 1.0, tuple(said), *end)
    verdict = judged(read, run, offline=offline)
    assert not any("\n" in text for text in (verdict.line, verdict.cause, *verdict.notes))
    assert len(verdict.changed) <= verdict.compared <= len(saved)
    if verdict.status is Status.RUNS:
        assert how == "done" and verdict.failure is None
        pairs = [{name, saved[index]} for index, name, _ in raised]
        assert all(len(pair) == 1 or pair <= {*NAMES[:2]} or pair <= {*NAMES[3:5]} for pair in pairs)
    if how == "done" and not raised:
        assert verdict.status is Status.RUNS
    if not offline:
        assert verdict.status is not Status.NETWORK


@given(
    st.lists(
        st.recursive(
            st.none() | st.integers() | st.text(max_size=5),
            lambda i: (
                st.lists(i, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["event", "index", "name", "message", "how", "traceback"]), i, max_size=6
                )
            ),
            max_leaves=6,
        ),
        max_size=6,
    )
)
def test_events_that_the_notebook_wrote_itself(lines: list[Any]) -> None:
    run = happened(lines, "", "the last words\n", 1.0)
    assert judged(of("x"), run).line


def test_an_error_that_was_saved_or_that_a_cell_is_tagged_for() -> None:
    read = of(cell("1/0", saved="ZeroDivisionError"), cell("x", tags=("raises-exception",)), "y")
    assert may_fail(read) == (0, 1)
    errors = (Raised(0, "ZeroDivisionError", "division by zero", ""), Raised(1, "NameError", "x", ""))
    verdict = judged(read, Happened("done", (0, 1, 2), errors))
    assert (verdict.status, verdict.ran) == (Status.RUNS, 3)
    assert verdict.line == "runs (3 cells, 2 of them fail on purpose: ZeroDivisionError, NameError)"
    assert judged(of("1/0", allow_errors=True), failed("KeyError", "x")).status is not Status.RUNS
    assert (
        judged(of("1/0", allow_errors=True), Happened("done", (0,), (Raised(0, "KeyError", "", ""),))).status
        is Status.RUNS
    )


def test_another_error_than_the_saved_one() -> None:
    verdict = judged(of(cell("import h5py", saved="KeyError")), failed("ModuleNotFoundError", "No module named 'h5py'"))
    assert verdict.status is Status.FAILS
    assert verdict.notes == ("the saved notebook fails there too, with another error: KeyError",)
    renamed = Happened("done", (0,), (Raised(0, "ModuleNotFoundError", "No module named 'h5py'", ""),))
    assert judged(of(cell("import h5py", saved="ImportError")), renamed).status is Status.RUNS


TRACEBACK = """\x1b[31m---------------------------------------------------------------------------\x1b[39m
AttributeError                            Traceback (most recent call last)
\x1b[36mCell\x1b[39m\x1b[36m \x1b[39m\x1b[32mIn[7]\x1b[39m\x1b[32m, line 2\x1b[39m
\x1b[32m      1\x1b[39m import tool
\x1b[32m----> \x1b[39m\x1b[32m2\x1b[39m \x1b[43mtool\x1b[49m.read(f)

\x1b[36mFile \x1b[39m\x1b[32m/srv/repo/tool.py:12\x1b[39m, in \x1b[36mread\x1b[39m\x1b[34m(f)\x1b[39m
\x1b[32m---> 12\x1b[39m     return f["strain"].value

AttributeError: 'Dataset' object has no attribute 'value'"""


def test_where_it_failed() -> None:
    read = of("x", "import tool\ntool.read(f)")
    verdict = judged(read, failed("AttributeError", "'Dataset' object has no attribute 'value'", 1, TRACEBACK))
    assert verdict.line == "fails at cell 2: AttributeError: 'Dataset' object has no attribute 'value'"
    assert "h5py 3 removed .value" in verdict.cause and "--as-of commit" in verdict.cause
    assert verdict.failure is not None
    assert (verdict.failure.cell, verdict.failure.line) == (2, "tool.read(f)")
    assert verdict.failure.frame == "/srv/repo/tool.py:12 in read(f)"
    assert verdict.ran == 1


def test_the_network() -> None:
    message = "<urlopen error [Errno -3] Temporary failure in name resolution>"
    assert judged(of("x"), failed("URLError", message)).status is Status.NETWORK
    assert judged(of("x"), failed("URLError", message), offline=False).status is Status.FAILS
    assert (
        judged(of("x"), failed("ReadTimeout", "x", 0, "gaierror: Name or service not known")).status is Status.NETWORK
    )
    fetched = judged(
        of("!wget http://example.org/a.csv", "open('a.csv')"),
        failed("FileNotFoundError", "[Errno 2] No such file or directory: 'a.csv'", 1),
    )
    assert fetched.status is Status.NETWORK
    assert fetched.line == "needs the network: cell 2 wants a.csv, which cell 1 may fetch (wget)"


def test_a_shell_that_fetches_in_vain() -> None:
    message = "Command 'b'wget http://example.org/a\\n'' returned non-zero exit status 4."
    verdict = judged(of("%%bash\nwget http://example.org/a"), failed("CalledProcessError", message))
    assert verdict.status is Status.NETWORK
    assert judged(of("%%bash\nfalse"), failed("CalledProcessError", message)).status is Status.FAILS


@pytest.mark.parametrize(
    ("name", "message", "path"),
    [
        ("FileNotFoundError", "[Errno 2] No such file or directory: 'data/big.h5'", "data/big.h5"),
        (
            "FileNotFoundError",
            "[Errno 2] Unable to synchronously open file (unable to open file: name = '/scratch/x y.h5', errno = 2, "
            "error message = 'No such file or directory')",
            "/scratch/x y.h5",
        ),
        ("OSError", "big.npy not found.", "big.npy"),
        ("FileNotFoundError", "File b'big.csv' does not exist: b'big.csv'", "big.csv"),
    ],
)
def test_a_data_file(name: str, message: str, path: str) -> None:
    verdict = judged(of("x"), failed(name, message))
    assert verdict.status is Status.DATA
    assert path in verdict.line


def test_a_file_that_the_repository_has_elsewhere() -> None:
    verdict = judged(
        of("x"), failed("FileNotFoundError", "No such file or directory: '../x/a.csv'"), paths=("data/a.csv",)
    )
    assert (verdict.status, "data/a.csv" in verdict.cause) == (Status.FAILS, True)


def test_a_program_that_is_not_there() -> None:
    traceback = "File /usr/lib/python3.11/subprocess.py:1955, in Popen._execute_child(self)\n"
    verdict = judged(
        of("x"), failed("FileNotFoundError", "[Errno 2] No such file or directory: 'ffmpeg'", 0, traceback)
    )
    assert (verdict.status, verdict.cause) == (Status.FAILS, "the program ffmpeg is not in the image (apt.txt)")


@pytest.mark.parametrize("later", ["def secret(image):\n    pass", "secret = 1", "from code import (open, secret)"])
def test_a_name_that_a_later_cell_brings(later: str) -> None:
    gone = failed("NameError", "name 'secret' is not defined", 1)
    verdict = judged(of("x", "secret()", "y", later), gone)
    assert verdict.cause == "cell 4, further down, defines it: its cells were run in another order"
    assert judged(of("x", "secret()", "secret += 1\nno_secret = 1"), gone).cause == ""


def test_a_module_that_is_not_there() -> None:
    gone = "No module named 'sklearn'"
    assert judged(of("x"), failed("ModuleNotFoundError", gone)).cause == (
        "sklearn is not in the image: add scikit-learn to the requirements"
    )
    installed = judged(of("%pip install scikit-learn", "x"), failed("ModuleNotFoundError", gone, 1))
    assert installed.cause.startswith("cell 1 installs packages from within the notebook (pip install)")


@pytest.mark.parametrize(
    ("how", "status", "line"),
    [
        ("timeout", Status.TIMEOUT, "takes too long: cell 2 takes longer than 60 s"),
        ("time", Status.TIMEOUT, "takes too long: the notebook takes longer than 600 s, and was at cell 2"),
        ("memory", Status.FAILS, "fails at cell 2: needs more than 1024 MiB of memory"),
        ("dead", Status.FAILS, "fails at cell 2: the kernel died"),
        ("gone", Status.FAILS, "fails at cell 2: words"),
        ("nbclient", Status.UNTRIED, "not run: no Python in the image has nbclient"),
        ("unreadable", Status.UNREADABLE, "cannot be read: words"),
    ],
)
def test_an_end_without_an_error(how: str, status: Status, line: str) -> None:
    verdict = judged(of("x", "y"), Happened(how, (0, 1), message="words"))
    assert (verdict.status, verdict.line) == (status, line)


LOADER = """Traceback (most recent call last):
  File "/opt/env/lib/python3.11/site-packages/ipykernel_launcher.py", line 3, in <module>
    import zmq
ImportError: libsodium.so.23: cannot open shared object file: No such file or directory
"""


@pytest.mark.parametrize(
    ("status", "words", "line", "cause"),
    [
        (-9, "", "the kernel died (SIGKILL)", "it was killed, mostly for memory"),
        (137, "", "the kernel died (SIGKILL)", "it was killed, mostly for memory"),
        (-11, "", "the kernel died (SIGSEGV)", "a crash in compiled code"),
        (-4, "", "the kernel died (SIGILL)", "for another processor"),
        (-6, "terminate called after throwing an instance of 'std::bad_alloc'\n", "(SIGABRT)", "not enough memory"),
        (127, "x: symbol lookup error: x: undefined symbol: f\n", "(exit status 127)", "of another version"),
        (3, "", "the kernel ended (exit status 3)", "the notebook ended it"),
        (1, LOADER, "the kernel ended (exit status 1)", "the library libsodium.so.23 is not in the image"),
        (-64, "", "the kernel died (", "a crash in compiled code, not enough memory"),
        (None, "", "the kernel died", "a crash in compiled code, not enough memory"),
    ],
)
def test_why_a_kernel_died(status: int | None, words: str, line: str, cause: str) -> None:
    verdict = judged(of("x", "y"), Happened("dead", (0, 1), status=status, words=words))
    assert verdict.line.startswith("fails at cell 2: the kernel") and line in verdict.line
    assert cause in verdict.cause


def test_a_kernel_that_does_not_start_and_its_last_words() -> None:
    message = "RuntimeError: Kernel died before replying to kernel_info"
    noise = "[IPKernelApp] WARNING | Kernel is running over TCP without encryption.\n"
    verdict = judged(of("x"), Happened("lost", (), (), False, message, status=1, words=noise + LOADER))
    assert verdict.line.startswith("fails at its start: ImportError: libsodium.so.23: cannot open")
    assert "libsodium.so.23" in verdict.cause
    assert verdict.notes[0] == "the kernel's last words:" and verdict.notes[-1].startswith("ImportError: libsodium")
    assert not any("IPKernelApp" in note for note in verdict.notes)
    gone = "ModuleNotFoundError: No module named 'yaml'\n"
    verdict = judged(of("x"), Happened("lost", (), (), False, message, status=1, words=gone))
    assert (verdict.cause, len(verdict.notes)) == ("yaml is not in the image: add PyYAML to the requirements", 1)
    assert judged(of("x"), Happened("lost", (), (), False, message)).line == f"fails at its start: {message}"


def test_what_is_said_now_is_compared_with_what_was_saved() -> None:
    done = Happened("done", (0, 1, 2), said=((0, True), (1, False), (2, False), (7, False)))
    verdict = judged(of("x", "y", "z"), done)
    assert verdict.status is Status.RUNS
    assert (verdict.compared, verdict.changed) == (3, (2, 3))
    assert verdict.notes == ("cells 2, 3: another text than was saved (of 3 that were compared)",)
    assert judged(of("x"), Happened("done", (0,), said=((0, True),))).notes == ()
    many = judged(of(*"abcdefghijklm"), Happened("done", (), said=tuple((index, False) for index in range(13))))
    assert many.notes[0].startswith("cells 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 3 more: ")


def test_an_end_that_the_notebook_wrote_itself() -> None:
    line = {"event": "end", "how": "dead", "status": 10**30, "words": ["x"]}
    assert happened([line, {"event": "said", "index": 0, "same": "yes"}], "", "", 1.0).status is None


ERRORS = [
    ("AttributeError", "module 'numpy' has no attribute 'int'", "np.int"),
    ("AttributeError", "`np.string_` was removed in the NumPy 2.0 release. Use `np.bytes_` instead.", "np.string_"),
    ("ModuleNotFoundError", "No module named 'sklearn.externals'", "scikit-learn 0.23"),
    ("AttributeError", "'DataFrame' object has no attribute 'append'", "DataFrame.append"),
    ("ValueError", "Invalid frequency: M. Failed to parse with error message", "pandas 3"),
    ("AttributeError", "module 'matplotlib.cm' has no attribute 'get_cmap'", "Matplotlib 3.11 removed cm.get_cmap"),
    ("ModuleNotFoundError", "No module named 'pkg_resources'", "setuptools<81"),
    ("ImportError", "No module named html", "too new for this Python"),
    ("SyntaxError", "Missing parentheses in call to 'print'. Did you mean print(...)? (1.py, line 1)", "Python 2 code"),
    ("ImportError", "libGL.so.1: cannot open shared object file: No such file or directory", "libGL.so.1"),
    ("StdinNotImplementedError", "raw_input was called, but this frontend does not support input requests.", "input"),
    ("UsageError", "Line magic function `%tensorflow_version` not found.", "%tensorflow_version"),
]


@pytest.mark.parametrize(("name", "message", "word"), ERRORS)
def test_the_table_knows(name: str, message: str, word: str) -> None:
    assert word in likely_cause(name, message)


def test_each_group_that_a_sentence_names_is_there() -> None:
    text = resources.files("hpcbinder.verify").joinpath("causes.toml").read_text("utf-8")
    says = re.findall(r'^message = "(.*)"\nsays = "(.*)"$', text, re.MULTILINE)
    assert len(says) == text.count("[[cause]]")
    for message, sentence in says:
        groups = re.compile(json.loads(f'"{message}"')).groups
        assert all(int(number) <= groups for number in re.findall(r"\{(\d)\}", sentence)), sentence


def test_what_brings_a_module() -> None:
    assert [distribution(name) for name in ("cv2", "sklearn.svm", "PIL.Image", "numpy")] == [
        *("opencv-python-headless", "scikit-learn", "pillow", "numpy")
    ]
