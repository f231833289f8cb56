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
RECENT = package("recent", "2.0", index={"timestamp": 1_750_000_000_000})
EARLIER = package("recent", "1.0")
# The newer of its builds does without what no channel has any more.
USERS = (package("user", "1.0", depends=["retired"]), package("user", "1.0", build="1"))
UNDATED = package("undated", "1.0", index={"timestamp": None})

Solve = Callable[..., Any]


@pytest.fixture(scope="module")
def channel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Channel]:
    with serving(tmp_path_factory.mktemp("channel")) as channel:
        channel.add(OLD_PYTHON, NEW_PYTHON, LIBRARY, TOOL, NEWEST, GPU, FUTURE, PIP, RECENT, EARLIER, UNDATED, *USERS)
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
    with pytest.raises(FetchError, match="the conda channels could not be asked") as caught:
        resolver(server="http://127.0.0.1:9")(wanted("tool"))
    assert "--conda pypi builds from Debian's and PyPI's packages instead" in (caught.value.hint or "")


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


def export(*specs: str) -> WantedConda:
    return wanted(*specs, export=True)


def versions(lock: Any) -> dict[str, str]:
    return {each.name: each.version for each in lock.packages}


def test_an_export_that_can_be_had_is_taken_at_its_word(resolver: Solve) -> None:
    lock, notes = resolver()(export("library=1.5=0", "python=3.11.9=0_cpython", "tool=2.0=py_0"))
    assert (notes, versions(lock)) == ((), {"library": "1.5", "pip": "24.0", "python": "3.11.9", "tool": "2.0"})


GAVE_WAY = "it is an export that cannot be had as it was, so that some of it gave way"


@pytest.mark.parametrize(
    ("specs", "tool", "words"),
    [
        (
            ("library=1.5=h1_7", "python=3.11.9=h8_0", "tool=2.0=py_0"),
            "2.0",
            ("other builds of the same versions: library, python",),
        ),
        # Nothing depends on tool, so that its version stays; those of what it brought along give way.
        (
            ("library=1.4=h1_7", "python=3.11.2=h8_0", "retired=7=h_0", "tool=2.0=py_9", "user=1.0=0"),
            "2.0",
            (
                "other builds of the same versions: tool, user",
                "other versions: library 1.4 is 1.5, python 3.11.2 is 3.11.9",
                "left out, as nothing needs it now: retired",
            ),
        ),
        (
            ("python=3.11.2=h8_0", "tool=2.0.1=py_9"),
            "2.0",
            ("other versions: python 3.11.2 is 3.11.9, tool 2.0.1 is 2.0",),
        ),
        (
            ("python=3.11.2=h8_0", "tool=1.7.1=py_9"),
            "2.0",
            ("other versions: python 3.11.2 is 3.11.9, tool 1.7.1 is 2.0",),
        ),
    ],
)
def test_an_export_gives_way_step_by_step(
    resolver: Solve, specs: tuple[str, ...], tool: str, words: tuple[str, ...]
) -> None:
    lock, notes = resolver()(export(*specs))
    assert versions(lock)["tool"] == tool
    assert notes == (GAVE_WAY, *words)
    # It is said again where the lock was found before.
    assert resolver()(export(*specs)) == (lock, notes)


def test_an_export_keeps_its_python(resolver: Solve) -> None:
    with pytest.raises(DetectError, match="no conda packages fit together: .*python"):
        resolver()(export("python=3.9.1=h_0", "tool=2.0=py_0"))


def test_a_wish_never_gives_way(resolver: Solve) -> None:
    with pytest.raises(DetectError, match="no conda packages fit together"):
        resolver()(wanted("library=1.5=h1_7"))


def test_packages_that_were_made_later_do_not_count(resolver: Solve) -> None:
    assert versions(resolver()(wanted("recent"))[0])["recent"] == "2.0"
    lock, _ = resolver()(wanted("recent", "undated", not_after=1_720_000_000))
    # What does not say when it was made is from before they all did.
    assert (versions(lock)["recent"], versions(lock)["undated"]) == ("1.0", "1.0")
    assert lock.as_of == "2024-07-03T09:46:40Z"


def test_where_nothing_of_the_time_fits_the_newest_counts_unless_a_person_named_it(resolver: Solve) -> None:
    lock, _ = resolver()(wanted("recent=2", not_after=1_720_000_000))
    assert (versions(lock)["recent"], lock.as_of) == ("2.0", "")
    assert lock.note.startswith("as of 2024-07-03 no conda packages fit together: ")
    with pytest.raises(DetectError, match="as of 2024-07-03 no conda packages fit together") as caught:
        resolver()(wanted("recent=2", not_after=1_720_000_000, not_after_exact=True))
    assert "another --as-of" in (caught.value.hint or "")
