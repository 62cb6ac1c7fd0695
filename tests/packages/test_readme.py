"""The README as PyPI shows it: what the metadata of a package says."""

import email
import html.parser
import re
import struct
import sys
from pathlib import Path

import pytest
from packaging_files import CHECKOUT, HOME, output_of

import fastasgi

METADATA = """
import sys
from setuptools.build_meta import prepare_metadata_for_build_wheel
print("made:" + prepare_metadata_for_build_wheel(sys.argv[1]))
"""

MOST_PICTURE_BYTES = 100_000


@pytest.fixture(scope="module")
def description(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What a wheel's METADATA has of the README."""
    folder = tmp_path_factory.mktemp("metadata")
    printed = output_of(sys.executable, "-c", METADATA, str(folder))
    made = re.search(r"^made:(.+)$", printed, re.MULTILINE)
    assert made is not None
    message = email.message_from_bytes((folder / made[1] / "METADATA").read_bytes())
    assert message["Description-Content-Type"] == "text/markdown"
    text = message.get_payload(decode=True)
    assert isinstance(text, bytes)
    return text.decode()


class Links(html.parser.HTMLParser):
    """The targets of all links, and those of all pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.pictures: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "href":
                self.links.append(value or "")
            elif name in {"src", "srcset"}:
                self.pictures.append(value or "")


@pytest.fixture(scope="module")
def shown(description: str) -> Links:
    """The page that PyPI makes of it."""
    markdown = pytest.importorskip("readme_renderer.markdown", reason="readme-renderer[md] is not installed")
    page = markdown.render(description)
    assert page is not None, "PyPI would show the source"
    links = Links()
    links.feed(page)
    return links


def test_it_has_all_of_the_readme(description: str) -> None:
    def without_targets(text: str) -> str:
        return re.sub(r"\]\([^)]*\)", "]", text).strip()

    assert without_targets(description) == without_targets(
        (CHECKOUT / "README.md").read_text(encoding="utf-8")
    )


def test_its_links_are_absolute_and_lead_to_this_version(shown: Links) -> None:
    ours = [link for link in shown.links if link.startswith(f"{HOME}/blob/")]
    assert len(ours) > 5
    # Those within the page are by the headings themselves
    others = [link for link in shown.links if not link.startswith(("https://", "#user-content-"))]
    assert not others
    for link in ours:
        path = link.removeprefix(f"{HOME}/blob/v{fastasgi.__version__}/").partition("#")[0]
        assert (CHECKOUT / path).exists(), link


def test_its_pictures_are_shown(shown: Links) -> None:
    assert shown.pictures
    for picture in shown.pictures:
        path = CHECKOUT / picture.removeprefix(f"{HOME}/raw/v{fastasgi.__version__}/")
        assert path.suffix == ".png"
        assert path.is_file(), f"{picture}: python .ci/picture.py"
        assert path.stat().st_size <= MOST_PICTURE_BYTES


@pytest.mark.parametrize("chart", sorted((CHECKOUT / "bench" / "results").glob("*/chart.svg")), ids=str)
def test_a_charts_png_has_its_proportions(chart: Path) -> None:
    size = re.search(r'width="(\d+)" height="(\d+)"', chart.read_text(encoding="utf-8"))
    assert size is not None
    png = chart.with_suffix(".png").read_bytes()
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", png[16:24])
    assert (width, height) == (1.5 * int(size[1]), 1.5 * int(size[2]))
