"""The table of keys: what there is to configure, each with its type, default and a line of documentation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

from hpcbinder.config.hub import JupyterhubConfig, ModulesConfig
from hpcbinder.config.values import (
    IMAGE,
    REGISTRY,
    REPOSITORY,
    URL,
    Spec,
    matching,
    one_of,
    read_as_of,
    read_bind,
    read_compression,
    read_flag,
    read_no_proxy,
    read_path,
    read_proxy,
)
from hpcbinder.debian import Mirrors
from hpcbinder.errors import UsageError

SITE_FILE = Path("/etc/hpcbinder/config.toml")


def mirrors(site: SiteConfig) -> Mirrors:
    """Where a site wants Debian's packages to come from."""
    return Mirrors(site.apt_mirror, site.apt_security_mirror, site.apt_archive_mirror)


def _setting(spec: Spec, default: Any = None, *, factory: Callable[[], Any] | None = None) -> Any:
    metadata = {"spec": spec}
    if factory is not None:
        return field(default_factory=factory, metadata=metadata)
    return field(default=default, metadata=metadata)


def _user_data() -> Path:
    import platformdirs

    path = platformdirs.user_data_path("hpcbinder")
    if not path.is_absolute():
        raise UsageError("no home folder to keep images in", hint="set HPCBINDER_STORE_PATH")
    return path


def user_config() -> Path:
    import platformdirs

    return platformdirs.user_config_path("hpcbinder")


@dataclass(frozen=True)
class StoreConfig:
    """Where images are kept."""

    path: Path = _setting(
        Spec(
            "path",
            "Folder of your images. Any shared file system with working fcntl locks (NFSv4, Lustre with flock, GPFS).",
            read_path,
            default_doc="`~/.local/share/hpcbinder`",
        ),
        factory=_user_data,
    )
    site: tuple[Path, ...] = _setting(
        Spec(
            "list of paths", "Read-only stores below yours, whose images everybody can use.", read_path, separator=":"
        ),
        (),
    )


@dataclass(frozen=True)
class BuildConfig:
    """How images are made."""

    engine: str = _setting(
        Spec(
            '"auto", "none", "docker", "podman" or "buildah"',
            "What builds images. none assembles them of squashed packages and runs nothing; auto does so where every "
            "step is data, and else takes the first engine that can: Docker, podman, buildah (docs/engines.md).",
            one_of("auto", "none", "docker", "podman", "buildah"),
        ),
        "auto",
    )
    isolation: str = _setting(
        Spec(
            '"auto", "chroot", "oci" or "rootless"',
            "How podman and buildah keep build steps apart from the machine: auto is chroot for an ordinary user, oci "
            "(a container runtime) for root.",
            one_of("auto", "chroot", "oci", "rootless"),
        ),
        "auto",
    )
    shared: bool = _setting(
        Spec(
            "true or false",
            "Others' repositories are built here, as by a service or a shared account: engines that run as root are "
            "refused.",
            read_flag,
        ),
        False,
    )
    formats: tuple[str, ...] = _setting(
        Spec(
            "list",
            "What an image is converted to (docs/runtimes.md): sif, squashfs, shifter, charliecloud, enroot, "
            "podman-hpc, oci.",
            one_of("sif", "squashfs", "shifter", "charliecloud", "enroot", "podman-hpc", "oci"),
            separator=",",
        ),
        ("sif", "squashfs"),
    )
    suite: str = _setting(
        Spec(
            "text",
            "Debian suite of the base when the repository does not ask for a Python: bookworm (3.11), trixie (3.13).",
            matching(r"[a-z][a-z0-9-]*", "a Debian suite's name"),
        ),
        "bookworm",
    )
    compression: str = _setting(
        Spec(
            "text",
            "Compression of squashfs: gzip, zstd, xz or lz4, with a level as in gzip:6; auto takes zstd if all that "
            "mounts images here is known to read it, and gzip if not (docs/images.md).",
            read_compression,
        ),
        "auto",
    )
    as_of: str = _setting(
        Spec(
            '"auto", "commit", "now" or a date',
            "Of which time versions are that nothing locks: commit is when notebooks, code or configuration were "
            "changed last, now the newest, YYYY-MM-DD the end of that day (UTC); auto is commit once that is "
            "older than `as_of_age` (docs/as-of.md).",
            read_as_of,
        ),
        "auto",
    )
    as_of_age: str = _setting(
        Spec(
            "days",
            "Age from which on a repository gets the versions of its time: a younger one gets the newest.",
            matching(r"[0-9]{1,5}d", "a number of days such as 180d"),
        ),
        "180d",
    )
    dockerd: str | None = _setting(
        Spec(
            "text",
            "Address of the Docker daemon, as in DOCKER_HOST; without it Docker's own default.",
            matching(r"unix:///[^\s\x00]+|(tcp|ssh|https?)://[^\s\x00-][^\s\x00]*", "unix:///…, tcp://… or ssh://…"),
            optional=True,
            usual=("DOCKER_HOST",),
        )
    )
    network: str = _setting(
        Spec(
            '"host" or "default"',
            "Network of build steps; host reaches proxies and mirrors that listen on this machine's loopback.",
            one_of("host", "default"),
        ),
        "host",
    )


