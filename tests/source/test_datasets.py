"""Datasets of archives, from stand-ins for them (see `archives.py`): the real ones cannot be asked by a test."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from archives import Answer, Archives, archives, data, moved, tarred, zipped
from gitrepo import Listener, Repository

from hpcbinder.config import SourceConfig
from hpcbinder.errors import FetchError, UsageError
from hpcbinder.model import Change, Checkout
from hpcbinder.source import fetch


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Archives]:
    with archives(tmp_path) as made:
        yield made


@pytest.fixture
def get(web: Archives, workdir: Path, listener: Listener) -> Get:
    return Get(web, workdir, listener)


class Get:
    """`fetch` through the stand-ins, each time into a folder of its own."""

    def __init__(self, web: Archives, workdir: Path, listener: Listener) -> None:
        self.web, self.workdir, self.listener, self.count = web, workdir, listener, 0

    def __call__(
        self, spec: str, *, ref: str | None = None, subdir: str | None = None, source: SourceConfig | None = None
    ) -> Checkout:
        self.count += 1
        workdir = self.workdir / str(self.count)
        workdir.mkdir()
        return fetch(
            spec,
            ref=ref,
            subdir=subdir,
            workdir=workdir,
            reporter=self.listener,
            site=self.web.site,
            source=source or SourceConfig(),
            history=True,
        )


def files(checkout: Checkout) -> dict[str, str]:
    return {p.relative_to(checkout.root).as_posix(): p.read_text() for p in checkout.root.rglob("*") if p.is_file()}


REQUIREMENTS = {"ligo-1.0/requirements.txt": "numpy\n", "ligo-1.0/run": "#!/bin/sh\n", "ligo-1.0/data/a.csv": "1\n"}


def zenodo(web: Archives, number: int, contents: dict[str, bytes], *, host: str = "zenodo.org") -> None:
    """A record of Zenodo's, as its API shows it."""
    record = f"https://{host}/api/records/{number}"
    entries = [
        {
            "key": name,
            "checksum": f"md5:{hashlib.md5(body).hexdigest()}",
            "size": len(body),
            "links": {"content": f"{record}/files/{name}/content"},
        }
        for name, body in contents.items()
    ]
    web.add(
        record,
        data(
            {
                "id": number,
                "created": "2019-05-28T21:57:28.123456+00:00",
                "metadata": {"publication_date": "2019-05-28"},
                "links": {"files": f"{record}/files"},
            }
        ),
    )
    web.add(f"{record}/files", data({"enabled": True, "entries": entries}))
    for name, body in contents.items():
        web.add(f"{record}/files/{name}/content", body)


@pytest.mark.parametrize(
    "spec",
    [
        "10.5281/zenodo.3232985",
        "doi:10.5281/zenodo.3232985",
        "https://doi.org/10.5281/zenodo.3232985",
        "http://dx.doi.org/10.5281/zenodo.3232985",
    ],
)
def test_a_doi_of_zenodo(get: Get, web: Archives, spec: str) -> None:
    web.doi("10.5281/zenodo.3232985", "https://zenodo.org/records/3232985")
    zenodo(web, 3232985, {"ligo-1.0.zip": zipped(REQUIREMENTS, executable=("ligo-1.0/run",))})
    checkout = get(spec)
    # the only file is a zip: it is unpacked, and what is in its only folder is the repository
    assert files(checkout) == {"requirements.txt": "numpy\n", "run": "#!/bin/sh\n", "data/a.csv": "1\n"}
    assert (checkout.root / "run").stat().st_mode & 0o111
    assert not (checkout.root / "requirements.txt").stat().st_mode & 0o111
    assert checkout.source == "https://doi.org/10.5281/zenodo.3232985"
    assert (checkout.name, checkout.ref, checkout.commit) == ("zenodo-3232985", "3232985", None)
    assert (checkout.uncommitted, checkout.tree, checkout.timestamp) == (False, None, 1559080648)
    assert checkout.changed == Change(1559080648, "the archive's version")
    assert sorted(p.name for p in checkout.root.parent.iterdir()) == ["source"]
    assert web.hosts == {"doi.org", "zenodo.org"}


