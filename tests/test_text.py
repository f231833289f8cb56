"""Foreign text is printed, never obeyed."""

from hypothesis import given
from hypothesis import strategies as st

from hpcbinder.text import one_line, printable


def test_control_characters_and_terminal_commands_become_escapes() -> None:
    assert printable("a\x1b[2Jb\n") == "a\\x1b[2Jb\\n"


def test_bidirectional_overrides_and_undecodable_bytes_become_escapes() -> None:
    assert printable("x\u202ey") == "x\\u202ey"
    assert printable(b"caf\xe9".decode("utf-8", "surrogateescape")) == "caf\\xe9"


def test_letters_of_any_language_stay() -> None:
    assert printable("déjà vu 数据 ñ") == "déjà vu 数据 ñ"


@given(st.text())
def test_one_line_is_one_line_and_can_be_encoded(text: str) -> None:
    line = one_line(text, limit=50)
    assert len(line.splitlines()) <= 1
    assert len(line) <= 50
    line.encode("utf-8")
