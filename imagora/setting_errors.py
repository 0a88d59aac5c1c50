"""What is wrong with the settings, in words for the person who wrote them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

#: pydantic's kinds of error that say too little, and what to say instead.
_ADVICE = {
    "missing": "missing: add this key",
    "bool_type": "write true or false",
    "bool_parsing": "write true or false",
    "int_type": "write a whole number",
    "int_parsing": "write a whole number",
    "int_from_float": "write a whole number",
    "float_type": "write a number",
    "float_parsing": "write a number",
    "finite_number": "write a finite number",
    "string_type": "write a text in quotes",
    "path_type": "write a path in quotes",
    "string_too_short": "must not be empty",
    "tuple_type": "write a list in [ ]",
    "model_type": "write a table, as in [server]",
    "model_attributes_type": "write a table, as in [server]",
}


class SettingsError(Exception):
    """The settings cannot be used. The text has one line for each problem: the key, what is wrong, what to do."""

    def __init__(self, source: str, problems: Sequence[str]) -> None:
        super().__init__("\n".join(f"{source}: {problem}" for problem in problems))
        self.source = source
        self.problems = tuple(problems)


def describe(
    error: ValidationError, model: type[BaseModel], values: Mapping[str, Any], environment: Mapping[str, str]
) -> list[str]:
    """One line per problem. Never repeats a value that came from the environment."""
    lines: dict[str, str] = {}
    for detail in error.errors(include_url=False, include_input=False):
        key = _key(detail["loc"])
        if key.startswith(tuple(f"{known}." for known in lines)):
            continue  # the branches of a union: the first says it
        line = f"{key}{_owner(detail['loc'], values)}: {_text(detail, model)}"
        variable = "IMAGORA_" + "__".join(str(part) for part in detail["loc"]).upper()
        if variable in environment:
            line += f" (set by {variable})"
        lines.setdefault(key, line)
    return list(lines.values())


def _key(location: tuple[int | str, ...]) -> str:
    key = ""
    for part in location:
        if isinstance(part, int):
            key += f"[{part}]"
        elif _is_union_branch(part):
            continue
        else:
            key += f".{part}" if key else part
    return key


def _is_union_branch(part: str) -> bool:
    return "[" in part or part in ("str", "constrained-str")


def _owner(location: tuple[int | str, ...], values: Mapping[str, Any]) -> str:
    """` (csrom41200)` for a problem inside one site or folder, so that nobody has to count tables."""
    match location:
        case (str(table), int(index), *_):
            entries = values.get(table)
            if isinstance(entries, list) and index < len(entries) and isinstance(entries[index], Mapping):
                name = entries[index].get("emetteur") or entries[index].get("name")
                return f" ({name})" if name else ""
    return ""


def _text(detail: ErrorDetails, model: type[BaseModel]) -> str:
    kind = detail["type"]
    context = detail.get("ctx", {})
    if kind == "value_error":
        return str(context.get("error", detail["msg"]))
    if kind == "extra_forbidden":
        return _unknown_key(detail["loc"], model)
    if kind in ("literal_error", "enum"):
        return f"write {context.get('expected', 'one of the known values')}"
    if kind in ("greater_than", "greater_than_equal", "less_than", "less_than_equal"):
        words = {"gt": "more than", "ge": "at least", "lt": "less than", "le": "at most"}
        bound = next(f"{words[name]} {context[name]}" for name in words if name in context)
        return f"must be {bound}"
    if kind == "string_too_long":
        return f"must have at most {context.get('max_length')} characters"
    return _ADVICE.get(kind, detail["msg"])


def _unknown_key(location: tuple[int | str, ...], model: type[BaseModel]) -> str:
    known = list(_fields(location[:-1], model))
    near = difflib.get_close_matches(str(location[-1]), known, n=1)
    if near:
        return f"unknown key: did you mean {near[0]}?"
    return f"unknown key: remove it. Known here: {', '.join(known)}"


def _fields(location: tuple[int | str, ...], model: type[BaseModel]) -> tuple[str, ...]:
    current: type[BaseModel] = model
    for part in location:
        if isinstance(part, str) and part in current.model_fields:
            annotation = current.model_fields[part].annotation
            inner = next((a for a in get_args(annotation) if isinstance(a, type)), annotation)
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                current = inner
    return tuple(current.model_fields)
