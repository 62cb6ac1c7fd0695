"""The README's chart."""

import xml.etree.ElementTree

from benchparts import full_results

from bench.summary import build_chart


def test_the_readmes_chart_is_svg_with_every_server() -> None:
    root = xml.etree.ElementTree.fromstring(build_chart(full_results()))
    words = [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert [word for word in words if word in ("fastasgi", "uvicorn", "C epoll floor")] == [
        "fastasgi",
        "uvicorn",
        "C epoll floor",
    ]
    texts = " ".join(words)
    # Rate and CPU time of each, of whom and when.
    assert "≥ 9\u202f000" in texts
    assert texts.count(" µs") == 3
    assert "<Chip> & Co, 2 cores, one worker each; 2026-11-21" in texts
    assert "≥: something else than the server was used up" in texts
