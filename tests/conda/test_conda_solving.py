"""From an environment file's specs to a lock, by a real solver in a real channel."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trustme
from condamaker import Channel, Made, Said, package, serving

from hpcbinder.conda import CondaResolver
from hpcbinder.conda.channels import Channels
from hpcbinder.config import CondaConfig, SiteConfig
from hpcbinder.errors import DetectError, FetchError
from hpcbinder.model import WantedConda

OLD_PYTHON = package("python", "3.11.9", build="0_cpython")
NEW_PYTHON = package("python", "3.13.1", build="0_cpython")
LIBRARY = package("library", "1.5", depends=["__glibc >=2.28", "__linux"])
TOOL = package("tool", "2.0", depends=["library", "python"], build="py_0", noarch="python")
NEWEST = package("newest", "1.0", depends=["python >=3.12"], build="py_0", noarch="python")
GPU = package("gpu", "1.0", depends=["__cuda >=12"])
FUTURE = package("future", "1.0", depends=["__glibc >=2.99"])
PIP = package("pip", "24.0", depends=["python"], build="py_0", noarch="python")

Solve = Callable[..., Any]


@pytest.fixture(scope="module")
def channel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Channel]:
    with serving(tmp_path_factory.mktemp("channel")) as channel:
        channel.add(OLD_PYTHON, NEW_PYTHON, LIBRARY, TOOL, NEWEST, GPU, FUTURE, PIP)
        yield channel


def config(channel: Channel, **changes: Any) -> CondaConfig:
    return replace(CondaConfig(channels=("testing",), server=channel.url.rpartition("/")[0]), **changes)


def wanted(*specs: str, **changes: Any) -> WantedConda:
    values = WantedConda(specs, (), (), ("ipykernel", "pip"), "3.11", "amd64", "bookworm")
    return replace(values, **changes)


@pytest.fixture
def said() -> Said:
    return Said()


@pytest.fixture
def resolver(channel: Channel, tmp_path: Path, said: Said) -> Callable[..., CondaResolver]:
    (tmp_path / "store").mkdir()

    def make(refresh: bool = False, **changes: Any) -> CondaResolver:
        given = changes.pop("given", ())
        return CondaResolver(
            tmp_path / "store",
            config(channel, **changes),
            SiteConfig(),
            refresh=refresh,
            reporter=said,
            given=given,
            cache=tmp_path / "cache",
        )

    return make


def test_a_lock_says_everything(resolver: Solve, channel: Channel) -> None:
    lock, notes = resolver()(wanted("tool>=1,<3", "library=1.5"))
    assert notes == ()
    assert (lock.ecosystem, lock.python, lock.platform) == ("conda", "3.11", "x86_64-manylinux_2_36")
    by_name = {each.name: each for each in lock.packages}
    # ipykernel is in no channel, and so is not asked for; what is for all others is.
    assert [*by_name] == ["library", "pip", "python", "tool"]
    assert by_name["tool"] == TOOL.locked(channel.url)
    (order,) = lock.layers
    assert order.index("tool") > max(order.index("library"), order.index("python"))


def test_what_was_found_is_kept_until_it_is_refreshed(resolver: Solve, channel: Channel, said: Said) -> None:
    first = resolver()(wanted("tool"))
    asked = len(channel.requests)
    assert resolver()(wanted("tool")) == first
    assert len(channel.requests) == asked
    assert "4 conda packages as found before (--refresh looks for others)" in said.lines
    assert resolver(refresh=True)(wanted("tool")) == first
    assert len(channel.requests) > asked
    again = len(channel.requests)
    assert resolver(given=[first[0]], refresh=True)(wanted("tool")) == first
    assert len(channel.requests) == again


def test_a_refresh_sees_what_is_new(tmp_path: Path, said: Said) -> None:
    with serving(tmp_path / "channel") as channel:
        channel.fresh = 3600
        channel.add(OLD_PYTHON, LIBRARY)

        def version(refresh: bool) -> str:
            resolver = CondaResolver(
                tmp_path, config(channel), SiteConfig(), refresh=refresh, reporter=said, cache=tmp_path / "cache"
            )
            return next(each.version for each in resolver(wanted("library"))[0].packages if each.name == "library")

        assert version(False) == "1.5"
        channel.add(package("library", "1.6"))
        assert (version(False), version(True)) == ("1.5", "1.6")


def test_python_is_the_sites_unless_it_is_said(resolver: Solve, said: Said) -> None:
    python = {
        specs: next(each.version for each in resolver()(wanted(*specs))[0].packages if each.name == "python")
        for specs in ((), ("python",), ("python=3.13",), ("python>3.12", "tool"), ("newest",))
    }
    assert python == {
        (): "3.11.9",
        ("python",): "3.11.9",
        ("python=3.13",): "3.13.1",
        ("python>3.12", "tool"): "3.13.1",
        ("newest",): "3.13.1",
    }
    assert "it does not go with Python 3.11" in said.lines


@pytest.mark.parametrize(
    ("specs", "words"),
    [
        (("tool=3",), "no conda packages fit together: .*tool"),
        (("nowhere",), "no conda packages fit together: .*nowhere"),
        (("future",), "no conda packages fit together: .*__glibc"),
        (("gpu",), "no conda packages fit together: .*__cuda"),
        (("tool ===",), "'tool ===' is not a match spec"),
        (("*",), "is not a match spec"),
        (("https://example.org/linux-64/x-1-0.conda",), "is not a match spec that is taken here"),
        (("x[url='https://example.org/x-1-0.conda']",), "is not a match spec that is taken here"),
        (("https://example.org/chan::x",), "channel https://example.org/chan, which is not one of this site's"),
        (("tool\x1b[2J",), "is not a match spec that is taken here"),
    ],
)
def test_what_cannot_be_had_is_said(resolver: Solve, specs: tuple[str, ...], words: str) -> None:
    with pytest.raises(DetectError, match=words):
        resolver()(wanted(*specs))


def test_a_site_says_what_its_drivers_can_do(resolver: Solve) -> None:
    lock, _ = resolver(cuda="12.4")(wanted("gpu"))
    assert "gpu" in {each.name for each in lock.packages}


def test_a_spec_may_name_its_channel(resolver: Solve, channel: Channel) -> None:
    lock, _ = resolver()(wanted("testing::tool"))
    assert next(each for each in lock.packages if each.name == "tool").url.startswith(channel.url)


def test_a_channel_that_is_not_there(resolver: Solve) -> None:
    with pytest.raises(FetchError, match="the conda channels could not be asked"):
        resolver(server="http://127.0.0.1:9")(wanted("tool"))


def test_a_sites_certificates_are_trusted_and_no_others(tmp_path: Path, said: Said) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))

    def solve(site: SiteConfig, name: str) -> Any:
        resolver = CondaResolver(tmp_path, here, site, refresh=True, reporter=said, cache=tmp_path / name)
        return resolver(wanted())

    with serving(tmp_path / "channel", authority.issue_cert("localhost")) as channel:
        channel.add(OLD_PYTHON)
        here = config(channel)
        lock, _ = solve(SiteConfig(ca_certificates=tmp_path / "ca.pem"), "known")
        assert lock.packages[0].url.startswith("https://localhost:")
        with pytest.raises(FetchError, match="invalid peer certificate"):
            solve(SiteConfig(), "unknown")


def test_a_channel_leads_nowhere_else(tmp_path: Path, said: Said) -> None:
    with serving(tmp_path / "other") as other:
        other.add(OLD_PYTHON, LIBRARY)
        index = other.folder / "linux-64/repodata.json"
        value = json.loads(index.read_text())
        value["info"]["base_url"] = "http://127.0.0.1:9/elsewhere/"
        index.write_text(json.dumps(value))
        resolver = CondaResolver(
            tmp_path, config(other), SiteConfig(), refresh=False, reporter=said, cache=tmp_path / "cache"
        )
        lock, _ = resolver(wanted("library"))
        assert [each.url for each in lock.packages] == [
            f"{other.url}/linux-64/{made.file}" for made in (LIBRARY, OLD_PYTHON)
        ]


def md5(made: Made) -> str:
    return hashlib.md5(made.content, usedforsecurity=False).hexdigest()


def test_an_explicit_list_is_taken_at_its_word(resolver: Solve, channel: Channel) -> None:
    made = (NEW_PYTHON, LIBRARY, TOOL)
    urls = [f"{channel.url}/{each.subdir}/{each.file}" for each in made]
    exact = tuple(
        f"{url}#{digest}" for url, digest in zip(urls, (md5(made[0]), made[1].sha256, md5(made[2])), strict=True)
    )
    lock, _ = resolver()(wanted(exact=exact))
    assert [(each.name, each.version) for each in lock.packages] == [
        ("library", "1.5"),
        ("python", "3.13.1"),
        ("tool", "2.0"),
    ]
    with pytest.raises(DetectError, match="has another hash in the channel"):
        resolver()(wanted(exact=(f"{urls[0]}#{'0' * 32}",)))
    with pytest.raises(DetectError, match="the channel does not have"):
        resolver()(wanted(exact=(f"{channel.url}/linux-64/other-1-0.conda#{'0' * 32}",)))
    with pytest.raises(DetectError, match="which is not one of this site's"):
        resolver()(wanted(exact=(f"https://example.org/c/linux-64/other-1-0.conda#{'0' * 32}",)))


def test_channels_are_the_sites() -> None:
    channels = Channels(CondaConfig(mirrors={"bioconda": "https://mirror.example.org/bio/"}))
    server = "https://conda.anaconda.org"
    assert channels.urls([]) == ([f"{server}/conda-forge"], [])
    named = ["bioconda", "https://conda.anaconda.org/pytorch/", "nodefaults", "conda-forge/label/dev"]
    assert channels.urls(named)[0] == [
        "https://mirror.example.org/bio",
        f"{server}/pytorch",
        f"{server}/conda-forge/label/dev",
    ]
    assert channels.package("https://conda.anaconda.org/bioconda/noarch/x-1-0.conda") == (
        "https://mirror.example.org/bio/noarch/x-1-0.conda"
    )
    for name in ("https://example.org/x", "file:///etc", "../x", "a b", "https://u:p@example.org/x", ""):
        with pytest.raises(DetectError, match="which is not one of this site's") as caught:
            channels.urls([name])
        assert "u:p" not in str(caught.value)


def test_defaults_needs_a_sites_word() -> None:
    channels = Channels(CondaConfig())
    urls, notes = channels.urls(["defaults", "conda-forge"])
    assert urls == ["https://conda.anaconda.org/conda-forge"]
    assert notes[0].startswith("channel defaults is left out: Anaconda's terms ask larger organisations to pay")
    for name in ("defaults", "https://repo.anaconda.com/pkgs/main", "anaconda"):
        with pytest.raises(DetectError, match="of Anaconda, Inc. alone") as caught:
            channels.urls([name])
        assert "conda.defaults" in (caught.value.hint or "")
    allowed = Channels(CondaConfig(defaults=True))
    assert allowed.urls(["defaults"]) == (
        ["https://repo.anaconda.com/pkgs/main", "https://repo.anaconda.com/pkgs/r"],
        [],
    )
