from __future__ import annotations

from pathlib import Path

from shared.storage import Storage
from worker.data.text_cache import TextCache
from worker.data.texts import ExtractedText, Section

TEXT = ExtractedText(
    (Section("Grüße \u2028 \n x", "A > B", 3), Section("r", is_record=True)),
    (({"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "weight": 0}),),
    True,
)


def test_a_kept_text_comes_back_as_it_was(tmp_path: Path) -> None:
    cache = TextCache(Storage(tmp_path))
    assert cache.find("abc", "md") is None
    cache.keep("abc", "md", TEXT)
    assert cache.find("abc", "md") == TEXT
    assert not list((tmp_path / "staging").iterdir())


def test_a_text_of_another_kind_or_a_damaged_one_is_read_anew(tmp_path: Path) -> None:
    cache = TextCache(Storage(tmp_path))
    cache.keep("abc", "md", TEXT)
    assert cache.find("abc", "txt") is None
    path = tmp_path / "texts" / "abc.json"
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    assert cache.find("abc", "md") is None
    path.write_bytes(whole.replace(b'"q"', b'"p"'))  # JSON still, and another text
    assert cache.find("abc", "md") is None
    path.write_bytes(whole)
    assert cache.find("abc", "md") == TEXT
