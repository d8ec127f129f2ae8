"""``experts.yaml``: experts, strategies and skills in one file, read strictly, written so that it reads back the same."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Annotated, Any, Self, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, model_validator

from domain.errors import InvalidRequest
from domain.experts import ExpertCard
from domain.nearest import did_you_mean
from domain.routing import PickRule
from domain.strategy import Strategy
from experts_registry.models import ExpertModel, Name, StrategyModel, Text

ModelT = TypeVar("ModelT", bound=BaseModel)
SkillDescription = Annotated[Text, BeforeValidator(lambda value: "" if value is None else value)]

_WANTED: Mapping[str, str] = {
    "missing": "is missing",
    "string_type": "must be text; put it in quotes",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "too_short": "must not be empty",
    "string_too_short": "must not be empty",
    "list_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
    "invalid-json-value": "must be a JSON value: text, number, true or false, null, list or mapping",
    "string_unicode": "must not hold half a surrogate pair",
}
"""By pydantic's error type; its own words are for programmers."""
_TYPE_NAMES = frozenset({"[key]", "bool", "dict", "float", "int", "list", "none", "str"})
"""What pydantic puts into the path of an error inside a free JSON value."""
_MAX_PROBLEMS = 20
"""Problems told at once; a broken file has many, and the first ones are read."""


class Manifest(BaseModel):
    """The whole file. A key that is left out says nothing: applying with ``prune`` removes nothing of that kind."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, title="experts.yaml", use_attribute_docstrings=True)

    experts: list[ExpertModel] = []
    """The experts, in any order."""
    strategies: list[StrategyModel] = []
    """The strategies, each a virtual model."""
    skills: dict[Name, SkillDescription] = {}
    """Skill name to a sentence on what it covers."""

    @model_validator(mode="after")
    def _ids_are_distinct(self) -> Self:
        for kind, items in (("expert", self.experts), ("strategy", self.strategies)):
            seen: set[str] = set()
            for item in items:
                if item.id in seen:
                    raise ValueError(f"{kind} {item.id!r} stands twice")
                seen.add(item.id)
        return self

    def to_cards(self) -> list[ExpertCard]:
        """The experts as cards, in the order of the file."""
        return [expert.to_card() for expert in self.experts]

    def to_strategies(self) -> list[Strategy]:
        """The strategies, in the order of the file."""
        return [strategy.to_strategy() for strategy in self.strategies]


def load_manifest(text: str) -> Manifest:
    """Read a manifest. Raises ``InvalidRequest`` that names line or field, and the nearest valid value."""
    try:
        document = yaml.load(text, _Loader)  # noqa: S506  # a SafeLoader
    except yaml.MarkedYAMLError as error:
        where = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InvalidRequest(f"the manifest is no valid YAML{where}: {error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise InvalidRequest(f"the manifest is no valid YAML: {error}") from error
    except RecursionError:
        raise InvalidRequest("the manifest is nested too deeply") from None
    if not isinstance(document, dict):
        raise InvalidRequest(f"the manifest must be a mapping with the keys {', '.join(Manifest.model_fields)}")
    return parse(Manifest, document)


def export(cards: Iterable[ExpertCard], strategies: Iterable[Strategy], skills: Mapping[str, str]) -> str:
    """A manifest that declares exactly these; what equals its default is left out, and so are versions."""
    document = {
        "experts": [_sparse(ExpertModel.from_card(card)) for card in sorted(cards, key=lambda card: card.id)],
        "strategies": [_strategy_row(item) for item in sorted(strategies, key=lambda item: item.id)],
        "skills": dict(sorted(skills.items())),
    }
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def json_schema() -> dict[str, Any]:
    """The manifest's JSON schema, for editors; published as ``docs/experts.schema.json``."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Manifest.model_json_schema()}


def parse(model: type[ModelT], data: Any) -> ModelT:
    """*data* as *model*. Raises ``InvalidRequest``: one line per problem, each with the field and what it must be."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        problems = [_problem(model, data, details) for details in error.errors(include_url=False, include_input=False)]
    except RecursionError:
        raise InvalidRequest("the input is nested too deeply") from None
    lines = [f"{path}: {says}" if path else says for path, says in problems[:_MAX_PROBLEMS]]
    if len(problems) > _MAX_PROBLEMS:
        lines.append(f"… and {len(problems) - _MAX_PROBLEMS} more")
    # Without the cause: pydantic's error repeats the input, which may hold a secret.
    raise InvalidRequest("\n".join(lines), param=problems[0][0] or None) from None


def _problem(model: type[BaseModel], data: Any, details: Any) -> tuple[str, str]:
    """Where it is wrong, as a dotted path, and what is wanted there."""
    loc = _in_data(details["loc"], data)
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).lstrip(".")
    if details["type"] == "extra_forbidden":
        return path, f"unknown key; {did_you_mean(str(loc[-1]), _fields_at(model, loc[:-1]))}"
    if details["type"] == "value_error":
        return path, str(details["ctx"]["error"])
    message = details["msg"].removeprefix("Input ").removeprefix("should ")
    return path, _WANTED.get(details["type"], f"must {message}" if message != details["msg"] else message)


def _in_data(loc: tuple[str | int, ...], data: Any) -> tuple[str | int, ...]:
    """*loc* without the type names that pydantic puts between: those of which *data* has nothing."""
    kept: list[str | int] = []
    here = data
    for part in loc:
        found = (isinstance(here, dict) and part in here) or (isinstance(here, list) and isinstance(part, int) and part < len(here))
        if found:
            here = here[part]
        if found or part not in _TYPE_NAMES:
            kept.append(part)
    return tuple(kept)


def _fields_at(model: type[BaseModel], loc: tuple[str | int, ...]) -> tuple[str, ...]:
    """The field names of the model at *loc* inside *model*."""
    here: Any = model
    for part in loc:
        if isinstance(part, str):
            here = _model_in(here.model_fields[part].annotation)
    return tuple(here.model_fields)


def _model_in(annotation: Any) -> Any:
    """The model that *annotation* is or is a list of."""
    arguments = getattr(annotation, "__args__", ())
    return _model_in(arguments[0]) if arguments else annotation


def _strategy_row(strategy: Strategy) -> dict[str, Any]:
    row = _sparse(StrategyModel.from_strategy(strategy))
    if strategy.pick == PickRule.of(strategy.pick.kind, strategy.pick.k):
        del row["pick"]["threshold"]  # the kind's own
    return {name: value for name, value in row.items() if name != "pick" or value}


def _sparse(model: BaseModel) -> dict[str, Any]:
    return model.model_dump(mode="json", exclude={"version"}, exclude_defaults=True)


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice: YAML's own loader silently keeps the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable):
                if key in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} stands twice", key_node.start_mark)
                seen.add(key)
        return super().construct_mapping(node, deep=deep)


class _Dumper(yaml.SafeDumper):
    """Quotes a text with NEL (U+0085), which YAML's own dumper writes as a line break that reads back as a space."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        return self.represent_scalar("tag:yaml.org,2002:str", data, style='"' if "\x85" in data else None)


_Dumper.add_representer(str, _Dumper.represent_str)