@dataclass(frozen=True)
class BasesConfig:
    """What images stand on (docs/bases.md)."""

    source: str = _setting(
        Spec(
            '"auto", "bootstrap" or "registry"',
            "Where Debian comes from: bootstrapped from its packages with mmdebstrap, or its image from a registry; "
            "auto takes the registry where there is no mmdebstrap.",
            one_of("auto", "bootstrap", "registry"),
        ),
        "auto",
    )
    suites: tuple[str, ...] = _setting(
        Spec(
            "list",
            "Debian suites whose Python a repository may ask for, besides build.suite, the most wanted first: "
            "bookworm (3.11), trixie (3.13); bullseye (3.9) and buster are at the end of their life and get no fixes.",
            one_of("buster", "bullseye", "bookworm", "trixie"),
            separator=",",
        ),
        ("bookworm", "trixie"),
    )
    older: tuple[str, ...] = _setting(
        Spec(
            "list",
            "Older Debian releases whose packages may bring a Python, into a folder of its own on the usual base: "
            "bullseye has 2.7 and 3.9. Nobody mends these any more.",
            one_of("bullseye"),
            separator=",",
        ),
        ("bullseye",),
    )
    images: Mapping[str, str] = _setting(
        Spec(
            "table of texts",
            'What is pulled for an image: `"debian:bookworm-slim" = "registry.example.org/mirror/debian:bookworm"`. '
            "An image `python:3.12-slim` (on build.suite) or `python:3.12-slim-bookworm` named here is a base for "
            "repositories that want this Python.",
            matching(IMAGE, "an image's name, with @sha256:… to pin it"),
            separator=",",
            names=matching(IMAGE, "an image's name"),
            default_doc="none",
        ),
        factory=dict,
    )
    python_images: str = _setting(
        Spec(
            '"official" or "named"',
            "Where a Python comes from that neither Debian nor `pythons` have: official takes Docker Hub's "
            "python:X.Y-slim-SUITE, by way of `images` and registry.mirrors; named only such as `images` names.",
            one_of("official", "named"),
        ),
        "official",
    )
    pythons: tuple[Path, ...] = _setting(
        Spec(
            "list of paths",
            "Folders of interpreters for repositories that want a Python which Debian does not have: each an "
            "interpreter's own folder, or one that holds several (`versions` of pyenv, uv's, a centre's /opt/python). "
            "Nobody may be able to change them whom you would not let choose what runs in your images.",
            read_path,
            separator=":",
        ),
        (),
    )


