"""A verification as JUnit XML, which CI systems show.

Format: what Jenkins and GitLab read (https://github.com/testmoapp/junitxml): a case for each notebook and import that
fails, a failure with a type and a text.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree

from hpcbinder.verify.verdict import WORDS, Missing, Status, Verdict, Verification

_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 has no form for."""


def junit_xml(found: Verification) -> bytes:
    """The file's content."""
    imports = [missing for missing in found.missing if missing.cell or not found.notebooks]
    tried = [verdict for verdict in found.notebooks if verdict.status is not Status.UNTRIED]
    skipped = [verdict for verdict in found.notebooks if verdict.status is Status.UNTRIED]
    failed = [verdict for verdict in tried if verdict.status is not Status.RUNS]
    # Where notebooks were run, what is missing shows there, or does not matter.
    broken = imports if not (found.ran and found.notebooks) else []
    suite = ElementTree.Element(
        "testsuite",
        {
            "name": found.id,
            "tests": str(len(found.notebooks) + len(broken)),
            "failures": str(len(failed) + len(broken)),
            "errors": "0",
            "skipped": str(len(skipped)),
            "time": f"{sum(verdict.seconds for verdict in found.notebooks):.1f}",
        },
    )
    for verdict in found.notebooks:
        _notebook(suite, found.id, verdict)
    for missing in broken:
        _import(suite, found.id, missing)
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    text: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def _notebook(suite: ElementTree.Element, id_: str, verdict: Verdict) -> None:
    about = {"classname": id_, "name": _text(verdict.notebook), "time": f"{verdict.seconds:.1f}"}
    case = ElementTree.SubElement(suite, "testcase", about)
    if verdict.status is Status.UNTRIED:
        ElementTree.SubElement(case, "skipped", {"message": _text(verdict.line)})
    elif verdict.status is not Status.RUNS:
        about = {"type": WORDS[verdict.status], "message": _text(verdict.line)}
        failure = ElementTree.SubElement(case, "failure", about)
        where = [verdict.failure.frame, verdict.failure.line] if verdict.failure else []
        failure.text = _text("\n".join(filter(None, [verdict.line, *where, verdict.cause, *verdict.notes])))
    elif verdict.notes:
        ElementTree.SubElement(case, "system-out").text = _text("\n".join(verdict.notes))


def _import(suite: ElementTree.Element, id_: str, missing: Missing) -> None:
    case = ElementTree.SubElement(suite, "testcase", {"classname": id_, "name": _text(f"import {missing.what}")})
    message = f"{missing.error}: {missing.message}"
    failure = ElementTree.SubElement(case, "failure", {"type": _text(missing.error), "message": _text(message)})
    failure.text = _text("\n".join(filter(None, [missing.place, missing.cause])))


def _text(text: str) -> str:
    return _NO_XML.sub("�", text)
