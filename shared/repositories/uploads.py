"""Uploads: large files on their way, in parts."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, and_, delete, func, or_, select, update
from sqlalchemy.orm import Session

from shared.database import now
from shared.errors import IllegalTransition, InvalidRequest, NotFound
from shared.models import Upload, UploadPart

_MOST_AT_ONCE = 10_000


class UploadRepository:
    """Reads and writes uploads and their parts within one session."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def add(self, upload: Upload, *, lives_seconds: float) -> Upload:
        """Enters an upload that expires after so long."""
        upload.expires_at = self.session.execute(select(now())).scalar_one() + lives_seconds
        self.session.add(upload)
        self.session.flush()
        return upload

    def get(self, project_id: str, upload_id: str) -> Upload:
        """As it is now; it stays so until a write session ends. Raises `NotFound`."""
        upload = self.session.get(Upload, upload_id, with_for_update=True, populate_existing=True)
        if upload is None or upload.project_id != project_id:
            raise NotFound(f"No upload '{upload_id[:80]}'; create one.", param="upload_id")
        return upload

    def get_pending(self, project_id: str, upload_id: str) -> Upload:
        """As `get`; raises `IllegalTransition` if the upload has ended."""
        upload = self.get(project_id, upload_id)
        is_over = upload.expires_at <= self.session.execute(select(now())).scalar_one()
        status = "expired" if upload.status == "pending" and is_over else upload.status
        if status != "pending":
            raise IllegalTransition(f"The upload is {status}; create another one.", param="upload_id")
        return upload

    def add_part(self, part: UploadPart) -> UploadPart:
        self.session.add(part)
        self.session.flush()
        return part

    def received(self, upload_id: str) -> tuple[int, int]:
        """The number of parts, and what they hold together, in bytes."""
        sums = select(func.count(), func.coalesce(func.sum(UploadPart.size_bytes), 0))
        num_parts, size_bytes = self.session.execute(sums.where(UploadPart.upload_id == upload_id)).one()
        return num_parts, int(size_bytes)

    def parts(self, upload_id: str, part_ids: Sequence[str]) -> list[UploadPart]:
        """The parts in the order of their ids; raises `InvalidRequest` for one that is not this upload's."""
        rows = self.session.scalars(select(UploadPart).where(UploadPart.upload_id == upload_id))
        part_by_id = {part.id: part for part in rows}
        for part_id in part_ids:
            if part_id not in part_by_id:
                raise InvalidRequest(f"The upload has no part '{part_id[:80]}'.", param="part_ids")
        return [part_by_id[part_id] for part_id in part_ids]

    def end_expired(self) -> None:
        """Ends the uploads whose time is over."""
        is_over = and_(Upload.status == "pending", Upload.expires_at <= now())
        self.session.execute(update(Upload).where(is_over).values(status="expired"))

    def ended_parts(self) -> Sequence[str]:
        """Ids of parts of uploads that have ended: nobody needs their bytes. Not more than can be handled at once."""
        wanted = select(UploadPart.id).join(Upload, Upload.id == UploadPart.upload_id).where(_has_ended())
        return self.session.scalars(wanted.limit(_MOST_AT_ONCE)).all()

    def delete_parts(self, part_ids: Sequence[str]) -> None:
        self.session.execute(delete(UploadPart).where(UploadPart.id.in_(part_ids)))


def _has_ended() -> ColumnElement[bool]:
    return or_(Upload.status != "pending", Upload.expires_at <= now())