def test_a_doi_that_stands_for_all_versions_is_the_last_one(get: Get, web: Archives) -> None:
    web.doi("10.5281/zenodo.3232984", "https://zenodo.org/doi/10.5281/zenodo.3232984")
    web.add("https://zenodo.org/doi/10.5281/zenodo.3232984", moved("/records/3232985"))
    web.add("https://zenodo.org/records/3232985", Answer(b"<html>", 200, {"Content-Type": "text/html"}))
    zenodo(web, 3232985, {"a.ipynb": b"{}", "sub/b.py": b"1"})
    checkout = get("10.5281/zenodo.3232984", subdir="sub")
    assert (files(checkout), checkout.ref, checkout.subdir) == ({"b.py": "1"}, "3232985", "sub")
    assert checkout.name == "zenodo-3232984-sub"


def test_the_page_of_a_record(get: Get, web: Archives) -> None:
    zenodo(web, 7, {"requirements.txt": b"numpy\n", "more.zip": zipped({"a": "1"})}, host="sandbox.zenodo.org")
    checkout = get("https://sandbox.zenodo.org/records/7?preview=1#files")
    assert checkout.source == "https://sandbox.zenodo.org/records/7"
    assert sorted(p.name for p in checkout.root.iterdir()) == ["more.zip", "requirements.txt"]  # not the only file
    assert web.hosts == {"sandbox.zenodo.org"}
    assert get(checkout.source).ref == checkout.ref  # as it is recorded, it can be had again


def test_caltechdata(get: Get, web: Archives) -> None:
    kept = [{"electronic_name": ["requirements.txt"], "uniform_resource_identifier": "https://files.example.org/r"}]
    record = {"metadata": {"electronic_location_and_access": kept, "publication_date": "2019-06-13"}}
    web.add("https://data.caltech.edu/api/record/1235", data(record))
    web.add("https://files.example.org/r", b"numpy\n")
    checkout = get("https://data.caltech.edu/records/1235")
    assert (files(checkout), checkout.name, checkout.timestamp) == (
        {"requirements.txt": "numpy\n"},
        "caltech-1235",
        1560384000,
    )


def figshare(web: Archives, version: int, contents: dict[str, bytes]) -> None:
    api = f"https://api.figshare.com/v2/articles/9784088/versions/{version}"
    listed = [
        {
            "name": name,
            "is_link_only": False,
            "computed_md5": hashlib.md5(body).hexdigest(),
            "download_url": f"https://files.example.org/{version}/{name}",
        }
        for name, body in contents.items()
    ]
    web.add(api, data({"version": version, "published_date": "2019-09-07T10:00:00Z", "files": listed}))
    web.add("https://api.figshare.com/v2/articles/9784088", data({"version": version}))
    for name, body in contents.items():
        web.add(f"https://files.example.org/{version}/{name}", body)


@pytest.mark.parametrize(
    ("spec", "ref"),
    [
        ("https://figshare.com/articles/software/binder-examples_requirements/9784088/2", "9784088.v2"),
        # without a version its page shows the last one
        ("https://figshare.com/articles/binder-examples_requirements/9784088", "9784088.v2"),
        ("https://someuniversity.figshare.com/articles/dataset/x/9784088", "9784088.v2"),
        ("10.6084/m9.figshare.9784088", "9784088.v2"),
        ("doi:10.6084/m9.figshare.9784088.v1", "9784088.v1"),
    ],
)
def test_figshare(get: Get, web: Archives, spec: str, ref: str) -> None:
    web.doi("10.6084/m9.figshare.9784088", "https://research.example.edu/articles/x/9784088")
    web.doi("10.6084/m9.figshare.9784088.v1", "https://figshare.com/articles/x/9784088/1")
    figshare(web, 1, {"a.zip": zipped({"x/requirements.txt": "six\n"})})
    figshare(web, 2, {"a.zip": zipped({"x/requirements.txt": "numpy\n"})})
    checkout = get(spec)
    assert (files(checkout), checkout.ref) == ({"requirements.txt": "six\n" if ref.endswith("1") else "numpy\n"}, ref)
    assert checkout.timestamp == 1567850400


