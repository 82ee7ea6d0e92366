"""Put a built book beside the other editions of a site: `editions.py BOOK SITE NAME ADDRESS`; needs no package.

NAME is a tag such as v0.2.0, or latest. `versions.json` lists the releases for the bar that the theme shows on older
ones; front and missing page lead to the latest book.
"""

import json
import re
import shutil
import sys
from pathlib import Path


def add(book: Path, site: Path, name: str, address: str) -> None:
    """Replace edition `name` of `site` by `book`; address: of the site, without a final slash."""
    shutil.rmtree(site / name, ignore_errors=True)
    shutil.copytree(book, site / name)
    tags = [path.name for path in site.glob("v*") if path.is_dir()]
    tags.sort(key=lambda tag: [int(number) for number in re.findall(r"\d+", tag)], reverse=True)
    listed = [{"version": tag[1:], "url": f"{address}/{tag}/", "preferred": tag == tags[0]} for tag in tags]
    (site / "versions.json").write_text(json.dumps(listed, indent=1) + "\n", encoding="utf-8")
    first = "latest" if (site / "latest").is_dir() else tags[0]
    front = f'<!DOCTYPE html><title>To the book</title><meta http-equiv="refresh" content="0; url={first}/">\n'
    (site / "index.html").write_text(front, encoding="utf-8")
    shutil.copyfile(site / first / "404.html", site / "404.html")
    (site / ".nojekyll").touch()


if __name__ == "__main__":
    add(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4].rstrip("/"))
