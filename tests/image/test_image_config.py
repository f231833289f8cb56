"""Image configurations: real ones are read, damaged ones are one clear error."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcbinder.errors import ConvertError
from hpcbinder.image import check_digest, dump_config, parse_config
from hpcbinder.model import ImageConfig

DIFF_ID = "sha256:" + "a" * 64
CONFIG = {
    "architecture": "amd64",
    "os": "linux",
    "created": "2026-01-02T03:04:05Z",
    "config": {
        "Env": ["PATH=/opt/env/bin:/usr/bin", 'QUOTED=it\'s a "test" $x=1', "BARE"],
        "Entrypoint": ["/opt/hpcbinder/bin/entrypoint"],
        "Cmd": ["jupyter", "lab"],
        "WorkingDir": "/srv/repo",
        "Labels": {"org.opencontainers.image.revision": "abc"},
        "Volumes": {"/data": {}, "/a": {}},
    },
    "rootfs": {"type": "layers", "diff_ids": [DIFF_ID]},
}


def changed(section: str | None, key: str, value: object) -> bytes:
    config = json.loads(json.dumps(CONFIG))
    (config if section is None else config[section])[key] = value
    return json.dumps(config).encode()


def test_a_configuration_is_read() -> None:
    raw = json.dumps(CONFIG).encode()
    config = parse_config(raw)
    assert config.digest == "sha256:" + hashlib.sha256(raw).hexdigest()
    assert config.env == {"PATH": "/opt/env/bin:/usr/bin", "QUOTED": 'it\'s a "test" $x=1', "BARE": ""}
    assert (config.entrypoint, config.cmd) == (("/opt/hpcbinder/bin/entrypoint",), ("jupyter", "lab"))
    assert (config.workdir, config.architecture, config.created) == ("/srv/repo", "amd64", "2026-01-02T03:04:05Z")
    assert (config.labels, config.volumes) == ({"org.opencontainers.image.revision": "abc"}, ("/a", "/data"))
    assert config.diff_ids == (DIFF_ID,)


def test_what_go_leaves_null_is_empty() -> None:
    config = parse_config(b'{"architecture":"arm64","config":{"Env":null,"Cmd":null,"Labels":null,"Volumes":null}}')
    assert (config.env, config.cmd, config.entrypoint, config.labels, config.diff_ids) == ({}, (), (), {}, ())


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"[]", "no JSON object"),
        (changed("config", "Env", {}), "Env .* no list"),
        (changed("config", "Env", [1]), "Env .* no text"),
        (changed("config", "Env", ["A=\0"]), "Env .* no text"),
        (changed("config", "Cmd", ["\ud800"]), "Cmd .* no text"),
        (changed("config", "Cmd", "jupyter"), "Cmd .* no list"),
        (changed("config", "Labels", {"a": 1}), "Labels .* no text"),
        (changed("config", "Volumes", {"a\0": {}}), "Volumes .* no text"),
        (changed("rootfs", "diff_ids", ["sha256:../../etc"]), "no SHA-256"),
        (changed("rootfs", "diff_ids", ["sha256:" + "A" * 64]), "no SHA-256"),
        (changed(None, "config", 3), "config .* no object"),
        (changed(None, "architecture", 3), "architecture .* no text"),
    ],
)
def test_a_damaged_configuration_is_one_clear_error(raw: bytes, words: str) -> None:
    with pytest.raises(ConvertError, match=words):
        parse_config(raw)


@given(st.recursive(st.none() | st.integers() | st.text(), lambda s: st.lists(s) | st.dictionaries(st.text(), s)))
def test_any_json_is_read_or_refused(value: object) -> None:
    for raw in (json.dumps(value), json.dumps({"config": value}), json.dumps({"config": {"Env": value}})):
        try:
            parse_config(raw.encode())
        except ConvertError:
            pass


def test_a_digest_can_be_a_file_name() -> None:
    assert check_digest(DIFF_ID) == DIFF_ID
    for wrong in ("sha256:" + "a" * 63, DIFF_ID + "\n", "md5:" + "a" * 64, None, 3):
        with pytest.raises(ConvertError):
            check_digest(wrong)


# What a process can get: no NUL, and text that has an encoding.
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=10)
names = st.text(st.characters(exclude_characters="\0=", exclude_categories=["Cs"]), max_size=10)
words = st.lists(texts, max_size=3).map(tuple)
sorted_words = st.sets(texts, max_size=3).map(sorted).map(tuple)
configs = st.builds(
    ImageConfig,
    st.just(""),
    texts,
    texts,
    st.dictionaries(names, texts, max_size=3),
    words,
    words,
    texts,
    st.dictionaries(texts, texts, max_size=3),
    sorted_words,
    st.lists(st.just(DIFF_ID), max_size=3).map(tuple),
    texts,
    sorted_words,
    texts,
)


@given(configs)
def test_a_configuration_is_what_was_written_and_its_digest_that_of_the_text(config: ImageConfig) -> None:
    raw = dump_config(config)
    read = parse_config(raw)
    assert replace(read, digest="") == config
    assert read.digest == f"sha256:{hashlib.sha256(raw).hexdigest()}"


def test_equal_configurations_are_one_text() -> None:
    config = parse_config(json.dumps(CONFIG).encode())
    other = replace(config, env=dict(reversed(config.env.items())), labels=dict(reversed(config.labels.items())))
    assert dump_config(config) == dump_config(other)
