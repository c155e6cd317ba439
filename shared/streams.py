"""Names and shapes of the Redis streams that carry questions to the workers and tokens back."""

from __future__ import annotations

QUESTIONS = "finetuned:questions"  # stream; every entry is {"question": JSON}
BACKGROUND_QUESTIONS = "finetuned:questions:background"  # the same, of batches: read when no other question waits
GROUP = "inference"  # consumer group of all inference workers
ABORTS = "finetuned:aborts"  # publish/subscribe channel; the payload is a question's id
MAX_REPLIES = 100_000  # entries kept in one API process's reply stream
KEEP_SECONDS = 0.5  # how often a worker says that it is still at its questions
SILENT_SECONDS = 2.5  # a question whose worker has not said so for so long is left alone: its open stream ends
CLAIM_AFTER_SECONDS = 5.0  # and after so long another worker may take it
REPLY_TTL_SECONDS = 3600  # a reply stream whose API process is gone disappears


def replies_of(api_id: str) -> str:
    """The stream on which one API process reads its answers; every entry is {"reply": JSON}."""
    return f"finetuned:replies:{api_id}"
