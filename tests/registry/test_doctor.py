"""The doctor after real work: what training, import and export leave behind is all in order."""

from __future__ import annotations

from pathlib import Path

from api.maintenance.doctor import examine
from api.maintenance.site import Site
from tests.registry.conftest import Installation, zipped


def test_what_real_jobs_made_is_whole_to_the_last_byte(installation: Installation, sent: Path, redis_url: str) -> None:
    for path in sent.glob("*token*"):
        path.unlink()
    assert installation.import_files(zipped(sent), model=str(installation.base)).status == "succeeded"
    assert installation.export(format="peft").status == "succeeded"
    settings = installation.settings.model_copy(update={"redis_url": redis_url, "leftover_hours": 0.0})
    report = examine(Site(settings, installation.database, installation.storage, is_deep=True))
    assert report.findings == []
