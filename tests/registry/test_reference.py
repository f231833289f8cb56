"""Names of images in registries."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcbinder.errors import UsageError
from hpcbinder.registry import Reference, parse_host, parse_reference

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    "text, complete",
    [
        ("debian", "docker.io/library/debian"),
        ("debian:bookworm-slim", "docker.io/library/debian:bookworm-slim"),
        ("jupyter/base-notebook", "docker.io/jupyter/base-notebook"),
        ("docker.io/debian", "docker.io/library/debian"),
        ("index.docker.io/library/debian", "docker.io/library/debian"),
        ("ghcr.io/org/name:1.0", "ghcr.io/org/name:1.0"),
        ("GHCR.io/org/name", "ghcr.io/org/name"),
        ("localhost/x", "localhost/x"),
        ("localhost:5000/x:y", "localhost:5000/x:y"),
        ("[::1]:5000/x", "[::1]:5000/x"),
        (f"host:5000/a/b__c.d-e@{DIGEST}", f"host:5000/a/b__c.d-e@{DIGEST}"),
        (f"debian:bookworm@{DIGEST}", f"docker.io/library/debian:bookworm@{DIGEST}"),
    ],
)
def test_a_name_is_completed_as_docker_does(text: str, complete: str) -> None:
    assert str(parse_reference(text)) == complete
    assert str(parse_reference(complete)) == complete


def test_a_digest_counts_more_than_a_tag_and_latest_is_what_nobody_said() -> None:
    assert parse_reference("debian").identifier == "latest"
    assert parse_reference("debian:12").identifier == "12"
    assert parse_reference(f"debian:12@{DIGEST}").identifier == DIGEST


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "names no image"),
        ("https://ghcr.io/a/b", "is a URL, not an image (write REGISTRY/NAME[:TAG], without ://)"),
        ("docker://debian", "is a URL"),
        ("Debian", "names are in lower case"),
        ("ghcr.io/Org/name", "names are in lower case"),
        ("ghcr.io/", "names no image"),
        ("ghcr.io/../etc/passwd", "names no image"),
        ("ghcr.io/a/../../b", "names no image"),
        ("ghcr.io//a", "names no image"),
        ("ghcr.io/a/%2e%2e/b", "names no image"),
        ("ghcr.io/a?b", "names no image"),
        ("ghcr.io/a#b", "names no image"),
        ("user:pass@ghcr.io/a", "what follows @ is not sha256:"),
        ("debian@sha256:abc", "64 hex digits"),
        (f"debian@{DIGEST.upper()}", "64 hex digits"),
        ("debian:", "cannot be a tag"),
        ("debian:.x", "cannot be a tag"),
        ("debian:a\nb", "cannot be a tag"),
        ("debian:" + "a" * 129, "cannot be a tag"),
        ("host:99999/x", "is no registry"),
        ("host:x/y", "is no registry"),
        ("-host.example/x", "is no registry"),
        ("a" * 300, "at most 255 characters"),
        ("bücher.example/x", "is no registry"),
    ],
)
def test_what_names_no_image_is_refused_with_a_reason(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_reference(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=60) | st.text(alphabet="aZ0.:/@_-[]%?# \n", max_size=40))
def test_what_is_taken_fits_into_a_path_and_means_itself(text: str) -> None:
    try:
        reference = parse_reference(text)
    except UsageError:
        return
    assert parse_reference(str(reference)) == reference
    safe = set(string.ascii_letters + string.digits + "._-/")
    assert set(reference.repository) <= safe
    assert ".." not in reference.repository.split("/")
    assert set(reference.identifier) <= safe | {":"}


words = st.text(alphabet=string.ascii_lowercase + string.digits, min_size=1, max_size=8)
paths = st.lists(words, min_size=2, max_size=4).map("/".join)
tags = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True)
hosts = st.tuples(words, st.integers(1, 65535)).map(lambda pair: f"{pair[0]}.example:{pair[1]}")


@given(hosts, paths, st.none() | tags, st.none() | st.just(DIGEST))
def test_every_reference_can_be_written_and_read(host: str, path: str, tag: str | None, digest: str | None) -> None:
    reference = Reference(host, path, tag, digest)
    assert parse_reference(str(reference)) == reference


@pytest.mark.parametrize("text", ["", "a/b", "https://ghcr.io", "ghcr.io/", "a b", "host:", "host:0", "a\n", ".."])
def test_a_registry_is_a_host(text: str) -> None:
    with pytest.raises(UsageError):
        parse_host(text)


def test_dockers_registry_has_one_name() -> None:
    assert {parse_host(name) for name in ("docker.io", "index.docker.io", "registry-1.docker.io")} == {"docker.io"}
