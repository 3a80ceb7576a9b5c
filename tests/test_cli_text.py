"""Text is shown, never obeyed."""

import re
import unicodedata
from datetime import timedelta

import pytest
from commanding import MALICE, MALICE_SHOWN, START
from hypothesis import given
from hypothesis import strategies as st

from session_fsm.cli.text import duration, safe, when


def test_text_safe_shows_what_a_terminal_would_obey() -> None:
    """Escapes, bells, line breaks, C1 codes, turns of direction and hidden characters are shown."""
    assert safe(MALICE) == MALICE_SHOWN


@pytest.mark.parametrize(
    "code",
    [
        *(0x00, 0x07, 0x08, 0x09, 0x0A, 0x0D, 0x1B, 0x7F, 0x85, 0x9B, 0x9D, 0xAD),
        *(0x034F, 0x061C, 0x115F, 0x180E, 0x200B, 0x200D, 0x200E, 0x2028, 0x2029),
        *range(0x202A, 0x202F),
        *range(0x2060, 0x2065),
        *range(0x2066, 0x206A),
        *(0x3164, 0xD800, 0xE000, 0xFEFF, 0xFFA0, 0xFFFE, 0xE0001),
    ],
)
def test_text_safe_escapes_what_is_obeyed_or_hidden(code: int) -> None:
    """Each such character is told by its number, in ASCII."""
    escaped = safe(f"a{chr(code)}b")
    assert escaped.isascii()
    assert escaped.isprintable()
    digits = re.fullmatch(r"a\\(?:[xuU]([0-9a-f]+)|([tnr]))b", escaped)
    assert digits is not None
    assert digits[2] or int(digits[1], 16) == code


@pytest.mark.parametrize(
    "text", ["plain [red]", "größer → “kleiner”", "日本語\u3000テキスト", "3:00\u202fPM", "é", "👍"]
)
def test_text_safe_leaves_what_people_write(text: str) -> None:
    """Letters of any script, signs and blanks of any width stay."""
    assert safe(text) == text


@given(st.text())
def test_text_safe_is_one_harmless_line(text: str) -> None:
    """Whatever comes, what is shown is one line without characters that do anything."""
    line = safe(text)
    assert len(line.splitlines()) <= 1
    assert {unicodedata.category(each)[0] for each in line} <= set("LMNPSZ")
    assert safe(line) == line


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (0.5, "0.5 s"),
        (1, "1 s"),
        (61, "1 min 1 s"),
        (3_600, "1 h"),
        (3_601, "1 h"),
        (90_061, "1 d 1 h"),
        (86_400 * 7_479, "7,479 d"),
    ],
)
def test_text_duration_has_two_units(seconds: float, words: str) -> None:
    """A duration is told in its largest unit and the one below."""
    assert duration(seconds) == words


@given(st.integers(1, 10**7))
def test_text_when_mirrors(seconds: int) -> None:
    """An instant lies as far in the future as its mirror lies in the past."""
    step = timedelta(seconds=seconds)
    assert when(START + step, START).removeprefix("in ") == when(START - step, START).removesuffix(
        " ago"
    )
