"""The doctor: every check in one list; repairs are made one by one, and each says what it did."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence

from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from api.maintenance.broker import check_broker
from api.maintenance.files import (
    check_datasets,
    check_documents,
    check_evaluations,
    check_exports,
    check_leftovers,
    check_outputs,
    check_paused_trainings,
    check_unknown_files,
    check_uploads,
)
from api.maintenance.findings import Finding, Problem, Report, error
from api.maintenance.ground import check_database, check_disk
from api.maintenance.site import Site
from api.maintenance.versions import check_aliases, check_checkpoint_models, check_unknown_versions, check_versions
from api.maintenance.work import check_leases, check_waiting, check_workers
from shared.errors import FinetunedError

log = logging.getLogger(__name__)

Check = Callable[[Site], Iterator[Problem]]

# Where one of these finds something, the others could not be trusted.
GROUND: Sequence[Check] = (check_database,)
CHECKS: Sequence[Check] = (
    check_disk,
    check_documents,
    check_datasets,
    check_versions,
    check_checkpoint_models,
    check_aliases,
    check_uploads,
    check_exports,
    check_outputs,
    check_evaluations,
    check_paused_trainings,
    check_unknown_versions,
    check_unknown_files,
    check_leftovers,
    check_leases,
    check_waiting,
    check_workers,
    check_broker,
)
_EXPECTED = (FinetunedError, SQLAlchemyError, RedisError, OSError)


def examine(site: Site, *, is_fixing: bool = False) -> Report:
    """Looks at everything, and repairs what can be repaired if it is to. No weights and no document are destroyed: what
    nobody knows is set aside, what lacks its files is marked."""
    findings = [_treated(one, is_fixing=is_fixing) for check in GROUND for one in _found(site, check)]
    if not findings:
        findings = [_treated(one, is_fixing=is_fixing) for check in CHECKS for one in _found(site, check)]
    is_healthy = all(one.repaired for one in findings)
    return Report(healthy=is_healthy, deep=site.is_deep, findings=findings)


def _found(site: Site, check: Check) -> list[Problem]:
    """All that a check finds, before anything is repaired; that it could not look is found too."""
    try:
        return list(check(site))
    except _EXPECTED as failure:
        log.warning("%s failed", check.__name__, exc_info=failure)
        what = check.__name__.removeprefix("check_")
        said = f"This could not be looked at ({type(failure).__name__}); is the database there, and the data folder?"
        return [error("not_examined", what, said)]


def _treated(problem: Problem, *, is_fixing: bool) -> Finding:
    if not is_fixing or problem.repair is None:
        return problem.finding
    try:
        outcome, is_repaired = problem.repair(), True
    except _EXPECTED as failure:
        outcome, is_repaired = f"It could not be repaired ({type(failure).__name__}).", False
    log.info("doctor: %s %s: %s", problem.finding.code, problem.finding.subject, outcome)
    return problem.finding.model_copy(update={"repaired": is_repaired, "outcome": outcome})
