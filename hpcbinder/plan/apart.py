"""Copying in what a step made apart from the others of its stage."""

from __future__ import annotations

import re

from hpcbinder.contract import STEP_DIR
from hpcbinder.errors import DetectError
from hpcbinder.text import one_line

MADE = f"{STEP_DIR}/work/made"
"""Where the folders that the step filled are mounted, by their number; `BEFORE` holds them as they were before."""
BEFORE = f"{STEP_DIR}/work/before"

JOIN = f"""\
# Copies in what a step made apart: all that was not there before, or is another now. Nothing else is touched, so that
# the layer holds what the step added and no more. Of a file that an earlier step of the stage has too, the later wins.
here=$PWD
export LC_ALL=C

# names FOLDER: what is in it, each name ended by a zero byte, in a fixed order.
names() {{
    (cd "$1" && find . -xdev -mindepth 1 -print0) | sort -z
}}

number=0
while IFS= read -r folder; do
    made={MADE}/$number before={BEFORE}/$number
    names "$made" >made.txt
    names "$before" >before.txt
    comm -z -23 made.txt before.txt >new.txt
    comm -z -12 made.txt before.txt | xargs -0r sh -euc '
        made=$1 before=$2
        shift 2
        for name; do
            if [ -d "$made/$name" ] && [ ! -L "$made/$name" ]; then continue; fi
            if [ "$(stat -c %f "$made/$name")" = "$(stat -c %f "$before/$name")" ]; then
                if [ -L "$made/$name" ]; then
                    if [ "$(readlink "$made/$name")" = "$(readlink "$before/$name")" ]; then continue; fi
                elif cmp -s "$made/$name" "$before/$name"; then continue; fi
            fi
            printf "%s\\0" "$name"
        done
    ' sh "$made" "$before" >>new.txt
    # Folders come with what is in them; those that are empty by themselves.
    cd "$made"
    xargs -0r sh -euc '
        for name; do
            if [ -L "$name" ] || [ ! -d "$name" ] || [ -z "$(find "$name" -maxdepth 0 ! -empty)" ]; then
                printf "%s\\0" "$name"
            fi
        done
    ' sh <"$here/new.txt" >"$here/copied.txt"
    xargs -0r cp -a --remove-destination --parents --target-directory="$folder" -- <"$here/copied.txt"
    cd "$here"
    # The files are settled already; the folders they are in have another time now.
    find "$folder" -xdev -type d -newer .begin -exec touch --date="@$SOURCE_DATE_EPOCH" {{}} +
    number=$((number + 1))
done <{STEP_DIR}/step/apart
"""
"""The script; `step/apart` lists the folders, one a line."""


def check_apart(folder: str) -> str:
    """A folder that a step fills apart, checked: it becomes a word of the Dockerfile.

    Raises:
        DetectError: It is not an absolute path of plain names.
    """
    if not re.fullmatch(r"(/[A-Za-z0-9][A-Za-z0-9._-]*)+", folder):
        raise DetectError(f"a step cannot fill {one_line(folder, 100)!r} apart", hint="an absolute path of plain names")
    return folder
