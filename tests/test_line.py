"""The whole line, for real: from a URL to a kernel that runs, through the command line."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from images import Line
from rig import Apptainer, Charliecloud, Rig, User

KEYS = {
    *("id", "source", "ref", "commit", "subdir", "buildpacks", "image", "formats", "kernels", "timings", "size"),
    "pushed",
}

EXECUTE = """
import sys, nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, kernel_name=sys.argv[2], timeout=120).execute()
for cell in notebook.cells:
    print("".join(output.text for output in cell.outputs if output.output_type == "stream"), end="")
"""


def record(line: Line, id_: str) -> dict[str, Any]:
    shown = json.loads(line.hpcbinder("show", id_, "--json").stdout)
    assert isinstance(shown, dict)
    return shown


def test_build_prints_one_object(line: Line, contract_image: dict[str, Any]) -> None:
    assert set(contract_image) == KEYS
    assert contract_image["pushed"] is None
    assert contract_image["image"]["digest"].startswith("sha256:")
    assert set(contract_image["formats"]) == {"sif", "squashfs", "shifter"}
    assert all(Path(path).is_absolute() and Path(path).exists() for path in contract_image["formats"].values())
    assert set(contract_image["timings"]) == {"fetch", "plan", "build", "convert", "register"}
    assert [kernel["language"] for kernel in contract_image["kernels"]] == ["python", "python"]
    names = [kernel["display_name"] for kernel in contract_image["kernels"]]
    assert all(f"contract ({contract_image['commit'][:7]})" in name for name in names)


def test_the_second_build_is_in_the_catalog(line: Line, contract_image: dict[str, Any]) -> None:
    again = line.build(line.repository("contract"))
    assert again["id"] == contract_image["id"]
    assert again["timings"]["build"] == again["timings"]["convert"] == 0


def test_another_format_is_made_when_asked_for(line: Line) -> None:
    source = line.repository("formats", of="edited")
    first = line.build(source, "--format", "squashfs")
    assert set(first["formats"]) == {"squashfs"}
    # Out of the file that is there: no engine is asked.
    alone = replace(line, environment={**line.environment, "DOCKER_HOST": "unix:///nonexistent"})
    second = alone.build(source, "--format", "sif", "--engine", "docker")
    assert set(second["formats"]) == {"sif", "squashfs"} and second["timings"]["build"] == 0
    assert second["image"] == first["image"]
    assert line.build(source, "--format", "sif")["timings"]["convert"] == 0


def test_json_logs_are_events(line: Line, contract_image: dict[str, Any]) -> None:
    done = line.hpcbinder("--json-logs", "build", line.repository("contract"), "--no-register", "--json")
    events = [json.loads(text) for text in done.stderr.splitlines()]
    assert {"fetch", "plan", "build"} <= {event["phase"] for event in events}
    assert all({"phase", "message", "progress"} <= set(event) for event in events)
    failed = line.hpcbinder("--json-logs", "build", "nowhere-at-all", check=False)
    assert json.loads(failed.stderr.splitlines()[-1])["exit_code"] == failed.returncode != 0


@pytest.mark.parametrize("runtime", ["apptainer", "charliecloud"])
def test_the_kernel_runs_a_notebook_with_the_network_off(
    request: pytest.FixtureRequest, line: Line, contract_image: dict[str, Any], user: User, runtime: str
) -> None:
    program: Apptainer | Charliecloud = request.getfixturevalue(runtime)
    environment = {**line.environment, "PATH": f"{Path(program.path).parent}:{os.environ['PATH']}"}
    prefix = line.folder / f"jupyter-{runtime}"
    command = [sys.executable, "-m", "hpcbinder", "--store", str(line.folder / "store"), "register"]
    command += ["--kernel", contract_image["id"], "--prefix", str(prefix), "--runtime", runtime]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    path = {"JUPYTER_PATH": str(prefix / "share/jupyter"), "PATH": f"{Path(program.path).parent}:/usr/bin:/bin"}
    listed = user.run([sys.executable, "-m", "jupyter", "kernelspec", "list", "--json"], env=path)
    names = sorted(name for name in json.loads(listed.stdout)["kernelspecs"] if name.startswith("hpcbinder-"))
    assert len(names) == 2
    notebook = line.folder / "work/contract/notebook.ipynb"
    for name in names:
        done = user.run([sys.executable, "-c", EXECUTE, notebook, name], env=path, network=False)
        assert done.stdout.startswith("1.17.0 by start "), done.stderr


def test_run_passes_words_and_status(
    line: Line, contract_image: dict[str, Any], user: User, apptainer: Apptainer
) -> None:
    command = [sys.executable, "-m", "hpcbinder", "--store", line.folder / "store", "run", contract_image["id"], "--"]
    path = {"PATH": f"{Path(apptainer.path).parent}:/usr/bin:/bin"}
    done = user.run([*command, "sh", "-c", 'printf "%s|" "$@"; exit 7', "sh", "a b", "$HOME"], env=path, check=False)
    assert (done.returncode, done.stdout) == (7, "a b|$HOME|")


def test_list_show_plan_and_config_speak_to_people(line: Line, contract_image: dict[str, Any]) -> None:
    id_ = contract_image["id"]
    assert id_ in line.hpcbinder("list").stdout
    assert id_ in [entry["id"] for entry in json.loads(line.hpcbinder("list", "--json").stdout)]
    shown = line.hpcbinder("show", id_[:-4]).stdout
    assert "six 1.17.0" in shown
    assert "apt.txt" in shown
    assert "as of" in shown
    plan = line.hpcbinder("plan", line.repository("contract")).stdout
    for name in ("apt.txt", "requirements.txt", "postBuild", "start"):
        assert name in plan
    recipe = line.hpcbinder("plan", line.repository("contract"), "--format", "dockerfile").stdout
    assert "FROM " in recipe
    assert "content/srv/repo/notebook.ipynb" in recipe
    assert json.loads(line.hpcbinder("plan", line.repository("contract"), "--json").stdout)["id"] == id_
    assert "flag" in line.hpcbinder("config").stdout


def test_one_edited_cell_rebuilds_one_layer(line: Line) -> None:
    def edit(folder: Path) -> None:
        notebook = folder / "notebook.ipynb"
        notebook.write_text(notebook.read_text().replace("six.__version__", "six.__version__.strip()"))

    before = record(line, line.build(line.repository("edited"))["id"])["config"]["diff_ids"]
    after = record(line, line.build(line.repository("edited", edit))["id"])["config"]["diff_ids"]
    assert len(before) == len(after)
    assert sum(old != new for old, new in zip(before, after, strict=True)) == 1


def test_two_builds_of_the_same_at_once_do_the_work_once(line: Line) -> None:
    url = line.repository("together", of="edited")
    command = [sys.executable, "-m", "hpcbinder", "--store", str(line.folder / "store"), "build", url]
    command += ["--json", "--no-register"]
    running = [
        subprocess.Popen(command, env=line.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    results = [json.loads(process.communicate(timeout=900)[0]) for process in running]
    assert results[0]["id"] == results[1]["id"]
    assert sorted(result["timings"]["convert"] > 0 for result in results) == [False, True]


@pytest.mark.heavy
def test_kill_in_the_middle_and_build_again(line: Line) -> None:
    url = line.repository("killed", of="edited")
    command = [sys.executable, "-m", "hpcbinder", "--store", str(line.folder / "store"), "build", url, "--no-register"]
    before = set((line.folder / "store").rglob("*"))
    for phase in ("build", "convert"):
        process = subprocess.Popen(
            [*command[:3], "--json-logs", *command[3:]], env=line.environment, stderr=subprocess.PIPE, text=True
        )
        assert process.stderr is not None
        for text in process.stderr:
            if json.loads(text)["phase"] == phase:
                break
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stderr.close()
        assert not [entry for entry in json.loads(line.hpcbinder("list", "--json").stdout) if "killed" in entry["id"]]
    built = json.loads(line.hpcbinder(*command[5:], "--json").stdout)
    for path in built["formats"].values():
        assert Path(path).exists()
    left = {p for p in set((line.folder / "store").rglob("*")) - before if "partial" in p.name or "tmp" in p.parts}
    assert [path for path in left if path.is_file()] == []


@pytest.mark.heavy
def test_a_gibibyte_of_data_keeps_our_process_small(line: Line, rig: Rig) -> None:
    folder = line.folder / "large"
    folder.mkdir(exist_ok=True)
    (folder / "README.md").write_text("a gibibyte of data\n")
    subprocess.run(["dd", "if=/dev/urandom", f"of={folder}/data.bin", "bs=1M", "count=1024", "status=none"], check=True)
    program = (
        "import sys\nsys.path.insert(0, sys.argv.pop(1))\nimport memory\nfrom hpcbinder.cli.main import main\n"
        "try:\n    main(sys.argv[1:])\nfinally:\n"
        "    print('rss', memory.peak() // 1024, file=sys.stderr)\n"
    )
    command = [
        sys.executable,
        "-c",
        program,
        str(Path(__file__).parent),
        "--store",
        str(line.folder / "store"),
        "build",
        str(folder),
        "--json",
    ]
    try:
        done = subprocess.run(
            [*command, "--no-register", "--format", "sif"], env=line.environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        rss = int(done.stderr.split("rss")[-1])
        print(f"peak RSS {rss} MiB")
        assert rss < 150
        result = json.loads(done.stdout)
        assert result["size"] > 2**30
        line.hpcbinder("rm", result["id"])
    finally:
        subprocess.run(["rm", "-rf", str(folder)], check=True)


def test_run_without_a_command_is_jupyterlab_on_a_copy(
    line: Line, contract_image: dict[str, Any], user: User, apptainer: Apptainer
) -> None:
    command = [sys.executable, "-m", "hpcbinder", "--store", line.folder / "store", "run", contract_image["id"]]
    process = user.popen(command, env={"PATH": f"{apptainer.bin}:/usr/bin:/bin"}, cwd=user.home)
    try:
        assert process.stdout is not None
        urls = (word for text in process.stdout for word in str(text).split() if word.startswith("http://127.0.0.1"))
        url, _, token = next(urls).partition("/lab?token=")
        request = urllib.request.Request(f"{url}/api/contents", headers={"Authorization": f"token {token}"})
        for _ in range(600):  # the URL is printed just before the server listens
            try:
                listing = json.load(urllib.request.urlopen(request, timeout=30))
                break
            except OSError:
                time.sleep(0.2)
        assert "notebook.ipynb" in {item["name"] for item in listing["content"]}
        assert (user.home / contract_image["id"] / "notebook.ipynb").exists()
    finally:
        process.send_signal(signal.SIGINT)
        time.sleep(1)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def test_jupyterlab_opens_in_a_person_s_space_which_git_knows(
    line: Line, contract_image: dict[str, Any], user: User, apptainer: Apptainer
) -> None:
    store = ["--store", str(line.folder / "store")]
    command = [sys.executable, "-m", "hpcbinder", *store, "run", "--space", "--open", "notebook.ipynb"]
    process = user.popen([*command, contract_image["id"]], env={"PATH": f"{apptainer.bin}:/usr/bin:/bin"})
    try:
        assert process.stdout is not None
        urls = (word for text in process.stdout for word in str(text).split() if word.startswith("http://127.0.0.1"))
        assert "/lab/tree/notebook.ipynb?token=" in next(urls)
    finally:
        process.kill()
        process.communicate(timeout=60)
    copy = user.home / "binder" / contract_image["id"].rpartition("-")[0]
    (copy / "notebook.ipynb").write_text("{}")
    (copy / "mine.txt").touch()
    assert user.run(["git", "status", "--porcelain"], cwd=copy).stdout == " M notebook.ipynb\n?? mine.txt\n"
    assert user.run(["git", "rev-parse", "HEAD"], cwd=copy).stdout.strip() == contract_image["commit"]


def test_unregister_leaves_the_image(line: Line) -> None:
    built = line.build(line.repository("unregistered", of="edited"))
    removed = line.hpcbinder("unregister", built["id"]).stdout
    assert all(kernel["name"] in removed for kernel in built["kernels"])
    assert not any(Path(kernel["path"]).exists() for kernel in built["kernels"])
    assert record(line, built["id"])["registered"] == []
    assert "no kernel" in line.hpcbinder("unregister", built["id"]).stdout
    again = line.hpcbinder("register", built["id"], "--kernel", "--prefix", str(line.folder / "jupyter")).stdout
    assert all(Path(kernel["path"]).exists() for kernel in built["kernels"])
    assert again == line.hpcbinder("register", built["id"], "--kernel", "--prefix", str(line.folder / "jupyter")).stdout


def test_rm_leaves_neither_kernel_nor_image(line: Line) -> None:
    built = line.build(line.repository("removed", of="edited"))
    assert all(Path(kernel["path"]).is_dir() for kernel in built["kernels"])
    assert line.hpcbinder("rm", built["id"], "nothing", check=False).returncode == 8
    assert line.hpcbinder("rm", built["id"], built["id"][:-2]).stdout == f"removed {built['id']}\n"
    assert not any(Path(kernel["path"]).exists() for kernel in built["kernels"])
    assert not any(Path(path).exists() for path in built["formats"].values())
    assert line.hpcbinder("show", built["id"], check=False).returncode == 8


def test_labels_with_quotes_and_dollars_stay_labels(line: Line) -> None:
    folder = line.folder / 'x" evil="1 $HOME ${PATH} \\'
    folder.mkdir(exist_ok=True)
    (folder / "README.md").write_text("x\n")
    built = line.build(str(folder), "--no-register")
    labels = record(line, built["id"])["config"]["labels"]
    assert "evil" not in labels
    assert labels["org.opencontainers.image.source"] == str(folder)


def test_a_folder_whose_name_forges_dockerfile_lines_is_refused(line: Line) -> None:
    folder = line.folder / 'x"\nLABEL forged=1\nRUN touch x'
    folder.mkdir(exist_ok=True)
    done = line.hpcbinder("build", str(folder), "--no-register", check=False)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


def test_a_failing_step_is_one_line_with_its_output(line: Line) -> None:
    done = line.hpcbinder("build", line.repository("failing"), "--no-register", check=False)
    assert done.returncode == 5
    message = done.stderr.splitlines()[-1]
    assert "postBuild" in message or "postbuild" in message
    assert "the reason it failed / hpcbinder: postBuild:4: failed with status 3: exit 3" in message
    assert "Traceback" not in done.stderr
    (id_,) = re.findall(r"hpcbinder logs (failing-[0-9a-f]{12})", message)
    log = line.hpcbinder("logs", id_).stdout.splitlines()
    assert any(said.endswith("| the reason it failed") for said in log)
    assert "failed: step" in log[-1]
