"""The values that pass from room to room: plain frozen data that can be printed as JSON."""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


def to_json(value: Any) -> Any:
    """Turn a value of this module into what `json.dumps` takes (dataclasses become objects, paths strings)."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(k): to_json(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(v) for v in value]
    if isinstance(value, (set, frozenset)):
        return sorted(to_json(v) for v in value)
    if isinstance(value, Path):
        return str(value)
    return value


def fingerprint(value: Any) -> str:
    """SHA-256 (hex) of a value's canonical JSON: equal data, equal fingerprint."""
    text = json.dumps(to_json(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Change:
    """When those files of a source were changed last that say what runs: notebooks, code and configuration.

    Attributes:
        time: Unix time (s); 0 if nothing says it.
        what: What the time is of, for a person: `fit.ipynb in 0123456789ab`.
        doubt: Why the change may have been earlier, "" if it was just then.
    """

    time: int
    what: str
    doubt: str = ""


@dataclass(frozen=True)
class AsOf:
    """Of which time versions are that nothing locks.

    Attributes:
        date: Latest time (RFC 3339 in UTC, `2018-03-05T23:59:59Z`) that a version may be of, "" for any.
        reason: Why, for a person.
        exact: A person named the date: to find none of that time is an error.
    """

    date: str
    reason: str
    exact: bool = False


@dataclass(frozen=True)
class Commit:
    """A commit as git has it: enough to make a repository of its files again without asking anybody.

    Attributes:
        id: Full hex.
        text: The object (gitformat-commit: headers, a blank line, the message), bytes that are not UTF-8 escaped.
        branch: Name of the branch that was asked for, or the default one; "" for a tag or an id.
        files: (mode, id, path) of all files of the repository, as `git ls-files --stage` has them.
    """

    id: str
    text: str
    branch: str
    files: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class Checkout:
    """A source's files on disk, and where they came from.

    Attributes:
        root: Folder with the wanted files (of the subdirectory, if one was asked for). Never contains `.git`'s files
            as content: a scan skips it.
        name: Short name for ids and titles, `[a-z0-9][a-z0-9-]*`, at most 40 characters.
        source: URL without credentials, or the absolute path of a local folder.
        ref: What was asked for: `HEAD`, a branch, a tag, a commit; `working tree` for a local folder, the archive's own
            name of this version for a dataset.
        commit: Full hex commit the files are of; None for a dataset, and for a folder that is in no git repository.
        uncommitted: True for a local folder: its files may differ from `commit`.
        tree: git's tree id of exactly these files (with a mark, if submodules or large files were left out), None for
            a local folder or a dataset (then contents are hashed).
        subdir: POSIX path below the repository's root, "" for the root.
        timestamp: Unix time (s) of the commit, of the newest file for a folder without one.
        notes: What was decided while fetching: files that stand for others, and whether those were fetched.
        changed: When what runs was changed last; None if nobody asked.
        history: The commit itself; None for a local folder, a dataset, and for what is too much to keep.
    """

    root: Path
    name: str
    source: str
    ref: str
    commit: str | None
    uncommitted: bool
    tree: str | None
    subdir: str
    timestamp: int
    notes: tuple[Decision, ...] = ()
    changed: Change | None = None
    history: Commit | None = None


class Stage(str, enum.Enum):
    """Where a step stands: shared and rarely changing first, so that a change rebuilds as little as possible."""

    SERVER = "server"
    SYSTEM = "system"
    INTERPRETER = "interpreter"
    DEPENDENCIES = "dependencies"
    PROJECT = "project"
    PREPARE = "prepare"
    """A postBuild that declares what it reads, and so need not wait for the content."""
    CONTENT = "content"
    FINISH = "finish"


@dataclass(frozen=True)
class Cache:
    """A folder that outlives a build (a download cache), never part of an image.

    Attributes:
        name: `[a-z0-9-]+`; the same name is the same folder in every build.
        target: Folder below `/run/hpcbinder/cache/` it is mounted at, e.g. `uv`.
    """

    name: str
    target: str


@dataclass(frozen=True)
class Wanted:
    """Packages that a step is to install, as the repository asks for them: what is resolved before anything is built.

    Attributes:
        ecosystem: `pypi`.
        requirements: PEP 508 lines (names for the index, https URLs of wheels), some with `--hash=…` behind them.
        constraints: Lines of the same kind that only limit versions.
        elsewhere: Normalised names that come from elsewhere than the index (a git requirement, the repository's own
            project): never taken from the index, even if something depends on them.
        prereleases: Pre-releases are wanted too.
        python: Full version of the image's interpreter, `X.Y.Z`.
        architecture: OCI name (`amd64`).
        suite: Debian suite of the base, whose C library the wheels must run with.
        source: The repository (URL or folder, and subdirectory): what was resolved for it before is kept where it can
            be. No part of what identifies a resolution.
        as_of: Time (RFC 3339 in UTC) before which a file of the index must have been uploaded, "" for any.
        as_of_exact: It is an error if the index cannot be asked as of that time. No part of what identifies a
            resolution.
    """

    ecosystem: str
    requirements: tuple[str, ...]
    constraints: tuple[str, ...]
    elsewhere: tuple[str, ...]
    prereleases: bool
    python: str
    architecture: str
    suite: str
    source: str
    as_of: str = ""
    as_of_exact: bool = False


@dataclass(frozen=True)
class WantedConda:
    """An environment of conda packages that a step is to make, as the repository asks for it.

    Attributes:
        specs: Match specs (`numpy >=1.26`), without channels; in `exact` mode nothing.
        channels: Names and URLs of channels, the most important first; none for the site's.
        exact: URLs of packages with `#HASH` behind them, all there are to be, from an explicit list.
        extras: Names that are installed too where the channels have them.
        python: `X.Y` that is taken where the specs do not say which, if it can be.
        architecture: OCI name (`amd64`).
        suite: Debian suite of the base, whose C library the packages must run with.
        export: The specs are all that an environment held somewhere: where they cannot be had any more, builds and
            versions give way.
        not_after: Unix time (s): packages that were made later are left aside; None for no such limit.
        not_after_exact: It is an error if none of that time fit together.
    """

    specs: tuple[str, ...]
    channels: tuple[str, ...]
    exact: tuple[str, ...]
    extras: tuple[str, ...]
    python: str
    architecture: str
    suite: str
    export: bool = False
    not_after: int | None = None
    not_after_exact: bool = False


@dataclass(frozen=True)
class LockedPackage:
    """One package of a lock.

    Attributes:
        name: Normalised (PEP 503).
        version: As the index has it.
        hashes: `sha256:…` of the files that may be taken for it, sorted; at least one.
        url: https URL of the wheel if it does not come from the index, else "". Of a conda package where it is.
        build: Of a conda package its build string (`py312h6a678d5_0`), else "".
        size: Of a conda package how many bytes it has, if that is known, else 0.
    """

    name: str
    version: str
    hashes: tuple[str, ...]
    url: str = ""
    build: str = ""
    size: int = 0


@dataclass(frozen=True)
class Lock:
    """What an install step installs, exactly, for one interpreter and platform: wheels or conda packages, each with its
    hashes.

    Attributes:
        ecosystem: `pypi` or `conda`.
        origin: `resolved`, or the repository's lock file it was read from.
        python: `X.Y` it holds for.
        platform: What it holds for, as uv names it (`x86_64-manylinux_2_36`).
        packages: Sorted by name.
        layers: Names of the packages in the order of the layers they are unpacked in: first those an environment made
            before has already, then what this one adds. Together they are all of `packages`. Conda packages are one
            layer, in the order they are linked in: what others depend on comes first.
        unresolved: Normalised names of packages that cannot be had as wheels: they are built in the image's own build,
            with what is locked as constraints.
        inputs: Fingerprint of what was asked for; "" for one that was read from a file of the repository.
        as_of: Time (RFC 3339 in UTC) before which all of it was uploaded, "" if that did not count.
        note: What a person should know of that time.
    """

    ecosystem: str
    origin: str
    python: str
    platform: str
    packages: tuple[LockedPackage, ...]
    layers: tuple[tuple[str, ...], ...]
    unresolved: tuple[str, ...] = ()
    inputs: str = ""
    as_of: str = ""
    note: str = ""


@dataclass(frozen=True)
class Python:
    """An interpreter that an image's environment can have.

    Attributes:
        version: `X.Y`.
        full: `X.Y.Z`.
        suite: Debian suite of the base it is in.
        origin: `debian` (the base's own), `folder` (of interpreters, from the configuration), `image` (of a registry),
            `packages` (of an older Debian release, in a folder of their own), `conda` (the environment's own).
        executable: Its path in the image.
        source: Folder on this machine, image reference or release it comes from; "" for Debian's own.
        digest: Identity of its files (`sha256:…`); "" for Debian's own.
    """

    version: str
    full: str
    suite: str
    origin: str
    executable: str = "/usr/bin/python3"
    source: str = ""
    digest: str = ""


@dataclass(frozen=True)
class TextFile:
    """A file of the image whose whole text is known.

    Attributes:
        text: Its text.
        mode: Its permissions.
    """

    text: str
    mode: int = 0o644


@dataclass(frozen=True)
class Edit:
    """A change of a text file that came with a package, made where the file is there.

    Attributes:
        path: The file.
        pattern: Regular expression (`re`, with `^` and `$` at lines' ends) of what is replaced.
        by: What stands there then, with `\\1` for a group.
    """

    path: str
    pattern: str
    by: str


@dataclass(frozen=True)
class Sources:
    """Packages that a step builds and installs, as far as they are known before. All are names of the step's `data`.

    Attributes:
        alone: Requirement lines, each installed for itself: what they depend on is installed otherwise; "" for none.
        together: Requirement lines that are installed with all they depend on.
        limits: Constraints; the versions that are there already are among them (`name==version`).
        targets: Projects among the files the step reads, one a line: `plain`, folder, extras, by tabs; "" for none.
    """

    alone: str = ""
    together: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()
    targets: str = ""


@dataclass(frozen=True)
class Assembly:
    """What a step leaves in the image, as data: for a builder that runs nothing. The step's script does the same.

    Paths are absolute, in the image.

    Attributes:
        prefix: The Python environment that it makes or fills (`/opt/env`); "" for none.
        interpreter: What a new environment stands on (`/usr/bin/python3`); "" where it is there already.
        python: `X.Y.Z` of that environment's interpreter.
        wheels: Name in the step's `data` of a requirements file with hashes: wheels to unpack into the environment; ""
            for none.
        conda: Name in the step's `data` of a list of conda packages (`plan.conda_list`) that are the environment; ""
            for none. No engine makes such a step: there the script only says so.
        system: Name in the step's `data` of a list of Debian packages: the script is run where they were not installed
            on the same base before, and it runs nothing of the repository; "" for none.
        sources: What it builds: that is run apart, without a network, and its wheels are unpacked; None for nothing.
        without: Globs of what the image does not get of them (`fnmatch`: `*` also matches `/`).
        but: Globs of what it gets of that all the same.
        edits: Changes of what they brought.
        files: Path -> a file that is put there.
    """

    prefix: str = ""
    interpreter: str = ""
    python: str = ""
    wheels: str = ""
    conda: str = ""
    system: str = ""
    sources: Sources | None = None
    without: tuple[str, ...] = ()
    but: tuple[str, ...] = ()
    edits: tuple[Edit, ...] = ()
    files: Mapping[str, TextFile] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """One layer of the image: a script and what it reads. Nothing of it is ever interpolated into a Dockerfile.

    The script runs as root under `/bin/sh -eu` in an empty working directory `/run/hpcbinder/work`, with its data under
    `/run/hpcbinder/step`: `files/` holds `data`, `repo/` the repository's files named in `reads`, at their own paths.

    Attributes:
        stage: Where it stands.
        name: `pack/what`, `[a-z0-9-]+/[a-z0-9-]+`, unique in a plan.
        reason: Why the step is there, for a person.
        script: Shell text, constant for a pack's version: what varies goes into `data`.
        reads: Repository files (POSIX paths below the checkout's root) the step gets, and all it gets.
        data: File name -> text the plan computed (a cleaned list of packages, say).
        env: Extra variables of the step.
        caches: Folders mounted below /run/hpcbinder/cache.
        runs_repository_code: True if code of the repository runs in it: it then sees no credentials of mirrors and no
            cache that others share.
        into_repo: True if `reads` are also left in the image at /srv/repo before the script runs there (as its
            working directory).
        image: Reference of an image that the engine holds, whose files the step finds, read-only, below
            `/run/hpcbinder/image`; "" for none.
        apart: Folders of the image (`/opt/env`) that the step fills apart from the others: it runs on the image as it
            is before the first step of its stage, and then what it made there is copied in. So nothing that other
            steps of the stage installed runs with its credentials, and its layer holds only what it adds.
        assembly: What the script leaves, as data; None if only running it tells.
    """

    stage: Stage
    name: str
    reason: str
    script: str
    reads: tuple[str, ...] = ()
    data: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    caches: tuple[Cache, ...] = ()
    runs_repository_code: bool = False
    into_repo: bool = False
    image: str = ""
    apart: tuple[str, ...] = ()
    assembly: Assembly | None = None


@dataclass(frozen=True)
class Decision:
    """One file of the repository and what was made of it."""

    file: str
    used: bool
    pack: str
    reason: str


@dataclass(frozen=True)
class PackRef:
    """A buildpack that took part. `origin` is "built-in" or the folder it came from."""

    name: str
    version: str
    origin: str


@dataclass(frozen=True)
class BaseRef:
    """The image everything stands on.

    Attributes:
        name: `debian:bookworm`.
        suite: Debian suite.
        python: `3.11`, Debian's own interpreter in it.
        architecture: OCI name: amd64, arm64.
        variant: Version of our own recipe for it; part of every fingerprint.
        image: `registry/name@sha256:…` of the image it is made of, "" for one bootstrapped from Debian's packages.
    """

    name: str
    suite: str
    python: str
    architecture: str
    variant: str
    image: str = ""


@dataclass(frozen=True)
class Content:
    """The repository's own files in the image.

    Attributes:
        digest: Identity of the files that enter (git tree or SHA-256 of contents, plus the ignore rules).
        files: How many.
        size: Their bytes.
        ignore_file: `.dockerignore` that was honoured, if any.
    """

    digest: str
    files: int
    size: int
    ignore_file: str | None


@dataclass(frozen=True)
class OutsideImage:
    """An image that a repository's own Dockerfile takes from elsewhere.

    Attributes:
        name: As the Dockerfile has it.
        image: What it means here, pinned: `docker.io/library/python:3.12-slim@sha256:…`.
        tag: Name it gets in an engine, told by `image`.
    """

    name: str
    image: str
    tag: str


@dataclass(frozen=True)
class OwnDockerfile:
    """A repository's own Dockerfile, which says all that is built.

    Attributes:
        path: Where it lies in the repository.
        text: What is built: the file with `OutsideImage.tag` in place of the images' names.
        base: Name of the image that its last stage stands on, `scratch` for nothing.
        images: The images it takes from elsewhere.
        arguments: Build arguments it gets.
    """

    path: str
    text: str
    base: str
    images: tuple[OutsideImage, ...]
    arguments: Mapping[str, str]


@dataclass(frozen=True)
class Inferred:
    """A Python package that the repository's code is taken to want, as no file names any.

    Attributes:
        requirement: PEP 508, without URLs.
        because: What in the code says so (`import yaml`).
        file: The first file with it, below the repository's root.
        cell: Number of its code cell, 0 in a script.
        certain: The package is known to be what brings the module; else only its name is the same.
    """

    requirement: str
    because: str
    file: str
    cell: int
    certain: bool = True


@dataclass(frozen=True)
class Plan:
    """Everything that would be done, and why. Made without running any code of the repository."""

    name: str
    source: str
    ref: str
    commit: str | None
    uncommitted: bool
    subdir: str
    timestamp: int
    base: BaseRef
    steps: tuple[Step, ...]
    content: Content
    env: Mapping[str, str]
    path: tuple[str, ...]
    start: str | None
    """Path below the repository's root of its `start` script."""
    labels: Mapping[str, str]
    packs: tuple[PackRef, ...]
    decisions: tuple[Decision, ...]
    python: Python
    """The environment's interpreter."""
    locks: tuple[Lock, ...] = ()
    """What was resolved before the build; the steps that install it hold it as data."""
    mpi: str | None = None
    """ABI of the MPI in it, `openmpi` or `mpich`."""
    gpu: str | None = None
    """GPU that its packages are for, `nvidia` or `rocm`."""
    own: OwnDockerfile | None = None
    """The repository's own Dockerfile. With it there are no steps, and `base` and `python` say only what is known."""
    asked: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Ecosystem -> names of the packages that the repository itself asks for, sorted; the others came with them."""
    inferred: tuple[Inferred, ...] = ()
    """Python packages of which only the repository's code tells."""
    chosen: tuple[str, ...] = ()
    """Buildpacks whose files alone count, none for all; sorted."""
    without: tuple[str, ...] = ()
    """Buildpacks that were left out, sorted."""
    as_of: AsOf | None = None
    """Of which time versions are that nothing locks; its date is the one that counted, "" if there was nothing to find
    versions of. None if nobody decided."""

    @property
    def id(self) -> str:
        """`name-0123456789ab`: names the image this plan leads to, known before anything is built.

        Only what the image's bytes or its provenance depend on counts: not the words of a reason or a decision.
        """
        identity = {
            "source": self.source,
            "commit": self.commit,
            "subdir": self.subdir,
            "base": self.base,
            # Where it came from is not what it is: its digest says that.
            "python": dataclasses.replace(self.python, source=""),
            "steps": [_identity(step) for step in self.steps],
            "content": self.content.digest,
            "env": self.env,
            "path": self.path,
            "start": self.start,
            "labels": self.labels,
            **({"own": self.own} if self.own else {}),
            # The manifest in the image says how to make it again.
            **({"chosen": self.chosen} if self.chosen else {}),
            **({"without": self.without} if self.without else {}),
        }
        return f"{self.name}-{fingerprint(identity)[:12]}"


def _identity(step: Step) -> dict[str, Any]:
    """What a step is, without its reason, and without the other way to say what its script does."""
    whole = {field.name: getattr(step, field.name) for field in dataclasses.fields(step)}
    return {**{name: value for name, value in whole.items() if name != "assembly"}, "reason": ""}


@dataclass(frozen=True)
class ImageConfig:
    """What an image is, in the OCI image spec's terms (config.md).

    Attributes:
        digest: `sha256:…` of the config, which engines call the image id.
        diff_ids: Of the layers, the lowest first. Of an image that was assembled only the base's are those of a tar;
            the others name what a squashed layer was made of.
        created: RFC 3339 time or "".
        user: Who its process runs as where an engine starts it, "" for root.
        ports: `8888/tcp`, that it says it listens on.
        stop_signal: What ends it, "" for SIGTERM.
    """

    digest: str
    architecture: str
    created: str
    env: Mapping[str, str]
    entrypoint: tuple[str, ...]
    cmd: tuple[str, ...]
    workdir: str
    labels: Mapping[str, str]
    volumes: tuple[str, ...]
    diff_ids: tuple[str, ...]
    user: str = ""
    ports: tuple[str, ...] = ()
    stop_signal: str = ""


@dataclass(frozen=True)
class Kernel:
    """A kernelspec the image holds: `name` and its `kernel.json` (`argv`, `display_name`, `language`, …)."""

    name: str
    display_name: str
    language: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    interrupt_mode: str = "signal"
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RegisteredKernel:
    """A kernel registered for a person: its kernelspec folder is `path`."""

    name: str
    path: str
    language: str
    display_name: str


@dataclass(frozen=True)
class Entry:
    """The catalog's record of one image; `record.json` in its folder is exactly this.

    Attributes:
        image: `{"name": tag in the engine, "digest": "sha256:…", "engine": its name}`; of one that was assembled, but
            for some steps, also `ran`, their names, and `ran_by`, who ran them (none if all were run before).
        formats: Format (`sif`, `squashfs`, `shifter` …) -> path, relative to the entry's folder in the record, absolute
            once loaded.
        size: Bytes of the squashfs.
        timings: Phase -> seconds.
        packages: Ecosystem -> [{"name":…, "version":…}].
        created: Unix time (s).
        timestamp: Unix time (s) of the commit, which its files have at the latest; 0 where it was not recorded.
        pushed: Reference in a registry -> digest it was given there.
        python: The environment's interpreter, None where it was not recorded.
        compression: `{"name": compressor and level ("gzip:6"), "why": sentence}`; {} where it was not recorded.
        parent: Id of the image that this one is with packages added; "" for one that was built.
        added: What was added to it or changed there: `numpy 2.2.6`.
        as_of: Time (RFC 3339 in UTC) of which versions are that nothing locked, None if they were the newest or it was
            not recorded.
    """

    id: str
    source: str
    ref: str
    commit: str | None
    uncommitted: bool
    subdir: str
    buildpacks: tuple[PackRef, ...]
    base: BaseRef
    image: Mapping[str, str]
    config: ImageConfig
    formats: Mapping[str, str]
    kernels: tuple[Kernel, ...]
    packages: Mapping[str, tuple[Mapping[str, str], ...]]
    decisions: tuple[Decision, ...]
    timings: Mapping[str, float]
    size: int
    created: int
    locks: tuple[Lock, ...] = ()
    registered: tuple[RegisteredKernel, ...] = ()
    timestamp: int = 0
    pushed: Mapping[str, str] = field(default_factory=dict)
    asked: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    python: Python | None = None
    compression: Mapping[str, str] = field(default_factory=dict)
    parent: str = ""
    added: tuple[str, ...] = ()
    as_of: str | None = None
