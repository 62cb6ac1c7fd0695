"""Write a PNG beside each SVG named, for PyPI, which shows no SVG.

    python .ci/picture.py bench/results/*/chart.svg

Needs Chromium: the chart has a style sheet, which other converters read only in part.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

SCALE = 1.5  # sharp enough on most screens, and under 100 kB
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def main(pictures: list[Path]) -> None:
    """Each picture in its own size."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit("Chromium is not installed: apt install chromium")
    for picture in pictures:
        size = re.search(r'width="(\d+)" height="(\d+)"', picture.read_text(encoding="utf-8"))
        if size is None:
            sys.exit(f"{picture} does not say its size: give it width and height")
        png = picture.resolve().with_suffix(".png")
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        command += [f"--force-device-scale-factor={SCALE}", f"--window-size={size[1]},{size[2]}"]
        command += [f"--screenshot={png}", picture.resolve().as_uri()]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        print(f"{png}: {png.stat().st_size} bytes")


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
