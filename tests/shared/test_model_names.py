from __future__ import annotations

import pytest

from shared.model_names import FineTunedName, parse_version


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ft:demo:default:handbook:abc", FineTunedName("demo", "default", "handbook", "abc")),
        ("ft:demo:default::abc", FineTunedName("demo", "default", "", "abc")),
        ("ft:org/model:1:default:x:abc", FineTunedName("org/model:1", "default", "x", "abc")),
        ("ft:demo:default:x:abc:ckpt-step-5", FineTunedName("demo", "default", "x", "abc", 5)),
        ("ft:demo:default:x:ckpt-step-5", None),
        ("demo", None),
        ("ft:demo", None),
    ],
)
def test_fine_tuned_names_are_read_from_the_right(name: str, expected: FineTunedName | None) -> None:
    assert FineTunedName.parse(name) == expected
    if expected is not None:
        assert str(expected) == name


def test_a_version_is_named_by_its_adapter_and_number() -> None:
    assert parse_version("handbook@3") == ("handbook", 3)
    assert parse_version("handbook") is None
    assert parse_version("../x@3") is None


def test_a_fine_tuned_name_does_not_tell_a_local_path() -> None:
    assert str(FineTunedName.of_job("/srv/models/tiny", "team", "a", "ftjob-12")) == "ft:tiny:team:a:12"
    assert str(FineTunedName.of_version("/srv/models/tiny", "team", "a", "version-7", None)) == "ft:tiny:team:a:7"
    assert str(
        FineTunedName.of_version(
            "microsoft/DialoGPT-medium",
            "team",
            "a",
            "version-7",
            "ftjob-12",
        )
    ) == ("ft:microsoft/DialoGPT-medium:team:a:12")
