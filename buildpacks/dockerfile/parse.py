"""A Dockerfile, read as far as needed to find the images it takes from elsewhere, and to put others in their place.

The format is BuildKit's (`frontend/dockerfile/parser/parser.go`, `instructions/`; docs.docker.com, "Dockerfile
reference"). Every character but those of the images' names stays as it is. What could name an image in a way that is
not understood here is refused: an engine must never look for one itself, neither in a registry nor among its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from hpcbinder.plan import DetectError, show

KNOWN = frozenset(
    (
        *("ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL", "MAINTAINER"),
        *("ONBUILD", "RUN", "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"),
    )
)
"""The instructions there are."""

LONGEST_NAME = 1000
"""Characters of an image's name, and of what a variable in it stands for."""

MOST_IMAGES = 50
"""From elsewhere. Each is looked up in a registry."""

OURS = "hpcbinder"
"""How the names of our own caches begin, which no Dockerfile may mount."""

_DIRECTIVE = re.compile(r"[ \t]*#[ \t]*(?P<key>[A-Za-z][A-Za-z0-9]*)[ \t]*=[ \t]*(?P<value>\S*)[ \t]*\Z")
_HEREDOC = re.compile(r"<<(?P<chomp>-?)[\"']?(?P<name>[A-Za-z_][A-Za-z0-9_.-]*)[\"']?")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_STAGE = re.compile(r"[a-z][a-z0-9._-]*\Z")
_VARIABLE = re.compile(
    r"\$(?:(?P<plain>[A-Za-z_][A-Za-z0-9_]*)"
    r"|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?:(?P<how>:?[-+])(?P<word>[^${}\\\"']*))?\})"
)


@dataclass(frozen=True)
class Word:
    """A word of an instruction, where it stands.

    Attributes:
        text: The word.
        start: Offset in the file.
        line: Number of its line, from 1.
    """

    text: str
    start: int
    line: int

    @property
    def end(self) -> int:
        """Offset behind it."""
        return self.start + len(self.text)


@dataclass
class Dockerfile:
    """What was found in a Dockerfile.

    Attributes:
        text: It, with other names for the images from elsewhere, and without a `# syntax=` line.
        outside: The images, as they are meant, in their order.
        last: The one that the last stage stands on in the end, "scratch" for nothing.
        notes: What was changed besides, for a person.
    """

    text: str
    outside: list[str] = field(default_factory=list)
    last: str = "scratch"
    notes: list[str] = field(default_factory=list)


def rewrite(
    text: str, where: str, rename: Callable[[str, str], str], *, arguments: Mapping[str, str], architecture: str
) -> Dockerfile:
    """Give the images that a Dockerfile takes from elsewhere other names.

    Args:
        text: Its text.
        where: Its name, for messages.
        rename: (name of an image, `file:line`) -> the name to write.
        arguments: Build arguments that it will get.
        architecture: OCI name of what it is built for.

    Raises:
        DetectError: Something in it that is not understood or not allowed, with its line.
    """
    return _Rewriting(text, where, rename, arguments, architecture).run()