@dataclass(frozen=True)
class SiteConfig:
    """Mirrors, proxies and certificates, for the build only: none of it stays in an image."""

    apt_mirror: str | None = _setting(
        Spec("URL", "Debian mirror instead of http://deb.debian.org/debian.", matching(URL, "a URL"), optional=True)
    )
    apt_security_mirror: str | None = _setting(
        Spec(
            "URL",
            "Mirror instead of http://deb.debian.org/debian-security.",
            matching(URL, "a URL"),
            optional=True,
        )
    )
    apt_archive_mirror: str | None = _setting(
        Spec(
            "URL",
            "Mirror of Debian releases at the end of their life instead of http://archive.debian.org/debian, such as "
            "a day of snapshot.debian.org; the fixes are looked for in debian-security beside it.",
            matching(URL, "a URL"),
            optional=True,
        )
    )
    pip_index_url: str | None = _setting(
        Spec(
            "URL",
            "Python package index instead of https://pypi.org/simple.",
            matching(URL, "a URL"),
            optional=True,
            usual=("UV_INDEX_URL", "PIP_INDEX_URL"),
        )
    )
    cran_mirror: str | None = _setting(
        Spec(
            "URL",
            "Mirror of CRAN instead of https://packagemanager.posit.co/cran/__linux__/{suite}/{date}. {suite} stands "
            "for the image's Debian release, {date} for the day whose packages are wanted, or `latest`: a mirror whose "
            "address has no {date} has only today's.",
            matching(r"https?://[^\s'\"\\<>`$|;&]+", "a URL"),
            optional=True,
        )
    )
    julia_mirror: str | None = _setting(
        Spec(
            "URL",
            "Folder of Julia's programs instead of https://julialang-s3.julialang.org/bin.",
            matching(URL, "a URL"),
            optional=True,
        )
    )
    julia_package_server: str | None = _setting(
        Spec("URL", "Julia package server instead of https://pkg.julialang.org.", matching(URL, "a URL"), optional=True)
    )
    ca_certificates: Path | None = _setting(
        Spec(
            "path",
            "PEM bundle of the certificate authorities to trust instead of the usual ones.",
            read_path,
            optional=True,
            usual=("SSL_CERT_FILE",),
        )
    )
    http_proxy: str | None = _setting(
        Spec("URL", "Proxy for http.", read_proxy, optional=True, usual=("http_proxy", "HTTP_PROXY"))
    )
    https_proxy: str | None = _setting(
        Spec("URL", "Proxy for https.", read_proxy, optional=True, usual=("https_proxy", "HTTPS_PROXY"))
    )
    no_proxy: str | None = _setting(
        Spec(
            "text",
            "Hosts reached without the proxy, separated by commas.",
            read_no_proxy,
            optional=True,
            usual=("no_proxy", "NO_PROXY"),
        )
    )


@dataclass(frozen=True)
class CondaConfig:
    """Where conda packages come from (docs/conda.md)."""

    mode: str = _setting(
        Spec(
            '"packages" or "pypi"',
            "What becomes of files that ask for conda packages: `packages` takes these from the channels; `pypi` meets "
            "them with Debian's packages and the Python index's, one by one, and refuses what has no counterpart.",
            one_of("packages", "pypi"),
        ),
        "packages",
    )
    channels: tuple[str, ...] = _setting(
        Spec(
            "list",
            "Channels that are asked where a repository names none, the most important first.",
            matching(r"[A-Za-z0-9_:][A-Za-z0-9._:/-]*", "a channel's name or address"),
            separator=",",
        ),
        ("conda-forge",),
    )
    server: str = _setting(
        Spec(
            "URL",
            "Server whose folders are the channels: `conda-forge` is SERVER/conda-forge. A site names its mirror here.",
            matching(r"https?://[^\s@\x00-\x1f]+", "a URL without a login"),
        ),
        "https://conda.anaconda.org",
    )
    mirrors: Mapping[str, str] = _setting(
        Spec(
            "table of texts",
            'Where a single channel is, by the name or address that repositories call it: `"bioconda" = '
            '"https://mirror.example.org/bioconda"`.',
            matching(r"https?://[^\s@\x00-\x1f]+", "a URL without a login"),
            separator=",",
            names=matching(r"[A-Za-z0-9_:][A-Za-z0-9._:/-]*", "a channel's name or address"),
            default_doc="none",
        ),
        factory=dict,
    )
    defaults: bool = _setting(
        Spec(
            "true or false",
            "Take packages from the channels of Anaconda, Inc. (`defaults`), whose terms ask larger organisations to "
            "pay; without it they are left out, and said so.",
            read_flag,
        ),
        False,
    )
    cuda: str | None = _setting(
        Spec(
            "text",
            "CUDA version that the GPU drivers of this site can do, as in 12.4: packages that need one can then be "
            "chosen (conda's virtual package __cuda).",
            matching(r"[0-9]{1,3}(\.[0-9]{1,3})?", "a version such as 12.4"),
            optional=True,
        )
    )


