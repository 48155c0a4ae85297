"""Write a page: one HTML file that can be mailed, opened without a network, and printed.

parts.py makes its parts and escapes all text; images.py makes its images. There is no script, and
the Content-Security-Policy forbids scripts, every request and every style but that of page.css.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from string import Template

from rtdetr_cli.core.files import atomic_write
from rtdetr_cli.core.version import VERSION
from rtdetr_cli.report.parts import Html, heading, plain

_STYLE = Path(__file__).with_name("page.css")
_PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="$policy">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<meta name="generator" content="rtdetr $version">
<link rel="icon" href="data:,">
<title>$title</title>
<style>$style</style>
</head>
<body>
$body
<footer>Made by rtdetr $version. This file loads nothing from a network.</footer>
</body>
</html>
""")


def write_page(path: Path, title: str, parts: Sequence[Html]) -> None:
    """Write a page; its title is also its first heading.

    Raises:
        StorageError: no space left or no permission.
    """
    style = _STYLE.read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    page = _PAGE.substitute(
        policy=(
            f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; "
            "base-uri 'none'; form-action 'none'"
        ),
        version=plain(VERSION),
        title=plain(title),
        style=style,
        body="\n".join([heading(title, level=1), *parts]),
    )
    with atomic_write(path) as temporary:
        temporary.write_text(page, encoding="utf-8", newline="\n")