@pytest.mark.parametrize("spec", ["doi:10.7910/DVN/TJCLKP", "https://dataverse.example.edu/file.xhtml?persistentId=X"])
def test_dataverse_is_known_by_its_addresses_and_no_list_is_asked(get: Get, web: Archives, spec: str) -> None:
    home, doi = "https://dataverse.example.edu", "doi:10.7910/DVN/TJCLKP"
    web.doi("10.7910/DVN/TJCLKP", f"{home}/citation?persistentId={doi}")
    listed = [
        {"label": "a.tab", "directoryLabel": "data", "dataFile": {"id": 1, "originalFileName": "a.csv"}},
        {"label": "requirements.txt", "dataFile": {"id": 2}},
    ]
    dataset = {"data": {"latestVersion": {"releaseTime": "2020-02-03T04:05:06Z", "files": listed}}}
    web.add(f"{home}/api/datasets/:persistentId?persistentId={doi}", data(dataset))
    web.add(
        f"{home}/api/files/:persistentId?persistentId={doi}/FILE&returnDatasetVersion=true",
        data({"data": {"datasetVersion": {"datasetPersistentId": doi}}}),
    )
    web.add(f"{home}/api/access/datafile/1?format=original", b"1,2\n")
    web.add(f"{home}/api/access/datafile/2?format=original", b"numpy\n")
    checkout = get(spec.replace("=X", f"={doi}/FILE"))
    assert files(checkout) == {"data/a.csv": "1,2\n", "requirements.txt": "numpy\n"}
    assert (checkout.ref, checkout.timestamp) == (doi, 1580702706)
    assert web.hosts <= {"doi.org", "dataverse.example.edu"}


def test_hydroshare(get: Get, web: Archives) -> None:
    number = "b8f6eae9d89241cf8b5904033460af61"
    elements = {"dates": [{"type": "modified", "start_date": "2019-09-25T16:09:17.006152Z"}]}
    web.add(f"https://www.hydroshare.org/hsapi/resource/{number}/scimeta/elements", data(elements))
    bag = f"https://s3.hydroshare.org/bags/{number}.zip"
    web.add(f"https://www.hydroshare.org/django_s3/download/bags/{number}.zip", moved(bag))
    web.add(bag, zipped({f"{number}/bagit.txt": "x", f"{number}/data/contents/requirements.txt": "numpy\n"}))
    checkout = get(f"https://www.hydroshare.org/resource/{number}/")
    assert files(checkout) == {"requirements.txt": "numpy\n"}
    assert (checkout.ref, checkout.timestamp) == (f"{number}.v1569427757", 1569427757)


def test_ckan_is_asked_where_the_configuration_says_that_it_is(get: Get, web: Archives) -> None:
    api = "https://demo.ckan.org/api/3/action"
    web.add(f"{api}/status_show", data({"success": True}))
    resources = [{"id": "r1", "url": "https://files.example.org/x/data.csv"}, {"id": "r2", "url": ""}]
    package = {"result": {"metadata_modified": "2024-02-27T14:15:54.573058", "resources": resources}}
    web.add(f"{api}/package_show?id=sample-dataset-1", data(package))
    web.add("https://files.example.org/x/data.csv", b"1,2\n")
    checkout = get("https://demo.ckan.org/dataset/sample-dataset-1")
    assert files(checkout) == {"data.csv": "1,2\n"}
    assert (checkout.name, checkout.timestamp) == ("sample-dataset-1", 1709043354)
    with pytest.raises(FetchError, match="source.ckan"):
        get("https://git.example.org/dataset/sample-dataset-1")


@pytest.mark.parametrize("id_", ["../../owned", "/owned", ".."])
def test_what_ckan_calls_a_file_leads_nowhere_else(get: Get, web: Archives, workdir: Path, id_: str) -> None:
    """repo2docker takes the id for a name where an address has none."""
    api = "https://demo.ckan.org/api/3/action"
    web.add(f"{api}/status_show", data({"success": True}))
    resources = [{"id": id_, "url": "https://files.example.org/x/"}]
    package = {"result": {"metadata_modified": "2024-02-27T14:15:54.573058", "resources": resources}}
    web.add(f"{api}/package_show?id=sample-dataset-1", data(package))
    web.add("https://files.example.org/x/", b"x")
    with pytest.raises(FetchError, match="a name that leads elsewhere"):
        get("https://demo.ckan.org/dataset/sample-dataset-1")
    assert not Path("/owned").exists()
    assert not list(workdir.parent.rglob("owned"))


DIRECTORY = "0a4b2dbd9c9b8a1e1b3b1ad2a8a8c1b8c1b3c1d2"
REVISION = "94dca98c006b80309704c717b5d83dff3c1fa3a0"