@dataclass(frozen=True)
class SourceConfig:
    """What is fetched with a repository, and from where."""

    submodules: str = _setting(
        Spec(
            '"fetch" or "leave"',
            "Git submodules: fetch them, or leave their folders empty.",
            one_of("fetch", "leave"),
        ),
        "fetch",
    )
    lfs: str = _setting(
        Spec(
            '"fetch" or "leave"',
            "Files in Git LFS: fetch them, or leave the pointers to them.",
            one_of("fetch", "leave"),
        ),
        "fetch",
    )
    hosts: tuple[str, ...] = _setting(
        Spec(
            "list",
            "Hosts that a repository or a dataset may send us to (for submodules, files in Git LFS, data), besides its "
            "own host and those of the public Internet; globs. A site names its internal git server here.",
            matching(r"[A-Za-z0-9*?.:\[\]_-]+", "a host's name or a glob of names"),
            separator=",",
        ),
        (),
    )
    limit: str = _setting(
        Spec(
            "size",
            "The most that is fetched of a dataset, or of Git LFS for one repository: bytes, or with K, M, G, T.",
            matching(r"[0-9]{1,15}[KMGT]?", "a size such as 50G"),
        ),
        "100G",
    )
    ckan: tuple[str, ...] = _setting(
        Spec(
            "list",
            "Hosts whose `/dataset/…` addresses are CKAN's.",
            matching(r"[A-Za-z0-9.-]+(:[0-9]+)?", "a host's name"),
            separator=",",
        ),
        ("demo.ckan.org",),
    )
    swh_token_file: Path | None = _setting(
        Spec(
            "path",
            "File with your token for Software Heritage's archive, which lets you ask it more often.",
            read_path,
            optional=True,
        )
    )


@dataclass(frozen=True)
class RegistryConfig:
    """Registries, which bases are pulled from and images pushed to. Logins: docs/registries.md."""

    mirrors: Mapping[str, str] = _setting(
        Spec(
            "table of texts",
            'Where to look first: `"docker.io" = "mirror.example.org/hub"` takes `docker.io/library/debian` from '
            "`mirror.example.org/hub/library/debian`. A name is a registry or a part of one, the longest that fits "
            "counts; what the mirror does not give comes from where it is said to be.",
            matching(REPOSITORY, "REGISTRY[/PATH]"),
            separator=",",
            names=matching(REPOSITORY, "REGISTRY[/PATH]"),
            default_doc="none",
        ),
        factory=dict,
    )
    insecure: tuple[str, ...] = _setting(
        Spec(
            "list",
            "Registries (HOST or HOST:PORT) that may be spoken with unencrypted, if they do not encrypt. This "
            "machine's own may always.",
            matching(REGISTRY, "HOST or HOST:PORT"),
            separator=",",
        ),
        (),
    )


