"""An image that is not all ours: nothing in it can run a notebook, and its repository has names of all kinds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from notebook_files import notebook
from small_image import small_image  # noqa: F401

from hpcbinder.catalog import Catalog
from hpcbinder.config import Config
from hpcbinder.errors import UsageError
from hpcbinder.model import Entry
from hpcbinder.progress import Silent
from hpcbinder.verify import Status, Verification, Wish, verify
from hpcbinder.verify.content import image_content
from rig import Apptainer

ODD = "a\n'b\"$(touch owned) \udcff.ipynb"


def verified(entry: Entry, wish: Wish, folder: Path) -> Verification:
    return verify(entry, wish, Config(), Catalog(folder / "store"), Silent())


def test_without_nbclient_imports_are_tried_and_nothing_is_run(
    small_image: Entry,  # noqa: F811
    apptainer: Apptainer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", f"{Path(apptainer.path).parent}:{os.environ['PATH']}")
    checkout = tmp_path / "checkout"
    (checkout / ".ipynb_checkpoints").mkdir(parents=True)
    (checkout / ".ipynb_checkpoints" / "old.ipynb").write_bytes(b"")
    (checkout / ODD).write_bytes(notebook("import ipykernel, nbclient"))
    (checkout / "pipe.ipynb").symlink_to("/dev/zero")
    os.mkfifo(checkout / "fifo.ipynb")
    found = verified(small_image, Wish(checkout=checkout), tmp_path)
    assert [(verdict.notebook, verdict.status) for verdict in found.notebooks] == [(ODD, Status.UNTRIED)]
    assert found.notebooks[0].line == "not run: no Python in the image has nbclient"
    assert [(missing.module, missing.distribution) for missing in found.missing] == [("nbclient", "nbclient")]
    assert (found.passed, found.network) == (False, "off")
    assert not (tmp_path / "owned").exists()
    with_network = verified(small_image, Wish(checkout=checkout, run=False, network=True), tmp_path)
    assert (with_network.network, with_network.ran, with_network.passed) == ("on", False, False)


def test_what_the_image_holds(small_image: Entry) -> None:  # noqa: F811
    with image_content(small_image) as content:
        assert content.paths() == ["a line\nend", "notebook.ipynb"]
        assert content.read("notebook.ipynb", 100) == b"{}\n"


@pytest.mark.parametrize("word", ["missing.ipynb", "../../etc/passwd", "/etc/passwd", "a line\nend", ""])
def test_a_notebook_that_nobody_has(small_image: Entry, tmp_path: Path, word: str) -> None:  # noqa: F811
    (tmp_path / "checkout/sub").mkdir(parents=True)
    with pytest.raises(UsageError, match="the repository has no notebook"):
        verified(small_image, Wish(notebooks=(word,), checkout=tmp_path / "checkout"), tmp_path)
