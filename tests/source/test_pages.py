"""The addresses that stand in READMEs and browsers, looked for in a local repository through git's
`url.<local>.insteadOf` (git-config(1)), as a person behind a mirror does it."""

from __future__ import annotations

from pathlib import Path

import pytest
from gitrepo import Listener, Repository

from hpcbinder.errors import FetchError, UsageError
from hpcbinder.model import Checkout
from hpcbinder.source import fetch

GITHUB = "https://github.com/organization/repository"
GITLAB = "https://gitlab.com/group/subgroup/repository"


@pytest.fixture
def mirrored(tmp_path: Path, home: Path) -> Repository:
    repository = Repository(tmp_path / "mirror" / "repository")
    (home / ".gitconfig").write_text(
        f'[url "{repository.url}"]\n insteadOf = {GITHUB}\n insteadOf = {GITLAB}\n'
        f" insteadOf = git@github.com:organization/repository\n insteadOf = https://git.example.org/g/repository\n"
    )
    repository.commit(top="1", folder___deep___a="1")
    repository.git("tag", "v1.0")
    repository.git("branch", "feature/x")
    repository.commit(top="2")
    return repository


@pytest.fixture
def get(workdir: Path, listener: Listener) -> Get:
    return Get(workdir, listener)


class Get:
    def __init__(self, workdir: Path, listener: Listener) -> None:
        self.workdir, self.listener, self.count = workdir, listener, 0

    def __call__(self, spec: str, *, ref: str | None = None, subdir: str | None = None) -> Checkout:
        self.count += 1
        workdir = self.workdir / str(self.count)
        workdir.mkdir()
        return fetch(spec, ref=ref, subdir=subdir, workdir=workdir, reporter=self.listener)


@pytest.mark.parametrize(
    ("spec", "source"),
    [
        (GITHUB, GITHUB),
        (f"{GITHUB}.git", f"{GITHUB}.git"),
        ("gh:organization/repository", GITHUB),
        ("gl:group/subgroup/repository", GITLAB),
        ("git@github.com:organization/repository", "git@github.com:organization/repository"),
    ],
)
def test_what_a_readme_names_is_had_from_the_persons_mirror(
    mirrored: Repository, get: Get, spec: str, source: str
) -> None:
    if spec.endswith(".git"):
        mirrored.path.with_name("repository.git").symlink_to(mirrored.path)
    checkout = get(spec)
    assert (checkout.root / "top").read_text() == "2"
    assert (checkout.source, checkout.name) == (source, "repository")


@pytest.mark.parametrize(
    ("page", "ref", "subdir", "top"),
    [
        (f"{GITHUB}/tree/main", "main", "", "2"),
        (f"{GITHUB}/tree/main/folder/deep", "main", "folder/deep", None),
        (f"{GITHUB}/tree/feature/x/folder", "feature/x", "folder", None),
        (f"{GITHUB}/tree/v1.0/", "v1.0", "", "1"),
        (f"{GITHUB}/blob/v1.0/folder/deep/a?raw=true#L3", "v1.0", "", "1"),
        (f"{GITHUB}/releases/tag/v1.0", "v1.0", "", "1"),
        (f"{GITHUB}/tree/HEAD/folder", "HEAD", "folder", None),
        (f"{GITLAB}/-/tree/feature/x/folder?ref_type=heads", "feature/x", "folder", None),
        (f"{GITLAB}/-/blob/main/folder/deep/a", "main", "", "2"),
        ("https://git.example.org/g/repository/-/tree/v1.0/folder", "v1.0", "folder", None),
    ],
)
def test_a_page_is_its_repository_ref_and_folder(
    mirrored: Repository, get: Get, page: str, ref: str, subdir: str, top: str | None
) -> None:
    checkout = get(page)
    assert (checkout.ref, checkout.subdir) == (ref, subdir)
    assert checkout.source in (GITHUB, GITLAB, "https://git.example.org/g/repository")
    if top is not None:
        assert (checkout.root / "top").read_text() == top


def test_a_page_of_a_commit(mirrored: Repository, get: Get) -> None:
    old = mirrored.git("rev-parse", "v1.0")
    for page in (f"{GITHUB}/commit/{old}", f"{GITHUB}/tree/{old}", f"{GITHUB}/blob/{old}/folder/deep/a"):
        assert get(page).commit == old
    assert get(f"{GITHUB}/tree/{old}/folder").subdir == "folder"


def test_a_page_that_can_mean_two_things_is_asked_about(mirrored: Repository, get: Get) -> None:
    mirrored.git("tag", "feature")  # no branch can be called so beside feature/x, a tag can
    with pytest.raises(FetchError, match="'feature/x/folder' can mean feature and feature/x .*--ref and --subdir"):
        get(f"{GITHUB}/tree/feature/x/folder")
    assert get(GITHUB, ref="feature/x", subdir="folder").subdir == "folder"


def test_a_page_that_is_not_there(mirrored: Repository, get: Get) -> None:
    with pytest.raises(FetchError, match="no branch or tag is the beginning of 'devlop/x'"):
        get(f"{GITHUB}/tree/devlop/x")
    with pytest.raises(FetchError, match="is not in the repository"):
        get(f"{GITHUB}/tree/main/gone")


def test_a_page_says_ref_and_folder_itself(mirrored: Repository, get: Get) -> None:
    for options in ({"ref": "main"}, {"subdir": "folder"}):
        with pytest.raises(UsageError, match="says what is meant already"):
            get(f"{GITHUB}/tree/v1.0", **options)


@pytest.mark.parametrize(
    "words", ["--upload-pack=x/y", "..", "main/../..", "main/%2e%2e/x", "a%0ab", "main/.git/config", "%2e%2e%2f%2e%2e"]
)
def test_a_page_is_no_option_and_leads_nowhere(mirrored: Repository, get: Get, words: str) -> None:
    with pytest.raises((FetchError, UsageError)) as caught:
        get(f"{GITHUB}/tree/{words}")
    assert len(str(caught.value).splitlines()) == 1