@dataclass(frozen=True)
class RuntimeConfig:
    """How images are run."""

    name: str = _setting(
        Spec(
            "text",
            "What runs images: auto (the first one there), apptainer (or Singularity), charliecloud, shifter, "
            "podman-hpc, docker.",
            one_of("auto", "apptainer", "charliecloud", "shifter", "podman-hpc", "docker"),
        ),
        "auto",
    )
    binds: tuple[str, ...] = _setting(
        Spec(
            "list",
            "Host folders seen inside, `/SOURCE[:/TARGET[:ro|rw]]`; `$NAME` is replaced from the environment.",
            read_bind,
            separator=",",
        ),
        (),
    )
    environment: tuple[str, ...] = _setting(
        Spec(
            "list",
            "Host variables let through to the image (globs); everything else stays outside.",
            matching(r"[A-Za-z_*?][A-Za-z0-9_*?]*", "a variable's name or a glob of names"),
            separator=",",
        ),
        (
            "SLURM_*",
            "PMI*",
            "PALS_*",
            "MPICH_*",
            "OMPI_*",
            "UCX_*",
            "FI_*",
            "NCCL_*",
            "OMP_*",
            "CUDA_VISIBLE_DEVICES",
            "NVIDIA_*",
            "ROCR_*",
            "KRB5CCNAME",
            "JUPYTERHUB_*",
            "HIP_VISIBLE_DEVICES",
            "LANG",
            "LC_*",
            "TERM",
            "TZ",
        ),
    )
    gpu: str = _setting(
        Spec(
            '"auto", "nvidia", "rocm" or "none"',
            "GPU support; auto looks at the devices of the machine the image runs on.",
            one_of("auto", "nvidia", "rocm", "none"),
        ),
        "auto",
    )
    prologue: tuple[str, ...] = _setting(
        Spec(
            "list",
            'Shell lines run on the host before the runtime, e.g. "module load apptainer".',
            matching(r"[^\x00-\x08\x0a-\x1f\x7f]*", "one line of shell"),
            separator="\n",
        ),
        (),
    )


@dataclass(frozen=True)
class MpiConfig:
    """The MPI of images (docs/mpi-gpu.md)."""

    abi: str = _setting(
        Spec(
            '"mpich" or "openmpi"',
            "The MPI that an image gets whose repository needs one (mpi4py, …) and does not say which: mpich, whose "
            "place the site's MPICH, Cray MPICH or Intel MPI can take, or openmpi, whose processes find each other by "
            "PMIx.",
            one_of("mpich", "openmpi"),
        ),
        "mpich",
    )


@dataclass(frozen=True)
class BuildpacksConfig:
    """Where buildpacks come from, besides the built-in ones."""

    path: tuple[Path, ...] = _setting(
        Spec(
            "list of paths",
            "Folders of buildpacks, most important first: a pack replaces those of its name in later folders.",
            read_path,
            separator=":",
            default_doc='`["~/.config/hpcbinder/buildpacks", "/etc/hpcbinder/buildpacks"]`',
        ),
        factory=lambda: (user_config() / "buildpacks", SITE_FILE.parent / "buildpacks"),
    )


@dataclass(frozen=True)
class KernelsConfig:
    """Where Jupyter kernels are registered."""

    prefix: Path | None = _setting(
        Spec(
            "path",
            "Register kernels below PREFIX/share/jupyter/kernels instead of the user's own folder.",
            read_path,
            optional=True,
        )
    )


@dataclass(frozen=True)
class ShifterConfig:
    """Shifter's image gateway (docs/runtimes.md, "Shifter")."""

    gateway: str | None = _setting(
        Spec(
            "URL",
            "Gateway that imports images of the format shifter, as in udiRoot.conf's imageGateway; without it they are "
            "only written.",
            matching(URL, "an http(s) URL"),
            optional=True,
        )
    )
    system: str | None = _setting(
        Spec(
            "text",
            "The system that images are imported for, as in udiRoot.conf.",
            matching(r"[A-Za-z0-9][A-Za-z0-9._-]*", "a system's name"),
            optional=True,
        )
    )


def _named(what: str) -> Any:
    return _setting(
        Spec(
            "text",
            f"{what} of jobs (`--on slurm`) that name none.",
            matching(r"[A-Za-z0-9_][A-Za-z0-9_.@%+,&|-]*", "a name"),
            optional=True,
        )
    )


@dataclass(frozen=True)
class SlurmConfig:
    """What jobs of `--on slurm` ask for when nothing else is said, and what of Slurm is within reach inside."""

    partition: str | None = _named("Partition")
    account: str | None = _named("Account")
    qos: str | None = _named("Quality of service")
    constraint: str | None = _named("Features of the nodes")
    inside: str = _setting(
        Spec(
            '"commands", "workers", "bound" or "off"',
            "What of Slurm a kernel or a server reaches from inside its container, through a helper outside of it: "
            "`workers` lets it submit Dask and ipyparallel workers in the same image, which end with it; `commands` "
            "also runs squeue, sbatch and their like; `bound` shows the machine's own Slurm client and munge's socket "
            "inside instead (docs/workers.md).",
            one_of("commands", "workers", "bound", "off"),
        ),
        "commands",
    )


