"""Logins, where docker, podman and we keep them."""

from __future__ import annotations

import base64
import json
import stat
from pathlib import Path
from typing import Any

import pytest

from hpcbinder.errors import RegistryError, UsageError
from hpcbinder.registry import Credentials, Login, forget_login, keep_login


def auth(user: str, password: str = "secret") -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


class Home:
    """Somebody's home folder with files of logins in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.own = folder / ".config/hpcbinder/auth.json"
        self.environ = {"HOME": str(folder), "PATH": f"{folder}/bin:/usr/bin:/bin"}

    def write(self, path: str, data: Any) -> Path:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(data if isinstance(data, str) else json.dumps(data))
        return file

    def helper(self, name: str, script: str) -> None:
        self.write(f"bin/docker-credential-{name}", f"#!/bin/sh\n{script}\n").chmod(0o755)

    @property
    def credentials(self) -> Credentials:
        return Credentials(self.own, self.environ)

    def user(self, host: str, repository: str = "org/name") -> str | None:
        login = self.credentials.find(host, repository)
        return login.username if login else None


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_nobody_is_logged_in_at_first(home: Home) -> None:
    assert home.credentials.find("ghcr.io", "org/name") is None


@pytest.mark.parametrize(
    "key", ["ghcr.io", "https://ghcr.io", "https://ghcr.io/v1/", "http://ghcr.io/v2/", "ghcr.io/v2", "GHCR.io"]
)
def test_dockers_login_is_found_under_the_names_it_has_had(home: Home, key: str) -> None:
    home.write(".docker/config.json", {"auths": {key: auth("me", "pass:word")}})
    login = home.credentials.find("ghcr.io", "org/name")
    assert login is not None
    assert (login.username, login.password) == ("me", "pass:word")
    assert home.user("quay.io") is None


def test_docker_hub_has_a_name_of_its_own(home: Home) -> None:
    home.write(".docker/config.json", {"auths": {"https://index.docker.io/v1/": auth("me")}})
    assert home.user("docker.io", "library/debian") == "me"


def test_of_podmans_logins_the_longest_name_counts(home: Home) -> None:
    home.write(
        ".config/containers/auth.json",
        {"auths": {"q.io": auth("all"), "q.io/org": auth("org"), "q.io/org/name": auth("one"), "q.io/or": auth("no")}},
    )
    assert home.user("q.io", "org/name") == "one"
    assert home.user("q.io", "org/other") == "org"
    assert home.user("q.io", "organisation/x") == "all"
    assert home.user("other.io") is None


def test_ours_comes_first_then_podmans_then_dockers(home: Home) -> None:
    home.write(".docker/config.json", {"auths": {"a.io": auth("docker")}})
    assert home.user("a.io") == "docker"
    home.write(".config/containers/auth.json", {"auths": {"a.io": auth("podman")}})
    assert home.user("a.io") == "podman"
    home.environ["XDG_RUNTIME_DIR"] = str(home.folder / "run")
    home.write("run/containers/auth.json", {"auths": {"a.io": auth("session")}})
    assert home.user("a.io") == "session"
    home.environ["REGISTRY_AUTH_FILE"] = str(home.write("given.json", {"auths": {"a.io": auth("given")}}))
    assert home.user("a.io") == "given"
    keep_login("a.io", Login("ours", "secret"), home.own)
    assert home.user("a.io") == "ours"


def test_docker_config_names_another_folder(home: Home) -> None:
    home.write("elsewhere/config.json", {"auths": {"a.io": auth("me")}})
    home.environ["DOCKER_CONFIG"] = str(home.folder / "elsewhere")
    assert home.user("a.io") == "me"


def test_tokens_are_logins_too(home: Home) -> None:
    home.write(".docker/config.json", {"auths": {"a.io": {**auth("me", ""), "identitytoken": "T"}}})
    login = home.credentials.find("a.io", "x")
    assert login is not None
    assert login.identity_token == "T"


@pytest.mark.parametrize("where", ["credHelpers", "credsStore"])
def test_a_credential_helper_is_asked_as_docker_asks_it(home: Home, where: str) -> None:
    home.helper(
        "x", """read server; printf '{"ServerURL":"%s","Username":"me at %s","Secret":"s"}' "$server" "$server" """
    )
    home.write(".docker/config.json", {where: {"a.io": "x"} if where == "credHelpers" else "x", "auths": {"a.io": {}}})
    login = home.credentials.find("a.io", "org/name")
    assert login is not None
    assert (login.username, login.password, login.origin) == ("me at a.io", "s", "docker-credential-x")


def test_a_helper_gives_docker_hubs_login_by_its_old_address_and_tokens_by_a_name(home: Home) -> None:
    home.helper(
        "x",
        """read server; test "$1 $server" = "get https://index.docker.io/v1/" || exit 1
        echo '{"Username":"<token>","Secret":"T"}'""",
    )
    home.write(".docker/config.json", {"credsStore": "x"})
    login = home.credentials.find("docker.io", "library/debian")
    assert login is not None
    assert (login.identity_token, login.password) == ("T", "")


@pytest.mark.parametrize(
    "script, note",
    [
        ("echo 'credentials not found in native keychain'; exit 1", None),
        ("echo 'the wallet is locked'; exit 1", "failed: the wallet is locked"),
        ("echo nonsense", "gave no login"),
        ("echo '[]'", "gave no login"),
        ("""echo '{"Username":1,"Secret":2}'""", "gave no login"),
        (None, "cannot be run"),
    ],
)
def test_a_helper_that_has_none_or_fails_leaves_the_rest_of_the_file(
    home: Home, script: str | None, note: str | None
) -> None:
    if script is not None:
        home.helper("x", script)
    home.write(".docker/config.json", {"credsStore": "x", "auths": {"a.io": auth("plain")}})
    credentials = home.credentials
    login = credentials.find("a.io", "x")
    assert login is not None
    assert login.username == "plain"
    assert len(credentials.notes) == (note is not None)
    assert (note or "") in "".join(credentials.notes)


@pytest.mark.parametrize("name", ["../../bin/sh", "a/b", "", "-x", "x\n", 7, None, ["x"]])
def test_a_helper_is_a_name_and_nothing_else(home: Home, name: object) -> None:
    home.write(".docker/config.json", {"credHelpers": {"a.io": name}})
    assert home.user("a.io") is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '"x"',
        '{"auths": []}',
        '{"auths": {"a.io": "x"}}',
        '{"auths": {"a.io": {"auth": 7}}}',
        '{"auths": {"a.io": {"auth": "%%%"}}}',
        '{"auths": {"a.io": {"auth": "//79"}}}',
        "[" * 100_000,
    ],
)
def test_a_damaged_file_is_no_login_and_none_of_it_is_told(home: Home, text: str) -> None:
    home.write(".docker/config.json", text)
    credentials = home.credentials
    assert credentials.find("a.io", "x") is None
    assert all("config.json" in note and "%%%" not in note for note in credentials.notes)


def test_a_password_shows_nowhere(home: Home) -> None:
    home.write(".docker/config.json", {"auths": {"a.io": auth("me", "geheim")}})
    credentials = home.credentials
    assert "geheim" not in repr(credentials.find("a.io", "x"))
    assert "geheim" not in repr(vars(credentials))


def test_a_login_is_kept_for_its_owner_alone(home: Home) -> None:
    keep_login("a.io", Login("me", "pass:word"), home.own)
    keep_login("b.io", Login("you", "word"), home.own)
    assert stat.S_IMODE(home.own.stat().st_mode) == 0o600
    assert stat.S_IMODE(home.own.parent.stat().st_mode) == 0o700
    login = home.credentials.find("a.io", "x")
    assert login is not None
    assert (login.username, login.password) == ("me", "pass:word")
    assert forget_login("a.io", home.own)
    assert not forget_login("a.io", home.own)
    assert (home.user("a.io"), home.user("b.io")) == (None, "you")


def test_there_is_nothing_to_forget_without_a_file(home: Home) -> None:
    assert not forget_login("a.io", home.own)
    assert not home.own.exists()


def test_a_file_that_is_none_of_logins_is_not_overwritten(home: Home) -> None:
    home.write(".config/hpcbinder/auth.json", "important")
    with pytest.raises(RegistryError, match="is no file of logins"):
        keep_login("a.io", Login("me", "x"), home.own)
    assert home.own.read_text() == "important"


def test_a_name_with_a_colon_would_be_read_as_another(home: Home) -> None:
    with pytest.raises(UsageError, match="no colon"):
        keep_login("a.io", Login("a:b", "c"), home.own)
