"""Adapters: names, immutable versions, and the `live` alias that promotion moves."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import BigInteger, Select, bindparam, exists, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from shared.database import now
from shared.errors import AdapterNotFound, IllegalTransition, VersionInUse, VersionNotFound
from shared.evaluation_parameters import Column
from shared.ids import new_id
from shared.models import Adapter, AdapterVersion, Job, Promotion
from shared.promotion_policy import GateDecision, PromotionMode, PromotionPolicy
from shared.repositories.jobs import ENDED

# Asked for every question, so built once: by number, or without one the live version.
_RESOLVED = (
    select(AdapterVersion)
    .join(Adapter, Adapter.id == AdapterVersion.adapter_id)
    .where(
        Adapter.project_id == bindparam("project_id"),
        Adapter.name == bindparam("name"),
        AdapterVersion.number == func.coalesce(bindparam("number", type_=BigInteger()), Adapter.live_number),
        AdapterVersion.deleted_at.is_(None),
    )
)

# A deleted adapter keeps its row, so that a number never names a second version; all its versions are deleted.
_IS_THERE = exists().where(AdapterVersion.adapter_id == Adapter.id, AdapterVersion.deleted_at.is_(None))
_USES = {"batch": "answers with it", "export": "exports it", "evaluation": "compares it"}
_HOLD = "hold"  # no move: a new version that did not become live


def _in_work(adapter: Adapter) -> Select[tuple[Job]]:
    """The jobs of its project that have not ended and may name a version."""
    return select(Job).where(Job.project_id == adapter.project_id, Job.kind.in_(_USES), Job.status.not_in(ENDED))


class AdapterRepository:
    """Reads and writes adapters within one session."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def get(self, project_id: str, name: str) -> Adapter:
        adapter = self.session.scalar(
            select(Adapter).where(Adapter.project_id == project_id, Adapter.name == name, _IS_THERE)
        )
        if adapter is None:
            raise AdapterNotFound(f"No adapter '{name[:128]}'; GET /fine-tuning/adapters lists them.", param="adapter")
        return adapter

    def page(self, project_id: str, *, after: str | None, limit: int, prefix: str = "") -> Sequence[Adapter]:
        """By name, `limit` + 1 at most, after the adapter of the name `after`, of the names that begin so."""
        wanted = select(Adapter).where(Adapter.project_id == project_id, Adapter.name > (after or ""), _IS_THERE)
        if prefix:
            wanted = wanted.where(func.substr(Adapter.name, 1, len(prefix)) == prefix)
        return self.session.scalars(wanted.order_by(Adapter.name).limit(limit + 1)).all()

    def versions(self, adapter: Adapter) -> Sequence[AdapterVersion]:
        """Newest first, without the deleted ones."""
        wanted = select(AdapterVersion).where(
            AdapterVersion.adapter_id == adapter.id, AdapterVersion.deleted_at.is_(None)
        )
        return self.session.scalars(wanted.order_by(AdapterVersion.number.desc())).all()

    def version(self, adapter: Adapter, number: int) -> AdapterVersion:
        found = self.session.scalar(
            select(AdapterVersion).where(
                AdapterVersion.adapter_id == adapter.id,
                AdapterVersion.number == number,
                AdapterVersion.deleted_at.is_(None),
            )
        )
        if found is None:
            raise VersionNotFound(f"Adapter '{adapter.name}' has no version {number}.", param="version")
        return found

    def resolve(self, project_id: str, name: str, number: int | None) -> AdapterVersion:
        """The version that is to answer: `number`, or the live one. Raises a `NotFound` if there is none."""
        found = self.session.scalar(_RESOLVED, _named(project_id, name, number))
        if found is not None:
            return found
        adapter = self.get(project_id, name)
        wanted = adapter.live_number if number is None else number
        if wanted is None:
            raise VersionNotFound(f"Adapter '{name}' has no live version; promote one.", param="adapter")
        return self.version(adapter, wanted)

    def published_by(self, project_id: str, job_id: str) -> tuple[Adapter, AdapterVersion] | None:
        """The version that a training has published, unless it is deleted."""
        row = self.session.execute(
            select(Adapter, AdapterVersion)
            .join(AdapterVersion, AdapterVersion.adapter_id == Adapter.id)
            .where(
                Adapter.project_id == project_id,
                AdapterVersion.job_id == job_id,
                AdapterVersion.deleted_at.is_(None),
            )
            .limit(1)
        ).first()
        return None if row is None else (row[0], row[1])

    def history(self, adapter: Adapter) -> Sequence[Promotion]:
        """Moves of the alias, newest first, and what the gate held."""
        wanted = select(Promotion).where(Promotion.adapter_id == adapter.id)
        return self.session.scalars(wanted.order_by(Promotion.id.desc())).all()

    def earlier(self, adapter: Adapter) -> Sequence[AdapterVersion]:
        """The versions that were live before the present one and still exist, the latest first.

        Walks the history back over rollbacks: what `promote` did is undone once, not swung to and fro.
        """
        existing = {version.number: version for version in self.versions(adapter)}
        stack: list[int] = []
        for move in reversed(self.history(adapter)):
            if move.action == _HOLD:
                continue
            if move.action == "rollback":
                stack = stack[: stack.index(move.to_number) + 1] if move.to_number in stack else stack
            elif move.to_number is not None:
                stack.append(move.to_number)
        numbers = dict.fromkeys(number for number in reversed(stack[:-1]) if number != adapter.live_number)
        return [existing[number] for number in numbers if number in existing]

    def publish(
        self,
        project_id: str,
        name: str,
        version: AdapterVersion,
        *,
        is_promoted: bool = True,
        decision: GateDecision | None = None,
        reason: str | None = None,
        actor: str | None = None,
    ) -> AdapterVersion:
        """Enters a version whose folder is in its final place, numbers it and makes it live.

        A `decision` says whether it becomes live, even if no other version is, and stands in the history in either
        case. Without one it does not become live unless it `is_promoted`, or no other version is.

        `version` comes without `adapter_id` and `number`. The adapter's row is made on first use, and locked, so
        that two trainings of one name get different numbers. `actor` None: the job that made it.
        """
        adapter = self._made(project_id, name)
        version.adapter_id = adapter.id
        version.number = 1 + (
            self.session.scalar(select(func.max(AdapterVersion.number)).where(AdapterVersion.adapter_id == adapter.id))
            or 0
        )
        self.session.add(version)
        self.session.flush()
        actor = actor or (f"job {version.job_id}" if version.job_id else None)
        reason = reason or (decision.reason if decision else f"published by job {version.job_id}")
        if decision is not None and not decision.is_promoted:
            self._note(adapter, adapter.live_number, _HOLD, f"version {version.number}: {reason}", actor, decision)
        elif decision is not None or is_promoted or adapter.live_number is None:
            self._move(adapter, version.number, "publish", reason, actor, decision)
        return version

    def live_version(self, project_id: str, name: str) -> AdapterVersion | None:
        """The version that is live, and nobody moves `live` before this transaction ends; None where there is none."""
        if self._find(project_id, name) is None:
            return None
        number = self._lock(project_id, name).live_number
        return None if number is None else self.session.scalar(_RESOLVED, _named(project_id, name, number))

    def policy(
        self, project_id: str, name: str, default: PromotionMode, *, asked: PromotionMode | None = None
    ) -> PromotionPolicy:
        """Which new versions of the name go live, also where it has none yet: see `PromotionPolicy.of`."""
        adapter = self._find(project_id, name)
        return PromotionPolicy.of(asked, None if adapter is None else adapter.promotion_policy, default)

    def set_policy(self, project_id: str, name: str, policy: PromotionPolicy) -> None:
        """For the versions to come; there need be none yet."""
        self._made(project_id, name).promotion_policy = policy.model_dump(mode="json")
        self.session.flush()

    def promote(self, project_id: str, name: str, number: int, reason: str, actor: str | None = None) -> Adapter:
        """Makes a version live."""
        adapter = self._locked(project_id, name)
        self._move(adapter, self.version(adapter, number).number, "promote", reason, actor)
        return adapter

    def rollback(self, project_id: str, name: str, reason: str, actor: str | None = None) -> Adapter:
        """Makes the version live that was live before the present one."""
        adapter = self._locked(project_id, name)
        earlier = self.earlier(adapter)
        if not earlier:
            raise IllegalTransition(f"Adapter '{name}' has no earlier live version to go back to.")
        self._move(adapter, earlier[0].number, "rollback", reason, actor)
        return adapter

    def held(self, project_id: str, name: str, number: int | None) -> AdapterVersion:
        """As `resolve`, and nobody deletes the version before this transaction ends: a job that names it can be
        created."""
        self._locked(project_id, name)
        return self.resolve(project_id, name, number)

    def delete_version(self, project_id: str, name: str, number: int) -> AdapterVersion:
        """Hides a version that is neither live nor in use; its files may be removed afterwards."""
        adapter = self._locked(project_id, name)
        version = self.version(adapter, number)
        if adapter.live_number == number:
            raise VersionInUse(f"Version {number} of '{name}' is live; promote another version first.")
        self._check_unused(adapter, version)
        version.deleted_at = self.session.scalar(select(now()))
        return version

    def delete_adapter(self, project_id: str, name: str, *, is_forced: bool, actor: str) -> Sequence[AdapterVersion]:
        """Hides all versions, unless one is in use; a live one only if it `is_forced`. A later version of this name
        goes on with the numbers and the history."""
        adapter = self._locked(project_id, name)
        versions = self.versions(adapter)
        if adapter.live_number is not None and not is_forced:
            raise VersionInUse(
                f"Version {adapter.live_number} of '{name}' is live; repeat the request with force=true to delete it "
                "all the same."
            )
        for version in versions:
            self._check_unused(adapter, version)
            version.deleted_at = self.session.scalar(select(now()))
        self._move(adapter, None, "delete", "the adapter was deleted", actor)
        return versions

    def is_deleted(self, version_id: str) -> bool:
        version = self.session.get(AdapterVersion, version_id)
        return version is None or version.deleted_at is not None

    def mark_broken(self, version_id: str, reason: str | None) -> None:
        """Notes why a version's files cannot be served, for the status to show; None: they can. Checkpoints' are not
        noted."""
        version = self.session.get(AdapterVersion, version_id)
        if version is not None:
            version.broken_reason = reason

    def dangling(self) -> Sequence[Adapter]:
        """Adapters of all projects whose alias `live` names no version, or a deleted one."""
        is_there = exists().where(
            AdapterVersion.adapter_id == Adapter.id,
            AdapterVersion.number == Adapter.live_number,
            AdapterVersion.deleted_at.is_(None),
        )
        wanted = select(Adapter).where(Adapter.live_number.is_not(None), ~is_there).order_by(Adapter.id)
        return self.session.scalars(wanted).all()

    def mend_alias(self, project_id: str, name: str, actor: str) -> int | None:
        """Where `live` names nothing, it then names the version that was live before and still is whole; None: none.
        The move is in the history as any other."""
        adapter = self._lock(project_id, name)
        if any(one.number == adapter.live_number for one in self.versions(adapter)):
            return adapter.live_number
        number = next((one.number for one in self.earlier(adapter) if one.broken_reason is None), None)
        self._move(adapter, number, "rollback" if number else "delete", "the live version was gone", actor)
        return number

    def broken(self, project_id: str) -> Sequence[tuple[Adapter, AdapterVersion]]:
        """The live versions that workers found broken, by the names of their adapters."""
        rows = self.session.execute(
            select(Adapter, AdapterVersion)
            .join(AdapterVersion, AdapterVersion.adapter_id == Adapter.id)
            .where(
                Adapter.project_id == project_id,
                AdapterVersion.number == Adapter.live_number,
                AdapterVersion.broken_reason.is_not(None),
            )
            .order_by(Adapter.name)
        )
        return [(row[0], row[1]) for row in rows]

    def serving(self, adapter: Adapter, live: AdapterVersion) -> AdapterVersion | None:
        """The version that answers for the live one: itself, or where it is broken the latest whole one that was
        live before; None if there is none."""
        candidates = [live] if live.broken_reason is None else self.earlier(adapter)
        return next((one for one in candidates if one.broken_reason is None), None)

    def latest(self, project_id: str) -> tuple[Adapter, AdapterVersion] | None:
        """The live version that was published last, of any adapter."""
        row = self.session.execute(
            select(Adapter, AdapterVersion)
            .join(AdapterVersion, AdapterVersion.adapter_id == Adapter.id)
            .where(Adapter.project_id == project_id, AdapterVersion.number == Adapter.live_number)
            .order_by(AdapterVersion.created_at.desc())
            .limit(1)
        ).first()
        return None if row is None else (row[0], row[1])

    def _check_unused(self, adapter: Adapter, version: AdapterVersion) -> None:
        """Raises `VersionInUse` if a job that has not ended names the version. Answers in flight need no protection:
        an engine keeps what it has loaded."""
        user = self._user(adapter, version) or self._evaluation_of(adapter, version)
        if user is not None:
            raise VersionInUse(
                f"Version {version.number} of '{adapter.name}' is in use: job {user.id}, which is {user.status}, "
                f"{_USES[user.kind]}; let it end, or cancel it."
            )

    def _user(self, adapter: Adapter, version: AdapterVersion) -> Job | None:
        wanted = _in_work(adapter).where(
            Job.parameters["adapter"].as_string() == adapter.name,
            Job.parameters["version"].as_integer() == version.number,
        )
        return self.session.scalars(wanted.limit(1)).first()

    def _evaluation_of(self, adapter: Adapter, version: AdapterVersion) -> Job | None:
        """One with a column of the version. There are few that have not ended."""
        for job in self.session.scalars(_in_work(adapter).where(Job.kind == "evaluation")):
            columns = [Column.model_validate(one) for one in job.parameters["columns"]]
            if any(one.names(adapter.name, version.number, version.job_id) for one in columns):
                return job
        return None

    def _move(
        self,
        adapter: Adapter,
        number: int | None,
        action: str,
        reason: str,
        actor: str | None,
        decision: GateDecision | None = None,
    ) -> None:
        self._note(adapter, number, action, reason, actor, decision)
        adapter.live_number = number
        self.session.flush()

    def _note(
        self,
        adapter: Adapter,
        number: int | None,
        action: str,
        reason: str,
        actor: str | None,
        decision: GateDecision | None,
    ) -> None:
        move = Promotion(
            adapter_id=adapter.id,
            from_number=adapter.live_number,
            to_number=number,
            action=action,
            reason=reason,
            actor=actor,
        )
        if decision is not None:
            move.decision = decision.to_json()
        self.session.add(move)
        self.session.flush()

    def _made(self, project_id: str, name: str) -> Adapter:
        """The name's row, locked; made on first use."""
        if self._find(project_id, name) is None:
            self._add_unless_there(project_id, name)
        return self._lock(project_id, name)

    def _locked(self, project_id: str, name: str) -> Adapter:
        self.get(project_id, name)
        return self._lock(project_id, name)

    def _add_unless_there(self, project_id: str, name: str) -> None:
        try:
            with self.session.begin_nested():
                self.session.add(Adapter(id=new_id("adapter-"), project_id=project_id, name=name))
        except IntegrityError:  # another training of this name was first
            return

    def _find(self, project_id: str, name: str) -> Adapter | None:
        """Also a deleted one."""
        return self.session.scalar(select(Adapter).where(Adapter.project_id == project_id, Adapter.name == name))

    def _lock(self, project_id: str, name: str) -> Adapter:
        wanted = select(Adapter).where(Adapter.project_id == project_id, Adapter.name == name).with_for_update()
        return self.session.scalars(wanted, execution_options={"populate_existing": True}).one()


def _named(project_id: str, name: str, number: int | None) -> dict[str, str | int | None]:
    return {"project_id": project_id, "name": name, "number": number}