_PERSONAL = (
    r"(?:/|(?:~|\{home\}|\$[A-Za-z_][A-Za-z0-9_]*|\$\{[A-Za-z_][A-Za-z0-9_]*\})(?=/|$))"
    r"(?:[^{}$:,\x00-\x1f\x7f]|\{home\}|\{user\}|\$[A-Za-z_][A-Za-z0-9_]*|\$\{[A-Za-z_][A-Za-z0-9_]*\})*"
)
"""A folder of whoever runs an image, whom a site's configuration does not know yet (launch/space/templates.py)."""


@dataclass(frozen=True)
class SpaceConfig:
    """Where people's own copies of repositories lie (docs/space.md)."""

    folder: str = _setting(
        Spec(
            "path",
            "Folder of a person's copies, seen by all nodes: `{home}`, `{user}`, `$NAME` and a leading `~` stand for "
            "those of whoever runs the image, when it is run.",
            matching(_PERSONAL, "an absolute path, with {home}, {user} or $NAME in it"),
        ),
        # Not `hpcbinder`: in a home with such a folder, that is what `import hpcbinder` may find.
        "{home}/binder",
    )
    caches: str | None = _setting(
        Spec(
            "path",
            "Folder for caches, runtime files and Jupyter's settings, made as `folder` is; without it the node's own "
            "($TMPDIR, else /tmp).",
            matching(_PERSONAL, "an absolute path, with {home}, {user} or $NAME in it"),
            optional=True,
        )
    )
    purged_after: str | None = _setting(
        Spec(
            "days",
            "Age of unused files at which the site removes them from `folder`, as in 30d: what is missing is then "
            "restored from the image.",
            matching(r"[1-9][0-9]{0,3}d", "a number of days such as 30d"),
            optional=True,
        )
    )


@dataclass(frozen=True)
class Config:
    """The whole configuration; `Config()` is the built-in defaults alone.

    Attributes:
        origins: `section.key` -> "default", "FILE:LINE", "environment NAME" or "flag".
    """

    store: StoreConfig = field(default_factory=StoreConfig)
    build: BuildConfig = field(default_factory=BuildConfig)
    bases: BasesConfig = field(default_factory=BasesConfig)
    site: SiteConfig = field(default_factory=SiteConfig)
    conda: CondaConfig = field(default_factory=CondaConfig)
    source: SourceConfig = field(default_factory=SourceConfig)
    registry: RegistryConfig = field(default_factory=RegistryConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    mpi: MpiConfig = field(default_factory=MpiConfig)
    buildpacks: BuildpacksConfig = field(default_factory=BuildpacksConfig)
    kernels: KernelsConfig = field(default_factory=KernelsConfig)
    shifter: ShifterConfig = field(default_factory=ShifterConfig)
    slurm: SlurmConfig = field(default_factory=SlurmConfig)
    space: SpaceConfig = field(default_factory=SpaceConfig)
    jupyterhub: JupyterhubConfig = field(default_factory=JupyterhubConfig)
    modules: ModulesConfig = field(default_factory=ModulesConfig)
    origins: Mapping[str, str] = field(default_factory=dict)


SECTIONS: dict[str, type[Any]] = {
    "store": StoreConfig,
    "build": BuildConfig,
    "bases": BasesConfig,
    "site": SiteConfig,
    "conda": CondaConfig,
    "source": SourceConfig,
    "registry": RegistryConfig,
    "runtime": RuntimeConfig,
    "mpi": MpiConfig,
    "buildpacks": BuildpacksConfig,
    "kernels": KernelsConfig,
    "shifter": ShifterConfig,
    "slurm": SlurmConfig,
    "space": SpaceConfig,
    "jupyterhub": JupyterhubConfig,
    "modules": ModulesConfig,
}


@cache
def specs() -> dict[str, Spec]:
    return {f"{name}.{f.name}": f.metadata["spec"] for name, cls in SECTIONS.items() for f in fields(cls)}
