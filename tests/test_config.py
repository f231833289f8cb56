"""The configuration: sources, precedence, origins, and one clear line for whatever is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import hpcbinder
from hpcbinder.config import Config, describe, load, markdown, redact
from hpcbinder.errors import UsageError


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return tmp_path / "site.toml"


@pytest.fixture
def user(tmp_path: Path) -> Path:
    return tmp_path / "user" / "config.toml"


class Load:
    """`load` with files of the test and nothing of this machine."""

    def __init__(self, site: Path, user: Path) -> None:
        self.site, self.user = site, user

    def __call__(self, *, flags: dict[str, object] | None = None, site: str = "", user: str = "", **env: str) -> Config:
        for path, text in ((self.site, site), (self.user, user)):
            if text:
                path.parent.mkdir(exist_ok=True)
                path.write_text(text)
        return load(flags, environ={"HOME": "/home/ann", **env}, site_file=self.site, user_file=self.user)


@pytest.fixture
def read(site: Path, user: Path) -> Load:
    return Load(site, user)


def test_without_any_file_the_defaults_hold(read: Load) -> None:
    config = read()
    assert config.build.engine == "auto"
    assert config.build.formats == ("sif", "squashfs")
    assert config.site.https_proxy is None
    assert config.store.path.is_absolute()
    assert set(config.origins.values()) == {"default"}


def test_a_stronger_place_replaces_a_weaker_one_and_the_origin_says_which(read: Load, site: Path, user: Path) -> None:
    config = read(
        site='[build]\nengine = "docker"\nsuite = "trixie"\n\n[runtime]\nname = "shifter"\nbinds = ["/lustre"]\n',
        user='# mine\nruntime.name = "apptainer"\nruntime.binds = ["/a", "/b:/c:ro"]\n',
        HPCBINDER_RUNTIME_NAME="charliecloud",
        HPCBINDER_RUNTIME_GPU="none",
        flags={"runtime.gpu": "rocm", "store.path": None},
    )
    assert (config.build.engine, config.origins["build.engine"]) == ("docker", f"{site}:2")
    assert (config.build.suite, config.origins["build.suite"]) == ("trixie", f"{site}:3")
    assert (config.runtime.binds, config.origins["runtime.binds"]) == (("/a", "/b:/c:ro"), f"{user}:3")
    assert (config.runtime.name, config.origins["runtime.name"]) == (
        "charliecloud",
        "environment HPCBINDER_RUNTIME_NAME",
    )
    assert (config.runtime.gpu, config.origins["runtime.gpu"]) == ("rocm", "flag")
    assert config.origins["store.path"] == "default"


def test_what_an_option_says_is_refused_in_its_name() -> None:
    with pytest.raises(UsageError, match="^--compression must be auto, gzip.* not 'foo'$"):
        load({"build.compression": "foo"}, environ={}, options={"build.compression": "--compression"})


def test_the_line_of_a_key_is_told_also_after_a_text_that_looks_like_it(read: Load, user: Path) -> None:
    text = '[runtime]\nprologue = [\n  """\\\n  gpu = \\"no\\" [build]""",\n]\ngpu = "none"\nbuild = { x = 1 }\n'
    with pytest.raises(UsageError) as caught:
        read(user=text)
    assert caught.value.where == f"{user}:7"
    assert "no such key: 'runtime.build'" in str(caught.value)
    assert read(user=text.replace("build = { x = 1 }\n", "")).origins["runtime.gpu"] == f"{user}:6"


def test_usual_variables_are_taken_when_nothing_else_is_said(read: Load) -> None:
    usual = {
        "SSL_CERT_FILE": "/etc/site.pem",
        "https_proxy": "proxy.example.org:3128",
        "no_proxy": "localhost, .example.org",
        "PIP_INDEX_URL": "https://pypi.example.org/simple",
        "DOCKER_HOST": "unix:///run/user/1000/docker.sock",
    }
    config = read(**usual)
    assert config.site.ca_certificates == Path("/etc/site.pem")
    assert config.origins["site.ca_certificates"] == "environment SSL_CERT_FILE"
    assert config.site.https_proxy == "http://proxy.example.org:3128"
    assert config.site.no_proxy == "localhost,.example.org"
    assert config.site.pip_index_url == "https://pypi.example.org/simple"
    assert config.build.dockerd == "unix:///run/user/1000/docker.sock"
    stronger = read(**usual, site='[site]\nca_certificates = "/other.pem"\nhttps_proxy = ""\n')
    assert stronger.site.ca_certificates == Path("/other.pem")
    assert stronger.site.https_proxy is None
    assert read(UV_INDEX_URL="https://a.example.org", PIP_INDEX_URL="https://b.example.org").site.pip_index_url == (
        "https://a.example.org"
    )


def test_a_usual_variable_that_nobody_needs_may_hold_anything(read: Load) -> None:
    odd = {"PIP_INDEX_URL": "file:///mirror"}
    assert read(**odd, HPCBINDER_SITE_PIP_INDEX_URL="https://pypi.org/simple").site.pip_index_url
    with pytest.raises(UsageError, match="^environment PIP_INDEX_URL: site.pip_index_url must be a URL"):
        read(**odd)


def test_lists_in_the_environment_are_split(read: Load) -> None:
    config = read(
        HPCBINDER_BUILD_FORMATS="sif, shifter,sif",
        HPCBINDER_STORE_SITE="/sw/a:/sw/b",
        HPCBINDER_RUNTIME_PROLOGUE="module load x\nmodule load y, z",
        HPCBINDER_RUNTIME_ENVIRONMENT="SLURM_*,MY_?",
    )
    assert config.build.formats == ("sif", "shifter")
    assert config.store.site == (Path("/sw/a"), Path("/sw/b"))
    assert config.runtime.prologue == ("module load x", "module load y, z")
    assert config.runtime.environment == ("SLURM_*", "MY_?")


def test_a_table_is_a_table_in_files_and_pairs_in_the_environment(read: Load) -> None:
    text = '[registry.mirrors]\n"docker.io" = "mirror.example/hub"\n"ghcr.io/org" = "localhost:5000/x"\n'
    mirrors = {"docker.io": "mirror.example/hub", "ghcr.io/org": "localhost:5000/x"}
    assert read(user=text).registry.mirrors == mirrors
    variable = "docker.io=mirror.example/hub, ghcr.io/org = localhost:5000/x"
    assert read(HPCBINDER_REGISTRY_MIRRORS=variable).registry.mirrors == mirrors
    assert read(HPCBINDER_REGISTRY_MIRRORS="").registry.mirrors == {}
    (setting,) = [setting for setting in describe(read()) if setting.key == "registry.mirrors"]
    assert setting.value == mirrors
    assert setting.origin.endswith("config.toml:1")


def test_paths_know_home_variables_and_their_file(read: Load, user: Path) -> None:
    config = read(
        user='[store]\npath = "$SCRATCH/${USER}/images"\nsite = ["~/a", "sub/../b"]\n',
        SCRATCH="/scratch",
        USER="ann",
    )
    assert config.store.path == Path("/scratch/ann/images")
    assert config.store.site == (Path("/home/ann/a"), user.parent / "b")


def test_a_variable_of_the_site_that_is_not_set_is_named_and_can_be_replaced(read: Load, site: Path) -> None:
    text = '[store]\npath = "$SCRATCH/images"\n'
    with pytest.raises(UsageError) as caught:
        read(site=text)
    assert str(caught.value) == f"{site}:2: store.path needs the environment variable SCRATCH, which is not set"
    assert read(site=text, HPCBINDER_STORE_PATH="/mine").store.path == Path("/mine")


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("[build]\nengin = 'auto'\n", 2, "no such key: 'build.engin' (did you mean engine?)"),
        ("[build]\n[bulid]\n", 2, "no such section: 'bulid' (did you mean build?)"),
        ("\nbuild = 3\n", 2, "build is a section: write [build]"),
        ("[build]\nengine = 3\n", 2, "build.engine must be text in quotes, not a number"),
        ("[build]\nengine = true\n", 2, "build.engine must be text in quotes, not true or false"),
        ("[build]\nengine = 1979-05-27\n", 2, "build.engine must be text in quotes, not a date or time"),
        ("[build]\nengine = ['auto']\n", 2, "build.engine must be text in quotes, not a list"),
        ("[build]\nformats = 'sif'\n", 2, "build.formats must be a list, not text"),
        ("[build]\nformats = ['sif', 2]\n", 2, "build.formats must be text in quotes, not a number"),
        (
            "[build]\nformats = ['qcow']\n",
            2,
            "build.formats must be one of sif, squashfs, shifter, charliecloud, enroot, podman-hpc, oci, not 'qcow'",
        ),
        ('[build]\nengine = "a\\u0000b"\n', 2, "build.engine holds a NUL byte"),
        ("[build]\nengine = \n", 2, "is not TOML: Invalid value"),
        ("[build]\nengine = 'auto", 2, "is not TOML: "),
        ("a = 1\na = 2\n", 2, "is not TOML: Cannot overwrite a value"),
        ("x = " + "[" * 5000, None, "is nested too deeply"),
        (
            "[build]\ncompression = 'gzip:13'\n",
            2,
            "build.compression must be auto, gzip, gzip:1 to gzip:12, zstd, zstd:1",
        ),
        ("[build]\nsuite = 'book worm; rm'\n", 2, "build.suite must be a Debian suite's name, not 'book worm; rm'"),
        ("[build]\ndockerd = '--evil'\n", 2, "build.dockerd must be unix:///"),
        ("[build]\ndockerd = 'ssh://-oProxyCommand=x'\n", 2, "build.dockerd must be unix:///"),
        ('[site]\napt_mirror = "https://x/\'; rm"\n', 2, "site.apt_mirror must be a URL"),
        ("[site]\nhttp_proxy = 'http://a\\nb'\n", 2, "site.http_proxy must be a proxy's URL"),
        ("[runtime]\nbinds = ['scratch']\n", 2, "runtime.binds must be /SOURCE[:/TARGET[:ro|rw]], not 'scratch'"),
        ("[runtime]\nbinds = ['/a,/b']\n", 2, "runtime.binds must be"),
        ("[runtime]\nbinds = ['/a:ro']\n", 2, "runtime.binds must be"),
        ("[runtime]\nbinds = ['/a:/']\n", 2, "runtime.binds must be"),
        ("[runtime]\nenvironment = ['A=B']\n", 2, "runtime.environment must be a variable's name"),
        ('[runtime]\nprologue = ["a\\nb"]\n', 2, "runtime.prologue must be one line of shell"),
        ("[registry]\nmirrors = ['a']\n", 2, "registry.mirrors must be a table, not a list"),
        ("[registry]\nmirrors = 'a=b'\n", 2, "registry.mirrors must be a table, not text"),
        ("[registry.mirrors]\n'a b' = 'c'\n", 1, "a name in registry.mirrors must be REGISTRY[/PATH], not 'a b'"),
        ("[registry.mirrors]\n'a' = 'c d'\n", 1, "registry.mirrors of 'a' must be REGISTRY[/PATH], not 'c d'"),
        ("[registry.mirrors]\n'a' = 1\n", 1, "registry.mirrors of 'a' must be text in quotes, not a number"),
        ("[registry]\ninsecure = ['http://a']\n", 2, "registry.insecure must be HOST or HOST:PORT, not 'http://a'"),
        ("[store]\npath = ''\n", 2, "store.path must be a path, not empty"),
    ],
)
def test_what_cannot_be_meant_is_one_line_with_file_and_line(
    read: Load, user: Path, text: str, line: int | None, message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        read(user=text)
    where = f"{user}:{line}" if line else f"{user}"
    assert str(caught.value).startswith(f"{where}: {message}")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"[build]\nengine = 'a\0b'\n", ":2: holds a NUL byte"),
        (b"[build]\n# \xff\n", ":2: is not UTF-8"),
        (b"#" * (2 << 20), ": is larger than 1 MiB: not a configuration"),
    ],
)
def test_files_that_are_no_text(read: Load, user: Path, raw: bytes, message: str) -> None:
    user.parent.mkdir()
    user.write_bytes(raw)
    with pytest.raises(UsageError) as caught:
        read()
    assert str(caught.value) == f"{user}{message}"


def test_a_file_that_cannot_be_read_is_named(read: Load, user: Path) -> None:
    user.mkdir(parents=True)
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        read()


def test_windows_line_ends_and_a_byte_order_mark_are_fine(read: Load, user: Path) -> None:
    user.parent.mkdir()
    user.write_bytes(b'\xef\xbb\xbf[build]\r\nengine = "docker"\r\n')
    assert read().origins["build.engine"] == f"{user}:2"


def test_an_unknown_variable_of_ours_is_an_error_but_others_are_not(read: Load) -> None:
    with pytest.raises(UsageError) as caught:
        read(HPCBINDER_BUILD_ENGIN="docker")
    assert str(caught.value) == (
        "environment HPCBINDER_BUILD_ENGIN: no such setting (did you mean HPCBINDER_BUILD_ENGINE?)"
    )
    read(HPCBINDER_IMAGE="x")


def test_a_wrong_value_is_shown_without_its_password(read: Load) -> None:
    with pytest.raises(UsageError) as caught:
        read(HPCBINDER_SITE_HTTPS_PROXY="ftp://ann:geheim@proxy")
    assert "geheim" not in str(caught.value)
    assert "ftp://***@proxy" in str(caught.value)


def test_describe_lists_every_key_and_shows_no_password(read: Load) -> None:
    config = read(
        HPCBINDER_SITE_HTTPS_PROXY="http://ann:geheim@proxy:3128",
        HPCBINDER_RUNTIME_PROLOGUE="export P=https://ann:geheim@x/",
    )
    settings = {setting.key: setting for setting in describe(config)}
    assert "geheim" not in str(settings)
    assert settings["site.https_proxy"].value == "http://***@proxy:3128"
    assert settings["build.formats"].value == ["sif", "squashfs"]
    assert settings["build.dockerd"].value is None
    assert settings["site.https_proxy"].origin == "environment HPCBINDER_SITE_HTTPS_PROXY"
    assert set(settings) == set(config.origins)
    assert all(setting.doc and "\n" not in setting.doc for setting in settings.values())


@pytest.mark.parametrize("piece", ["a.", "x://:", "https://", "https://a:", "@x://:", "a@"])
def test_redact_takes_no_longer_for_hostile_text(piece: str) -> None:
    # A build step may print whatever it likes; each line of it is looked at. Run to its end by its own process.
    program = "import resource, hpcbinder.config as c; resource.setrlimit(resource.RLIMIT_CPU, (20, 20))\n"
    program += f"for _ in range(20): c.redact({piece!r} * 30_000)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_redact_leaves_what_is_no_credential() -> None:
    assert redact("https://ann:geheim@c/d and http://token@c/d") == "https://***@c/d and http://***@c/d"
    assert redact('x="postgres://a:b@c"\tftp://u:p@q@h/ z') == 'x="postgres://***@c"\tftp://***@h/ z'
    assert redact("a slash not quoted: https://ann:ge/heim@host/x") == "a slash not quoted: https://***@host/x"
    assert redact("ssh://git@host/x, https://example.org/@user") == "ssh://git@host/x, https://example.org/@user"


def test_the_documentation_is_the_table() -> None:
    documentation = Path(hpcbinder.__file__).parents[1] / "docs" / "config.md"
    assert documentation.read_text() == markdown(), "run: python -m hpcbinder.config > docs/config.md"


def test_the_example_in_the_documentation_can_be_read(read: Load) -> None:
    example = markdown().split("```toml\n")[1].split("```")[0]
    config = read(site=example, SCRATCH="/scratch/ann")
    assert config.store.path == Path("/scratch/ann/hpcbinder")
    assert config.runtime.prologue == ("module load apptainer",)


def test_what_can_be_said_is_what_the_other_parts_know(read: Load) -> None:
    from hpcbinder.convert import FORMATS
    from hpcbinder.runtime.launch.values import parse_bind
    from hpcbinder.squashfs.options import LEVELS, Options

    assert read(flags={"build.formats": FORMATS}).build.formats == FORMATS
    for compressor, (low, high, _) in LEVELS.items():
        for text in (compressor, f"{compressor}:{low}", f"{compressor}:{high}"):
            assert Options.parse(read(HPCBINDER_BUILD_COMPRESSION=text).build.compression)
        with pytest.raises(UsageError):
            read(HPCBINDER_BUILD_COMPRESSION=f"{compressor}:{high + 1}")
    for bind in read(HPCBINDER_RUNTIME_BINDS="/a,/b:/c,/:/host:ro,/d:/e:rw").runtime.binds:
        parse_bind(bind)


def test_an_unknown_flag_is_a_mistake_of_ours(read: Load) -> None:
    with pytest.raises(KeyError):
        read(flags={"no.such": "x"})


def test_importing_and_loading_needs_nothing_heavy() -> None:
    code = (
        "import sys; from hpcbinder.config import load; load(environ={}); "
        "print([m for m in ('pydantic', 'tomllib', 'difflib', 'git', 'click', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
