"""Which archive of data a name or an address belongs to. Told from its form alone: nobody is asked.

The forms are those that repo2docker's content providers understand, and what the archives' own pages show in a
browser, brought to the one form that the provider takes.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit


@dataclass(frozen=True)
class Dataset:
    """Something that an archive keeps.

    Attributes:
        archive: `doi` (whose archive is only known once the DOI is resolved), `zenodo`, `zenodo-doi` (a page of Zenodo
            that leads on to a record), `figshare`, `dataverse`, `hydroshare`, `ckan`, `swh`.
        spec: What the archive's provider is given.
        source: How it is recorded, and named to get it again.
        name: For ids.
    """

    archive: str
    spec: str
    source: str
    name: str


_DOI = re.compile(r"10\.[0-9]{4,9}(?:\.[0-9]+)*/[A-Za-z0-9._;()/:<>+-]*[A-Za-z0-9)>]")
"""What CrossRef and DataCite give out (https://www.crossref.org/blog/dois-and-matching-regular-expressions/), without
what would need quoting in a URL."""
_SWHID = re.compile(r"swh:1:(?P<type>[a-z]{3}):(?P<hash>[0-9a-f]{40})(?P<qualifiers>(?:;[a-z]+=[^;]*)*)")
"""https://docs.softwareheritage.org/devel/swh-model/persistent-identifiers.html"""
_PERSISTENT = re.compile(r"(?:doi|hdl|perma):[A-Za-z0-9][A-Za-z0-9._/-]*")
_HOST = r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]{1,5})?"

_ADDRESSES: tuple[tuple[str, str, str, str], ...] = (
    # archive, pattern of host and path, the provider's form of it, name
    ("zenodo", r"(?P<host>(?:sandbox\.)?zenodo\.org)/records?/(?P<id>[0-9]+)", "https://{host}/record/{id}", "zenodo"),
    (
        "zenodo-doi",
        r"(?P<host>(?:sandbox\.)?zenodo\.org)/doi/(?P<id>10\.[A-Za-z0-9._/-]+)",
        "https://{host}/doi/{id}",
        "",
    ),
    ("zenodo", r"(?P<host>data\.caltech\.edu)/records/(?P<id>[a-z0-9-]+)", "https://{host}/records/{id}", "caltech"),
    # universities have their own names below figshare.com, and one number for an article everywhere
    (
        "figshare",
        r"(?:[a-z0-9-]+\.)?figshare\.com/(?:account/)?articles/(?:[^/]+/){0,2}?(?P<id>[0-9]+)(?P<version>/[0-9]+)?",
        "https://figshare.com/articles/x/{id}{version}",
        "figshare",
    ),
    (
        "hydroshare",
        r"(?:www\.)?hydroshare\.org/resource/(?P<id>[0-9a-f]{32})",
        "https://www.hydroshare.org/resource/{id}",
        "hydroshare",
    ),
    (
        "dataverse",
        rf"(?P<host>{_HOST})/api/access/datafile/(?P<id>[0-9]+)",
        "{scheme}://{host}/api/access/datafile/{id}",
        "",
    ),
)


def find_dataset(spec: str, *, ckan: Collection[str] = ()) -> Dataset | None:
    """The dataset that `spec` names by its form: a DOI, a SWHID, or the address of a page; None if it is none.

    Args:
        ckan: Hosts that run CKAN, whose addresses look like anybody's.

    Raises:
        ValueError: It is one, but not one that can be had. The text says why.
    """
    if re.match(r"(?i:swh):", spec):
        return _swhid(spec)
    if re.match(r"(?i:doi):|10\.[0-9]{4,9}[./]", spec):
        return _doi(re.sub(r"(?i)^doi:\s*", "", spec))
    if not re.match(r"(?i)https?://", spec):
        return None
    return _address(spec, ckan)


def _address(spec: str, ckan: Collection[str]) -> Dataset | None:
    try:
        url = urlsplit(spec)
        host = url.netloc.lower()
    except ValueError:
        return None
    if host in ("doi.org", "dx.doi.org", "www.doi.org"):
        return _doi(unquote(url.path.lstrip("/")))
    if host == "archive.softwareheritage.org" and (found := re.search(r"swh:1:.*", unquote(url.path))):
        return _swhid(found[0].rstrip("/"))
    place = f"{host}{url.path}"
    for archive, pattern, form, name in _ADDRESSES:
        # What follows the number on a page (`/files/…`, `#tab`) does not name anything else.
        if found := re.match(rf"{pattern}(?:/|$)", place):
            words = {key: value or "" for key, value in found.groupdict().items()}
            address = form.format(scheme=url.scheme.lower(), **words)
            shown = address.replace("/articles/x/", "/articles/").replace("/record/", "/records/")
            return Dataset(archive, address, shown, f"{name or host.split(':')[0]} {words['id']}")
    persistent = re.search(r"(?:^|&)persistentId=([^&]+)", url.query)
    page = re.fullmatch(r"/(dataset\.xhtml|file\.xhtml|citation)", url.path)
    if persistent and page and re.fullmatch(_HOST, host):
        id_ = unquote(persistent[1])
        if not _PERSISTENT.fullmatch(id_):
            raise ValueError("has no persistentId such as doi:10.7910/DVN/ABCDEF")
        address = f"{url.scheme.lower()}://{host}/{page[1]}?persistentId={id_}"
        return Dataset("dataverse", address, address, id_.partition("/")[2] or id_)
    if host in ckan and (found := re.fullmatch(r"((?:/[A-Za-z0-9_.-]+)*)/dataset/([A-Za-z0-9_.-]+)(/.*)?", url.path)):
        activity = re.search(r"/history/([A-Za-z0-9-]+)", found[3] or "") or re.search(
            r"(?:^|&)activity_id=([A-Za-z0-9-]+)", url.query
        )
        address = f"{url.scheme.lower()}://{host}{found[1]}/dataset/{found[2]}"
        address += f"/history/{activity[1]}" if activity else ""
        return Dataset("ckan", address, address, found[2])
    return None


def _doi(text: str) -> Dataset:
    if not _DOI.fullmatch(text):
        raise ValueError("is not a DOI such as 10.5281/zenodo.3232985")
    return Dataset("doi", text, f"https://doi.org/{quote(text, safe='/:;()+')}", text.partition("/")[2])


def _swhid(text: str) -> Dataset:
    found = _SWHID.fullmatch(text)
    if found is None:
        raise ValueError("is not a SWHID such as swh:1:dir:0123…")
    if found["type"] not in ("rev", "dir"):
        raise ValueError("is not a revision (swh:1:rev:…) or a directory (swh:1:dir:…), which have files")
    origin = re.search(r";origin=([^;]*)", found["qualifiers"])
    name = re.sub(r"\.git$", "", unquote(origin[1]).rstrip("/").rpartition("/")[2]) if origin else ""
    core = f"swh:1:{found['type']}:{found['hash']}"
    return Dataset("swh", core, core, name or f"swh {found['hash'][:12]}")
