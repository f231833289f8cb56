"""The commands of docs/sources.md name what the page says they do."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from hpcbinder.config import SourceConfig
from hpcbinder.source.location import Folder, Remote, parse_source
from hpcbinder.source.places import Dataset

PAGE = Path(__file__).parents[2] / "docs" / "sources.md"


def test_every_source_of_the_page_is_what_its_section_says() -> None:
    kinds = {"Git repositories": Remote, "Datasets": Dataset, "Folders": Folder}
    found: dict[str, int] = {}
    for section in re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)[1:]:
        title = section.partition("\n")[0]
        for line in re.findall(r"^hpcbinder plan .*", section, re.MULTILINE):
            (spec,) = shlex.split(line)[2:]
            assert type(parse_source(spec, ckan=SourceConfig().ckan)) is kinds[title], line
            found[title] = found.get(title, 0) + 1
    assert found == {"Git repositories": 8, "Datasets": 10, "Folders": 1}
