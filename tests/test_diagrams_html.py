"""The HTML page: everything on it, nothing from elsewhere, and a drawing in any case."""

import html
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from drawing import LIFE, LIFECYCLES, ODD, SANDBOX, WAYS, plain, svg_texts, text

from session_fsm import SESSION_LIFECYCLE
from session_fsm.diagrams import FORMATS, table_rows, write
from session_fsm.diagrams.picture import picture_of
from session_fsm.lifecycle import Lifecycle

VOID = {"meta", "br", "hr", "img", "link"}
ODD_PAGE = {"caption": '<script>alert("1")</script> & "x" \'y\''}


class Page(HTMLParser):
    """A page, read: the tables, the tags, and whether each that was opened is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[list[str]] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th"):
            self.cells[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.cells[-1][-1] += data
        elif self.open and self.open[-1] != "style":
            self.words.append(data)


@pytest.fixture(params=["graphviz", "bare"])
def graphviz(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether Graphviz is installed."""
    if request.param == "bare":
        monkeypatch.setitem(sys.modules, "pygraphviz", None)
    return bool(request.param == "graphviz")


@LIFECYCLES
def test_diagrams_html_has_drawing_and_table(lifecycle: Lifecycle, graphviz: bool) -> None:
    """The page is well-formed, draws every row, and has each row of the table with its reason."""
    source = text(lifecycle, "html")
    page = Page(source)
    header, rows = table_rows(lifecycle)
    assert page.cells == [[*header], *(list(row) for row in rows)]
    if graphviz:
        svg = re.search(r"<svg.*</svg>", source, re.DOTALL)
        assert svg is not None
        drawn = "\n".join(svg_texts(svg[0]))
        for row in lifecycle.rows:
            assert all(words in drawn for words in plain(lifecycle, row))
    else:
        assert "svg" not in [tag for tag, _ in page.tags]
        drawing = re.search(r"<pre>(.*)</pre>", source, re.DOTALL)
        assert drawing is not None
        assert html.unescape(drawing[1]) == text(lifecycle, "text")


@pytest.mark.parametrize("way", WAYS)
def test_diagrams_html_needs_nothing_else(way: str, graphviz: bool) -> None:
    """Nothing is loaded and nothing runs: no address, no script, and a policy that says so."""
    source = text(SESSION_LIFECYCLE, "html", **WAYS[way])
    page = Page(source)
    names = {name for _, attributes in page.tags for name in attributes}
    assert not names & {"src", "href", "xlink:href", "action", "background", "onload", "onclick"}
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "img", "use"}
    bare = source.replace('"http://www.w3.org/2000/svg"', "").replace(
        '"http://www.w3.org/1999/xlink"', ""
    )
    assert "://" not in bare
    assert "url(" not in bare
    assert "@import" not in bare
    policies = [a["content"] for t, a in page.tags if t == "meta" and "http-equiv" in a]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'"]


def test_diagrams_html_escapes_everything(graphviz: bool) -> None:
    """Names, reasons and captions are text wherever they stand, whatever they look like."""
    page = Page(text(ODD, "html", **ODD_PAGE))
    known = {tag for tag, _ in Page(text(SANDBOX, "html")).tags}
    assert {tag for tag, _ in page.tags} == known
    shown = "".join(page.words)
    assert ODD_PAGE["caption"] in shown
    assert ODD.name in shown
    told = Page(text(SESSION_LIFECYCLE, "html", history=LIFE))
    assert "answer <0>" in [row[5] for row in told.cells if row[2:3] == ["end_task"]]


def test_diagrams_html_is_light_and_dark() -> None:
    """Each colour of the page has another one where pages are dark."""
    style = text(SESSION_LIFECYCLE, "html").split("</style>")[0]
    light, dark = style.split("@media (prefers-color-scheme: dark)")
    assert "color-scheme: light dark" in light
    first, second = (dict(re.findall(r"--([\w-]+): ([^;]+);", part)) for part in (light, dark))
    assert first.keys() == second.keys()
    assert all(first[name] != second[name] for name in first)
    used = set(re.findall(r"var\(--([\w-]+)\)", style))
    assert used == first.keys()


def test_diagrams_html_is_stale_by_its_words_alone(tmp_path: Path) -> None:
    """The page holds whatever the drawing's fonts; a change to its words, or none, is found."""
    known = FORMATS["html"]
    assert known.source is not None
    assert known.source_of is not None
    wanted = known.source(picture_of(SESSION_LIFECYCLE))
    page = text(SESSION_LIFECYCLE, "html")
    assert known.source_of(page.encode()) == wanted
    assert known.source_of(page.replace("DejaVu Sans,Verdana", "Other").encode()) == wanted
    for other in (
        page.replace("nobody came back", "somebody came back"),
        page.replace("</figure>", ""),
        re.sub("<figure>.*</figure>\n", "", page, flags=re.DOTALL),
        page.replace("</svg>", ""),
        page.replace("<figure>", "<figure><b>"),
        page.replace("--ink", "--inky", 1),
        page[:-1],
        text(SESSION_LIFECYCLE, "html", current="idle"),
        text(SESSION_LIFECYCLE.without("touch"), "html"),
        "",
    ):
        assert known.source_of(other.encode()) != wanted
    assert known.source_of(b"\xff\xfe") is None
    assert any(path.name == "session.html" for path in write(SESSION_LIFECYCLE, tmp_path))