def heritage(web: Archives, contents: bytes) -> None:
    api = "https://archive.softwareheritage.org/api/1"
    web.add(
        f"{api}/revision/{REVISION}/", data({"directory": DIRECTORY, "committer_date": "2018-11-01T10:00:00+01:00"})
    )
    vault = f"{api}/vault/flat/swh:1:dir:{DIRECTORY}/"
    told = iter(("new", "pending", "done"))
    answer = {"fetch_url": f"{vault}raw/", "progress_message": "Processing...", "swhid": f"swh:1:dir:{DIRECTORY}"}

    def status() -> Answer:
        return data({**answer, "status": next(told, "done")})

    web.add(f"POST {vault}", status)
    web.add(vault, status)
    web.add(f"{vault}raw/", moved("https://files.example.org/vault.tar.gz"))
    web.add("https://files.example.org/vault.tar.gz", contents)


def test_a_revision_of_software_heritage(get: Get, web: Archives, tmp_path: Path) -> None:
    heritage(web, tarred([(f"{DIRECTORY}/requirements.txt", "numpy\n"), (f"{DIRECTORY}/link", "->requirements.txt")]))
    token = tmp_path / "token"
    token.write_text("s3cr3t\n")
    checkout = get(
        f"swh:1:rev:{REVISION};origin=https://github.com/org/wave-forms.git;path=/x",
        source=SourceConfig(swh_token_file=token),
    )
    assert files(checkout) == {"requirements.txt": "numpy\n", "link": "numpy\n"}
    assert (checkout.root / "link").is_symlink()
    assert (checkout.source, checkout.ref) == (f"swh:1:rev:{REVISION}", f"swh:1:dir:{DIRECTORY}")
    assert (checkout.commit, checkout.name, checkout.timestamp) == (REVISION, "wave-forms", 1541062800)
    assert any("Processing..." in line for line in get.listener.lines)
    api = web.headers[f"https://archive.softwareheritage.org/api/1/revision/{REVISION}/"]
    assert api["Authorization"] == "Bearer s3cr3t"
    assert "Authorization" not in web.headers["https://files.example.org/vault.tar.gz"]
    # hpcbinder's own command to build it again names the commit
    assert get(checkout.source, ref=REVISION).commit == REVISION


def test_a_link_in_an_archive_does_not_bring_in_what_it_points_to(get: Get, web: Archives, tmp_path: Path) -> None:
    """repo2docker would copy the file of this machine into the repository."""
    secret = tmp_path / "secret"
    secret.write_text("geheim")
    heritage(web, tarred([(f"{DIRECTORY}/a", f"->{secret}"), (f"{DIRECTORY}/b", "1")]))
    checkout = get(f"swh:1:dir:{DIRECTORY}")
    assert (checkout.root / "a").is_symlink()
    assert (checkout.root / "b").read_text() == "1"
    assert checkout.changed == Change(0, "the archive's version")
    assert checkout.timestamp == 0  # the directory alone has no date, and that of its download changes


def test_the_same_dataset_is_the_same_plan(get: Get, web: Archives) -> None:
    from hpcbinder.plan import load_packs, make_plan

    zenodo(web, 7, {"a.zip": zipped(REQUIREMENTS)})
    plans = [
        make_plan(get("https://zenodo.org/records/7"), packs=load_packs(()), suite="bookworm", architecture="amd64")
        for _ in range(2)
    ]
    assert plans[0].id == plans[1].id
    assert plans[0].timestamp == plans[1].timestamp == 1559080648


def test_each_archive_is_asked_only_for_what_is_its_own(
    get: Get, web: Archives, repository: Repository, home: Path
) -> None:
    """repo2docker asks a list of Dataverses, and more, for any URL."""
    head = repository.commit(a="1")
    (home / ".gitconfig").write_text(f'[url "{repository.url}"]\n insteadOf = https://github.com/org/repo\n')
    assert get("https://github.com/org/repo").commit == head
    assert get(repository.url.replace(" ", "%20")).commit == head
    assert web.asked == []
    with pytest.raises(FetchError):
        get("https://git.example.org/group/repo")  # it is not there; what was asked is git's own host
    assert web.hosts == {"git.example.org"}


