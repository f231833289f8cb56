"""Which buildpacks take part in a plan."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from hpcbinder.errors import DetectError, UsageError
from hpcbinder.model import Decision
from hpcbinder.plan.packs import Pack, PackFile
from hpcbinder.plan.repo import Repo
from hpcbinder.text import printable


class Choice:
    """What a person chose among the packs.

    Args:
        packs: All there are, in the order they plan.
        chosen: Names of those that are to take part; none for all. Beside them, packs with a file that counts in any
            case do (apt.txt, postBuild), but of their other files nothing does.
        without: Names of those that must not.

    Attributes:
        chosen, without: The same, sorted.

    Raises:
        UsageError: There is no such pack, or one is both.
    """

    def __init__(self, packs: Sequence[Pack], chosen: Collection[str], without: Collection[str]) -> None:
        names = {pack.name for pack in packs}
        for asked, what in ((without, "to leave out"), (chosen, "to build with")):
            if nowhere := sorted(set(asked) - names):
                known = ", ".join(sorted(names))
                raise UsageError(f"no buildpack '{printable(nowhere[0])}' {what}", hint=f"there are {known}")
        if both := sorted(set(chosen) & set(without)):
            raise UsageError(f"buildpack {both[0]} is both chosen and left out", hint="drop one of the two")
        self._packs = packs
        self.chosen = tuple(sorted(set(chosen)))
        self.without = tuple(sorted(set(without)))

    def taking_part(self) -> list[Pack]:
        """The packs that plan."""
        return [pack for pack in self._packs if pack.name not in self.without and self._joins(pack)]

    def hidden(self) -> frozenset[str]:
        """Names of files that do not count, since only packs that were not chosen read them."""
        if not self.chosen:
            return frozenset()
        counting = {
            file.name
            for pack in self._packs
            for file in _read_by(pack)
            if pack.name in self.chosen or (file.always and pack.name not in self.without)
        }
        return frozenset({file.name for pack in self._packs for file in _read_by(pack)} - counting)

    def check(self, decisions: Sequence[Decision], steps: Sequence[str]) -> None:
        """Refuse a choice that comes to nothing.

        Args:
            decisions: What the packs decided.
            steps: Names of the steps.

        Raises:
            DetectError: A pack that was chosen found nothing to do.
        """
        busy = {name.partition("/")[0] for name in steps} | {d.pack for d in decisions if d.used}
        for pack in self._packs:
            if pack.name in self.chosen and pack.name not in busy:
                files = ", ".join(dict.fromkeys(file.name for file in pack.files))
                reads = f"it reads {files}" if files else "there is nothing of its kind"
                raise DetectError(f"buildpack {pack.name} was chosen and finds nothing to do here", hint=reads)

    def decisions(self, repo: Repo, said: Collection[str]) -> list[Decision]:
        """The files that do not count because of the choice.

        Args:
            said: Files of which something was decided.
        """
        found: dict[str, Decision] = {}
        hidden, repo.hidden = repo.hidden, frozenset()
        try:
            for pack in self._packs:
                for file in _read_by(pack):
                    path = pack.find(repo, file)
                    if path is None or path in found or path in said:
                        continue
                    if pack.name in self.without:
                        found[path] = Decision(path, False, pack.name, f"left out by --without {pack.name}")
                    elif file.name in hidden:
                        chosen = " ".join(f"--buildpack {name}" for name in self.chosen)
                        found[path] = Decision(path, False, pack.name, f"not chosen: {chosen}")
        finally:
            repo.hidden = hidden
        return list(found.values())

    def _joins(self, pack: Pack) -> bool:
        return not self.chosen or pack.name in self.chosen or any(file.always for file in pack.files)


def _read_by(pack: Pack) -> tuple[PackFile, ...]:
    return (*pack.files, *(refusal.file for refusal in pack.refusals))
