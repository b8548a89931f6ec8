"""What README, site and report open with: the picture and the first findings of docs/findings.md, in its own words."""

import re
from pathlib import Path
from textwrap import fill
from typing import NamedTuple

PAGE = Path("docs", "findings.md")  # beside the README
MARKS = ("<!-- findings:start -->", "<!-- findings:end -->")
SHOWN = 5
SECTION = re.compile(
    r"^## (?P<title>[^\n]+)\n\n\*\*(?P<sentence>[^*]+)\*\*$(?P<rest>.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL
)
PICTURE = re.compile(r"^!\[(?P<alt>[^]]+)\]\((?P<file>[^)]+)\)\n\n\*(?P<caption>[^*]+)\*$", re.MULTILINE)
CLAIM = re.compile(r"^- (\d\d) (.+): ([a-z ]+)(†?)$", re.MULTILINE)


class Finding(NamedTuple):
    """A section of the page: what it says in one sentence, and the claims that it rests on."""

    title: str
    sentence: str
    claims: tuple[tuple[str, str, str, str], ...]  # notebook, claim, verdict, † or "": not by Holm

    @property
    def anchor(self) -> str:
        """What its heading is linked by, as GitHub and myst make it."""
        return re.sub(r"[^\w -]", "", self.title.lower()).replace(" ", "-")


class Picture(NamedTuple):
    """The page's picture: its words for those who do not see it, its file beside the page, and what stands below."""

    alt: str
    file: str
    caption: str


def findings(page: str) -> list[Finding]:
    """The sections that begin with a sentence in bold, in their order."""
    return [
        Finding(each["title"], _joined(each["sentence"]), tuple(CLAIM.findall(each["rest"])))
        for each in SECTION.finditer(page)
    ]


def picture(page: str) -> Picture:
    """The first picture with a caption in italics; ValueError where there is none."""
    found = PICTURE.search(page)
    if found is None:
        raise ValueError(f"{PAGE} has no picture with a caption in italics below it.")
    return Picture(*map(_joined, found.group("alt", "file", "caption")))


def opening(page: str, folder: str = f"{PAGE.parent}/") -> str:
    """The picture and the first findings as Markdown, each linked to its section of the page that lies in `folder`."""
    shown = picture(page)
    lines = [
        fill(
            f"- **[{each.title}]({folder}{PAGE.name}#{each.anchor}).** {each.sentence}",
            width=120,
            subsequent_indent="  ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        for each in findings(page)[:SHOWN]
    ]
    caption = fill(f"*{shown.caption}*", width=120, break_on_hyphens=False)
    return "\n\n".join((f"![{shown.alt}]({folder}{shown.file})", caption, "\n".join(lines)))


def _joined(text: str) -> str:
    return " ".join(text.split())
