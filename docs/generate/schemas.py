"""JSON schemas in words and by example."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any]
_BOUNDS = {
    "minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<",
    "minLength": "length ≥", "maxLength": "length ≤", "minItems": "items ≥", "maxItems": "items ≤",
}  # fmt: skip
_SAMPLES = {"string": "…", "integer": 1, "number": 1.0, "boolean": True, "null": None}
_DEEPEST = 4


def resolved(schema: Schema, root: Schema) -> Schema:
    """What a reference points at, within `root`."""
    while "$ref" in schema:
        found: Any = root
        for step in schema["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        schema = found
    return schema


def kind_of(schema: Schema, root: Schema) -> str:
    """A type, as a reader wants it: names of enumerations, of what lists hold, and the alternatives."""
    schema = resolved(schema, root)
    if "enum" in schema:
        return ", ".join(f"`{one}`" for one in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    choices = schema.get("anyOf") or schema.get("oneOf")
    if choices:
        return " or ".join(dict.fromkeys(kind_of(one, root) for one in choices))
    if schema.get("type") == "array":
        return f"list of {kind_of(schema.get('items', {}), root)}"
    return str(schema.get("title") if "properties" in schema else schema.get("type", "anything"))


def bounds(schema: Schema) -> str:
    """The least and the most, those of alternatives too."""
    parts = [schema, *schema.get("anyOf", ())]
    return ", ".join(f"{sign} {part[name]}" for part in parts for name, sign in _BOUNDS.items() if name in part)


def example(schema: Schema, root: Schema, depth: int = 0) -> Any:
    """A value that the schema allows: its own example or default where it has one."""
    schema = resolved(schema, root)
    for given in (schema.get("examples") or [None])[0], schema.get("default"), schema.get("const"):
        if given is not None:
            return given
    choices = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
    if choices:
        return example(choices[0], root, depth)
    if "enum" in schema:
        return schema["enum"][0]
    if "properties" in schema and depth < _DEEPEST:
        return {name: example(part, root, depth + 1) for name, part in schema["properties"].items()}
    if schema.get("type") == "array":
        return [example(schema.get("items", {}), root, depth + 1)] if depth < _DEEPEST else []
    return _SAMPLES.get(str(schema.get("type")), {})


def request_example(schema: Schema, root: Schema) -> Any:
    """The same of a request: what must be there, and little else."""
    schema = resolved(schema, root)
    required = schema.get("required") or list(schema.get("properties", {}))[:2]
    return {name: example(part, root, 1) for name, part in schema.get("properties", {}).items() if name in required}