class _Rewriting:
    def __init__(
        self,
        text: str,
        where: str,
        rename: Callable[[str, str], str],
        arguments: Mapping[str, str],
        architecture: str,
    ) -> None:
        self.where = where
        self.rename = rename
        self.arguments = arguments
        self.platforms = {f"linux/{architecture}", "$BUILDPLATFORM", "$TARGETPLATFORM"}
        self.platforms |= {"${BUILDPLATFORM}", "${TARGETPLATFORM}"}
        self.variables = {
            "TARGETARCH": architecture,
            "BUILDARCH": architecture,
            "TARGETOS": "linux",
            "BUILDOS": "linux",
        }
        self.found = Dockerfile(text)
        self.bases: list[str] = []
        self.names: dict[str, int] = {}
        self.changes: list[tuple[int, int, str, int]] = []

    def run(self) -> Dockerfile:
        self._directives()
        for words in self._instructions():
            self._instruction(words)
        if not self.bases:
            raise self._bad("has no FROM", 1)
        self.found.last = self.bases[-1]
        # At last: nobody is asked about the images of a file that is refused.
        pieces, done = [], 0
        for start, end, name, line in sorted(self.changes):
            pieces += [self.found.text[done:start], self.rename(name, f"{self.where}:{line}") if name else ""]
            done = end
        self.found.text = "".join((*pieces, self.found.text[done:]))
        return self.found

    # Lines and words

    def _directives(self) -> None:
        """Parser directives. A `# syntax=` line would have the engine fetch a program that does the building: it goes,
        wherever among the first lines some version looks for it (`parser/directives.go`, `DetectSyntax`)."""
        offset = 0
        for number, line in enumerate(self.found.text.split("\n"), start=1):
            if line.strip() and not line.strip().startswith("#"):
                break
            match = _DIRECTIVE.match(line)
            key = match["key"].lower() if match else ""
            if match and key == "syntax":
                self.changes.append((offset, min(offset + len(line) + 1, len(self.found.text)), "", number))
                self.found.notes.append(f"without its syntax line ({show(match['value'])}): the engine's own is used")
            elif match and key == "escape" and match["value"] != "\\":
                raise self._bad(f"makes {show(match['value'])} the sign for continued lines, as for Windows", number)
            offset += len(line) + 1

    def _instructions(self) -> Iterator[list[Word]]:
        """The words of each instruction: comments and continuations left out, heredocs skipped.

        Engines differ in where an instruction ends (after comments, with heredocs). So no line may look like one that
        takes an image from somewhere unless it begins an instruction here.
        """
        lines = self.found.text.split("\n")
        starts = [0]
        for line in lines:
            starts.append(starts[-1] + len(line) + 1)
        words: list[Word] = []
        number = end = 0
        while number < len(lines):
            line, start = lines[number], starts[number]
            number += 1
            if bad := _CONTROL.search(line):
                raise self._bad(f"has the control character {bad[0]!r}", number)
            if not line.strip(" \t") or line.strip(" \t").startswith("#"):
                continue
            body = line.rstrip(" \t")
            if body.endswith("\\\\"):
                raise self._bad("ends with two backslashes, which engines understand differently", number)
            more = body.endswith("\\")
            body = body[:-1] if more else body
            new = [Word(m[0], start + m.start(), number) for m in re.finditer(r"[^ \t]+", body)]
            if words:
                self._innocent(line, number)
            if words and new and new[0].start == start and words[-1].end == end:
                # No blank between the end of one line and the beginning of the next: one word in two halves.
                words[-1] = Word(words[-1].text + "\0", words[-1].start, words[-1].line)
            words += new
            end = start + len(body)
            if more:
                continue
            number = self._heredocs(words, lines, number)
            if words:
                yield words
            words = []
        if words:
            yield words

    def _heredocs(self, words: list[Word], lines: list[str], number: int) -> int:
        """Number of the line behind the heredocs that an instruction has."""
        keyword = words[0].text.upper() if words else ""
        if keyword == "ONBUILD" and len(words) > 1:
            keyword = words[1].text.upper()
        if keyword not in ("RUN", "COPY", "ADD"):
            return number
        for match in _HEREDOC.finditer(" ".join(word.text for word in words)):
            while number < len(lines):
                line = lines[number].lstrip("\t") if match["chomp"] else lines[number]
                number += 1
                if line == match["name"]:
                    break
                self._innocent(line, number)
            else:
                raise self._bad(f"has a heredoc without its end ({show(match['name'])})", words[0].line)
        return number

    def _innocent(self, line: str, number: int) -> None:
        """Make sure that a line, taken for an instruction, would name no image."""
        words = line.rstrip("\\ \t").split() or [""]
        keyword, rest = words[0].upper(), [word for word in words[1:] if not word.startswith("--")]
        flags = len(words) - 1 - len(rest)
        if keyword == "ONBUILD" or (keyword in ("COPY", "ADD", "RUN") and flags):
            suspicious = True
        else:
            suspicious = keyword == "FROM" and (len(rest) == 1 or [word.upper() for word in rest[1:2]] == ["AS"])
        if suspicious:
            hint = "put something in front of the word"
            raise self._bad(f"has a line inside of an instruction that begins with {keyword}", number, hint)

    # Instructions

    def _instruction(self, words: list[Word]) -> None:
        keyword, rest = words[0].text.upper(), words[1:]
        if keyword not in KNOWN:
            raise self._bad(f"has {show(words[0].text)}, which is no instruction of a Dockerfile", words[0].line)
        if keyword == "ONBUILD":
            # It is run by the stages that stand on this one, too.
            if rest and rest[0].text.upper() in ("ONBUILD", "FROM"):
                raise self._bad(f"has ONBUILD {rest[0].text}, which no image may have", words[0].line)
            if rest:
                self._instruction(rest)
        elif keyword == "FROM":
            self._from(rest, words[0].line)
        elif not self.bases and keyword != "ARG":
            raise self._bad(f"has {keyword} before FROM", words[0].line)
        elif keyword == "ARG" and not self.bases:
            self._arguments(rest)
        elif keyword in ("COPY", "ADD", "RUN"):
            for word in rest:
                # Other blanks than space and tab are none to us, and may be some to an engine.
                bare = word.text.strip()
                if bare and not bare.startswith("--"):
                    break
                if re.search(r"[\\\"'\s\0]", word.text):
                    raise self._bad(
                        f"has quotes or backslashes, or blanks that are no spaces, in {show(word.text)}",
                        word.line,
                    )
                self._flag(keyword, word)

    def _from(self, words: list[Word], line: int) -> None:
        while words and words[0].text.startswith("--"):
            flag, _, value = words[0].text.partition("=")
            if flag.lower() != "--platform" or value.lower() not in {p.lower() for p in self.platforms}:
                raise self._bad(f"asks for {show(words[0].text)}, which cannot be had here", line)
            words = words[1:]
        if not words or len(words) not in (1, 3) or (len(words) == 3 and words[1].text.upper() != "AS"):
            raise self._bad("has a FROM that is not understood", line, "write FROM IMAGE, or FROM IMAGE AS NAME")
        name = self._expand(words[0])
        if name.lower() in self.names:
            self.bases.append(self.bases[self.names[name.lower()]])
        elif name.lower() == "scratch":
            self.bases.append("scratch")
        else:
            self._outside(words[0].start, words[0].end, name, words[0].line)
            self.bases.append(name)
        if len(words) == 3:
            stage = words[2].text.lower()
            if not _STAGE.match(stage):
                raise self._bad(f"calls a stage {show(words[2].text)}, which is no name", line)
            self.names[stage] = len(self.bases) - 1

    def _arguments(self, words: list[Word]) -> None:
        """`ARG NAME[=VALUE]…` before the first FROM: what its image's name may use."""
        for word in words:
            name, equals, value = word.text.partition("=")
            if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
                value = value[1:-1]
            if name in self.arguments:
                self.variables[name] = self.arguments[name]
            elif equals and len(value) <= LONGEST_NAME and not re.search(r"[\\\"'\0]", value):
                known = _VARIABLE.sub(self._value, value)
                if "$" not in known and len(known) <= LONGEST_NAME:
                    self.variables[name] = known

    def _flag(self, keyword: str, word: Word) -> None:
        name, equals, value = word.text.partition("=")
        if keyword == "RUN" and name.lower() not in ("--mount", "--network"):
            raise self._bad(f"has {show(word.text)}, which asks for more than a step may have", word.line)
        if name.lower() == "--network" and value.lower() not in ("none", "default"):
            raise self._bad(
                f"has {show(word.text)}: its network is the site's choice", word.line, "write none or default"
            )
        wanted = {"RUN": "--mount", "COPY": "--from", "ADD": "--from"}[keyword]
        if not equals or name.lower() != wanted:
            return
        start = word.start + len(name) + 1
        if keyword != "RUN":
            self._taken_from(start, value, word.line)
            return
        options = {key.lower(): text for key, _, text in (part.partition("=") for part in value.split(","))}
        # Without an id its target is one.
        names = (options.get(key) for key in ("id", "target", "dst", "destination"))
        id_ = next((name for name in names if name), "")
        type_ = options.get("type", "bind").lower()
        if "$" in type_:
            raise self._bad("mounts something whose type is a variable, which is not supported", word.line)
        if type_ == "cache" and (OURS in value.lower() or "$" in id_):
            raise self._bad("mounts a cache that is not its own", word.line, "give it a plain id of its own")
        for part in value.split(","):
            key, _, text = part.partition("=")
            if key.lower() == "from":
                self._taken_from(start + len(key) + 1, text, word.line)
            start += len(part) + 1

    def _taken_from(self, start: int, name: str, line: int) -> None:
        """A stage, by its name or number, or an image from elsewhere."""
        if "$" in name:
            raise self._bad("takes files from an image whose name is a variable, which is not supported", line)
        if name.lower() in self.names or (name.isdecimal() and int(name[:9]) < len(self.bases) - 1):
            return
        if name.isdecimal() or not name:
            raise self._bad(f"takes files from stage {show(name)}, which is not there before", line)
        if name.lower() != "scratch":
            self._outside(start, start + len(name), name, line)

    def _outside(self, start: int, end: int, name: str, line: int) -> None:
        if len(name) > LONGEST_NAME:
            raise self._bad(f"names an image with more than {LONGEST_NAME} characters", line)
        self.changes.append((start, end, name, line))
        if name not in self.found.outside:
            self.found.outside.append(name)
            if len(self.found.outside) > MOST_IMAGES:
                raise self._bad(f"takes from more than {MOST_IMAGES} images", line)

    def _expand(self, word: Word) -> str:
        text = word.text
        if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
            text = text[1:-1]
        if len(text) > LONGEST_NAME:
            raise self._bad(f"names an image with more than {LONGEST_NAME} characters", word.line)
        if "\0" in text:
            raise self._bad("has the name of an image on two lines, which is not supported", word.line)
        expanded = _VARIABLE.sub(self._value, text)
        if re.search(r"[$\\\"']", expanded) or not expanded:
            hint = "give each variable in it a value with ARG before the first FROM"
            raise self._bad(f"names an image {show(word.text)}, of which it does not say what it is", word.line, hint)
        return expanded

    def _value(self, match: re.Match[str]) -> str:
        """What a variable stands for (BuildKit `shell/lex.go`); itself where nobody says."""
        name = match["plain"] or match["name"]
        value, how, word = self.variables.get(name), match["how"] or "", match["word"] or ""
        if how.endswith("-"):
            return word if value is None or (how == ":-" and not value) else value
        if how.endswith("+"):
            return "" if value is None or (how == ":+" and not value) else word
        return match[0] if value is None else value

    def _bad(self, message: str, line: int, hint: str | None = None) -> DetectError:
        return DetectError(message, where=f"{self.where}:{line}", hint=hint)
