"""Files of others are what npm has, and their licences lie beside them."""

from __future__ import annotations

import hashlib
import re

from ui import APP

VENDOR = APP / "vendor"


def test_every_vendored_file_is_recorded_with_its_hash() -> None:
    recorded = dict(
        re.findall(r"^\| `([^`]+)` .* `([0-9a-f]{64})` \|$", (VENDOR / "README.md").read_text(), re.MULTILINE)
    )
    found = {
        one.name: hashlib.sha256(one.read_bytes()).hexdigest()
        for one in VENDOR.glob("*.*")
        if one.suffix in (".js", ".css")
    }
    assert recorded == found
    assert {one.name for one in VENDOR.glob("LICENSE.*")} == {"LICENSE.htm", "LICENSE.preact", "LICENSE.uplot"}