@pytest.mark.parametrize(
    ("spec", "ref", "message"),
    [
        ("10.5281/zenodo.1", "main", "a dataset has no branches, so --ref cannot be given"),
        ("10.5281/a b", None, "is not a DOI such as"),
        ("https://doi.org/10.5281", None, "is not a DOI such as"),
        ("swh:1:cnt:94a9ed024d3859793618152ea559a168bbcbb5e2", None, "is not a revision"),
        ("swh:1:dir:94", None, "is not a SWHID such as"),
        ("https://dataverse.example.edu/dataset.xhtml?persistentId=../..", None, "has no persistentId"),
    ],
)
def test_what_cannot_be_meant(get: Get, web: Archives, spec: str, ref: str | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        get(spec, ref=ref)
    assert web.asked == []


def test_what_an_archive_does_not_have_is_one_line(get: Get, web: Archives) -> None:
    web.doi("10.1000/paper", "https://files.example.org/paper.html")
    web.add("https://files.example.org/paper.html", Answer(b"<html>"))
    web.add("https://zenodo.org/api/records/3", data({"status": 403}, 403))
    web.add("https://zenodo.org/api/records/4", data({"surprise": []}))
    web.add("https://zenodo.org/api/records/5", Answer(b"busy", 503))
    web.add("https://zenodo.org/api/records/6", Answer(b"<html>"))
    zenodo(web, 8, {})
    for spec, message in (
        ("10.1000/nothing", "https://doi.org/10.1000/nothing: there is no such DOI"),
        ("10.1000/paper", "leads to https://files.example.org/paper.html, which is in no archive that can be asked"),
        ("https://zenodo.org/records/2", "https://zenodo.org/api/records/2: is not there"),
        ("https://zenodo.org/records/3", "https://zenodo.org/api/records/3: is not public"),
        ("https://zenodo.org/records/4", "the archive's answer is not as expected: KeyError.'links'"),
        ("https://zenodo.org/records/5", "HTTP status 503 .the server has a problem: try again later"),
        ("https://zenodo.org/records/6", "the server's answer is not JSON"),
        ("https://zenodo.org/records/8", "holds no files"),
    ):
        with pytest.raises(FetchError, match=message) as caught:
            get(spec)
        assert len(str(caught.value).splitlines()) == 1


def test_a_site_that_does_not_let_us_through_is_one_line(web: Archives, workdir: Path, listener: Listener) -> None:
    from dataclasses import replace

    for site, message in (
        (replace(web.site, https_proxy="http://127.0.0.1:9"), "the proxy does not let us through"),
        (replace(web.site, ca_certificates=None), "no trust in the server's certificate: .* .set site.ca_certificates"),
    ):
        folder = workdir / message[:5]
        folder.mkdir()
        with pytest.raises(FetchError, match=message) as caught:
            fetch("10.5281/zenodo.1", ref=None, subdir=None, workdir=folder, reporter=listener, site=site)
        assert len(str(caught.value).splitlines()) == 1


def test_damaged_and_too_large_files_are_not_taken(get: Get, web: Archives) -> None:
    zenodo(web, 1, {"a.txt": b"right"})
    web.add("https://zenodo.org/api/records/1/files/a.txt/content", b"wrong")
    with pytest.raises(FetchError, match="a.txt: arrived damaged"):
        get("https://zenodo.org/records/1")
    zenodo(web, 2, {"a.bin": b"x" * 5000})
    with pytest.raises(FetchError, match="5.0 kB: more than is fetched .2.0 kB.*source.limit"):
        get("https://zenodo.org/records/2", source=SourceConfig(limit="2000"))


def test_an_archive_that_says_nothing_is_given_up_and_its_process_ends(
    get: Get, web: Archives, monkeypatch: pytest.MonkeyPatch, workdir: Path
) -> None:
    monkeypatch.setattr("hpcbinder.source.datasets._SILENCE", 1.0)
    silence = threading.Event()

    def never() -> Answer:
        silence.wait(60)
        return data({})

    web.add("https://zenodo.org/api/records/1", never)
    with pytest.raises(FetchError, match="gave up: the archive says nothing any more"):
        get("https://zenodo.org/records/1")
    silence.set()
    running = [path.parent for path in Path("/proc").glob("[0-9]*/cwd") if _leads(path, workdir)]
    assert running == []


def _leads(link: Path, folder: Path) -> bool:
    try:
        return str(folder) in str(link.readlink())
    except OSError:
        return False


def test_the_command_line(web: Archives, tmp_path: Path) -> None:
    zenodo(web, 7, {"a.zip": zipped(REQUIREMENTS)})
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "HPCBINDER_SITE_HTTPS_PROXY": str(web.site.https_proxy),
        "HPCBINDER_SITE_CA_CERTIFICATES": str(web.site.ca_certificates),
    }
    command = [sys.executable, "-m", "hpcbinder", "plan", "--no-lock", "--as-of=now", "https://zenodo.org/records/7"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "none, it is a dataset  (7)" in done.stdout
    assert "requirements.txt" in done.stdout
    assert web.hosts == {"zenodo.org"}


def bomb() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for number in range(20):
            archive.writestr(f"{number}", b"\0" * (1 << 20))
    return buffer.getvalue()


def evil_link() -> bytes:
    """A link, and then a file through it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        link = zipfile.ZipInfo("out")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "../..")
        archive.writestr("out/owned", "x")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "body", "message"),
    [
        ("a.zip", zipped({"../../owned": "x", "a": "1"}), "leads out of it"),
        ("a.zip", zipped({"/owned": "x", "a": "1"}), "leads out of it"),
        ("a.zip", evil_link(), "holds a name twice"),
        ("a.zip", bomb(), "21.0 MB: more than is fetched"),
        ("a.zip", zipped({"a": "1"})[:60] + zipped({"a": "1"})[70:], "cannot be unpacked"),
        ("../owned", b"x", "a name that leads elsewhere"),
        ("/owned", b"x", "a name that leads elsewhere"),
        ("a/../../owned", b"x", "a name that leads elsewhere"),
    ],
)
def test_nothing_of_an_archive_lands_outside(
    get: Get, web: Archives, workdir: Path, name: str, body: bytes, message: str
) -> None:
    zenodo(web, 1, {name: body})
    before = sorted(workdir.parent.iterdir())
    with pytest.raises(FetchError, match=message):
        get("https://zenodo.org/records/1", source=SourceConfig(limit="10M"))
    assert sorted(workdir.parent.iterdir()) == before
    assert not any(path.name == "owned" and "source" not in path.parts for path in workdir.rglob("*"))
    assert not Path("/owned").exists()


@pytest.mark.parametrize("kind", [tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.LNKTYPE])
def test_a_tar_file_makes_no_devices_or_hard_links(get: Get, web: Archives, kind: bytes) -> None:
    member = tarfile.TarInfo()
    member.type, member.linkname = kind, "/etc/passwd"
    heritage(web, tarred([("x/a", member)]))
    with pytest.raises(FetchError, match="x/a: holds what is no file, folder or symbolic link"):
        get(f"swh:1:dir:{DIRECTORY}")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}/",
        "https://localhost:{port}/",
        "http://169.254.169.254/latest/meta-data/",
        "https://10.0.0.1/",
        "http://[::1]:{port}/",
        "http://2130706433/",
        "file:///etc/passwd",
    ],
)
def test_a_dataset_does_not_lead_into_our_own_network(get: Get, web: Archives, url: str) -> None:
    import http.server
    import threading

    hits: list[str] = []

    class Inner(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hits.append(self.path)

    with http.server.HTTPServer(("127.0.0.1", 0), Inner) as inner:
        threading.Thread(target=inner.serve_forever, daemon=True).start()
        target = url.format(port=inner.server_address[1])
        zenodo(web, 1, {"a": b"x"})
        web.add("https://zenodo.org/api/records/1/files/a/content", moved(target))
        api = "https://demo.ckan.org/api/3/action"
        web.add(f"{api}/status_show", data({"success": True}))
        package = {"metadata_modified": "2024-02-27T14:15:54.573058", "resources": [{"id": "r", "url": target}]}
        web.add(f"{api}/package_show?id=x", data({"result": package}))
        for spec in ("https://zenodo.org/records/1", "https://demo.ckan.org/dataset/x"):
            with pytest.raises(FetchError, match="is not (on the public Internet|encrypted)|is no web address"):
                get(spec)
        inner.shutdown()
    assert hits == []
    assert web.hosts == {"zenodo.org", "demo.ckan.org"}
