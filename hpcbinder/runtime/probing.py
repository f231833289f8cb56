"""Whether Apptainer runs build steps here: asked by running one."""

from __future__ import annotations

import io
import re
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hpcbinder.errors import RunError
from hpcbinder.squashfs import Options, merge, write_layer
from hpcbinder.text import one_line

IDS = 65536
"""How many ids a namespace has that is more than a person's own."""

_PATIENCE = 60.0
_OLDEST = (1, 1)
_FOLDERS = ("bin", "lib", "lib32", "lib64", "usr")
"""What this machine's own shell needs, which runs in the probe: an empty image has none."""


@dataclass(frozen=True)
class Found:
    """Apptainer as it is here.

    Attributes:
        version: `1.4.5`.
        ids: How many ids its namespaces have.
    """

    version: str
    ids: int


def probe(program: str, environ: Mapping[str, str]) -> Found:
    """Run a shell in an image with nothing in it, with an overlay, as steps are run.

    Args:
        program: Where Apptainer is.
        environ: The environment it gets.

    Raises:
        RunError: It cannot, with what it says.
    """
    with tempfile.TemporaryDirectory(prefix="hpcbinder-") as name:
        folder = Path(name)
        env = {**environ, "APPTAINER_CONFIGDIR": str(folder / "config"), "APPTAINER_CACHEDIR": str(folder / "cache")}
        said = _run([program, "--version"], env).stdout
        match = re.search(r"apptainer version (\d+)\.(\d+)(\.\d+)?", said)
        if match is None or (int(match[1]), int(match[2])) < _OLDEST:
            raise RunError(f"{one_line(said, 80) or program} is too old to run build steps", hint="1.1 or newer")
        binds = _empty_image(folder / "image.squashfs")
        (folder / "overlay").mkdir()
        argv = [program, "-s", "exec", "--userns", "--fakeroot", "--ignore-fakeroot-command", "--containall"]
        argv += ["--drop-caps", "CAP_SYS_ADMIN"]
        argv += ["--no-home", "--no-init", "--cleanenv", "--no-mount", "hostfs,bind-paths,tmp"]
        argv += ["--net", "--network", "none", "--overlay", str(folder / "overlay")]
        argv += [word for path in binds for word in ("--bind", f"{path}:{path}:ro")]
        script = 'echo made >/made && while read -r _ _ count; do echo "ids $count"; done </proc/self/uid_map'
        done = _run([*argv, "--pwd", "/", str(folder / "image.squashfs"), "/bin/sh", "-c", script], env)
        counts = [int(count) for count in re.findall(r"^ids (\d+)$", done.stdout, re.MULTILINE)]
        if done.returncode != 0 or not counts:
            lines = [line for line in done.stderr.splitlines() if line.strip()] or ["it said nothing"]
            reason = next((line for line in reversed(lines) if "FATAL" in line), lines[-1])
            reason = reason.partition("FATAL:")[2].strip() or reason
            hint = "docs/engines.md: what a machine must allow"
            if "/etc/subuid for root" in reason:
                # Others get a namespace with their own id alone; root gets none.
                hint = "as an ordinary user, or: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 root"
            raise RunError(f"Apptainer cannot run build steps here: {one_line(reason, 300)}", hint=hint)
        return Found(f"{match[1]}.{match[2]}{match[3] or ''}", sum(counts))


def _empty_image(path: Path) -> list[str]:
    """Write an image of empty folders; returns those of this machine that belong there."""
    binds = []
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in (*_FOLDERS, "dev", "etc", "proc", "run", "sys", "tmp", "root", "var"):
            member = tarfile.TarInfo(name)
            member.type, member.mode = tarfile.DIRTYPE, 0o755
            here = Path("/") / name
            if here.is_symlink():
                member.type, member.linkname = tarfile.SYMTYPE, str(here.readlink())
            elif name in _FOLDERS and here.exists():
                binds.append(str(here))
            tar.addfile(member)
    stream.seek(0)
    layer = path.with_suffix(".layer")
    write_layer(stream, layer, Options())
    with path.open("w+b") as file:
        merge([layer], file)
    return binds


def _run(argv: list[str], env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            argv,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PATIENCE,
            start_new_session=True,
            check=False,
        )
    except OSError as error:
        raise RunError(f"{argv[0]} cannot be started: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise RunError(f"{argv[0]} does not come to an end") from error
