"""Bodies of the admin plane that are not a resource of the registry itself. Experts and strategies are in the manifest's models."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from domain.memory import LOCAL_TENANT, MAX_PROBLEM_CHARS, MAX_SOLUTION_CHARS
from experts_registry.fields import environment_reference, http_url, storable

Name = Annotated[str, Field(min_length=1, max_length=128)]
StorableName = Annotated[Name, AfterValidator(storable)]
SecretReference = Annotated[str, Field(pattern=r"^env:[A-Za-z_][A-Za-z0-9_]*$"), AfterValidator(environment_reference)]
"""Where a secret is found; never the secret itself."""


class StrictModel(BaseModel):
    """An unknown key is an error, and so is a value of another type."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class DiscoverBody(StrictModel):
    """Which server to look at."""

    base_url: Annotated[str, AfterValidator(http_url), Field(description="With its /v1.")]
    api_key: SecretReference | None = None
    save: bool = False
    """Add the models that are not experts yet."""


class ManifestBody(StrictModel):
    """A manifest as text."""

    yaml: str


class QuestionsBody(StrictModel):
    """Labelled questions to store."""

    questions: Annotated[list[dict[str, Any]], Field(min_length=1)]
    """Each as one line of the JSONL: question, answer, and id, category, skills, options, grader, history."""
    source: Annotated[str, Field(max_length=500)] = "api"
    """Where they come from."""


class QuestionBody(StrictModel):
    """One labelled question, as a line of the JSONL."""

    id: str | None = None
    """That of the address; elsewhere, left out, made from the content."""
    question: str
    answer: str | float
    category: str | None = None
    skills: list[str] | None = None
    options: list[str] | None = None
    grader: str | None = None
    history: list[dict[str, Any]] | None = None


MAX_PROBLEMS = 500
"""Solved problems in one request: each is encoded before the answer, some three milliseconds."""


class SolvedProblemBody(StrictModel):
    """A problem with an answer that you vouch for."""

    question: Annotated[str, Field(min_length=1, max_length=MAX_PROBLEM_CHARS)]
    answer: Annotated[str, Field(min_length=1, max_length=MAX_SOLUTION_CHARS)]
    """As it is shown to experts: the way to it as well, where that helps."""
    skills: Annotated[list[StorableName], Field(max_length=32)] = []
    expert: Annotated[str, Field(max_length=64), AfterValidator(storable)] | None = None
    """Whose answer it is, where one expert's."""


class SolvedProblemsBody(StrictModel):
    """What one tenant's memory is to hold besides what it holds."""

    tenant: Annotated[str, Field(min_length=1, max_length=64)] = LOCAL_TENANT
    """A key's id; `_local` is who comes in without a stored one."""
    problems: Annotated[list[SolvedProblemBody], Field(min_length=1, max_length=MAX_PROBLEMS)]


class ResumeBody(StrictModel):
    """How to go on with a run."""

    max_in_flight: Annotated[int, Field(ge=1, le=1024)] = 16
    """Questions at once per expert; an expert's own limit also holds."""
    judge: Name | None = None
    """The expert that grades questions whose grader is `judge`."""


class ProfileRunBody(ResumeBody):
    """A measurement of experts over labelled questions."""

    experts: Annotated[list[Name] | None, Field(min_length=1)] = None
    """Which; all enabled candidates when left out."""
    questions: Annotated[list[Name] | None, Field(min_length=1)] = None
    """Ids; all labelled questions when left out."""
    limit: Annotated[int | None, Field(ge=1)] = None
    """At most so many questions, spread evenly over the skills."""
    skills: Annotated[list[Name] | None, Field(min_length=1)] = None
    """Only questions of these skills."""
    note: Annotated[str, Field(max_length=2000)] = ""


class AggregatorRunBody(ResumeBody):
    """A measurement of aggregators: one right and two wrong answers, who finds the right one?"""

    experts: Annotated[list[Name] | None, Field(min_length=1)] = None
    """Which; all enabled experts with the role aggregator when left out."""
    skills: Annotated[list[Name] | None, Field(min_length=1)] = None
    """Only questions of these skills."""
    max_per_category: Annotated[int | None, Field(ge=1)] = None
    min_wrong: Annotated[int, Field(ge=0, le=2)] = 2
    """Real wrong answers that a question needs; blanks fill up to two."""
    seed: int = 0


class EvaluationBody(StrictModel):
    """What strategies are worth on labelled questions."""

    name: Annotated[str, Field(min_length=1, max_length=100)]
    questions: Annotated[list[dict[str, Any]], Field(min_length=1)]
    """Each as one line of the JSONL: question, answer, and id, category, skills, options, grader, history. Those that experts were measured
    on are left out."""
    strategies: Annotated[list[Name] | None, Field(min_length=1)] = None
    """Which; all enabled ones when left out."""
    calls: Annotated[int, Field(ge=2, le=16)] = 3
    """That votes and samples make, the baselines with several calls."""
    limit: Annotated[int | None, Field(ge=1, le=100_000)] = None
    """At most so many questions, spread evenly over them."""
    max_in_flight: Annotated[int, Field(ge=1, le=256)] = 8
    """Questions at once."""


class CalibrateBody(ResumeBody):
    """How to choose a cascade's threshold."""

    max_in_flight: Annotated[int, Field(ge=1, le=1024)] = 8
    """Questions at once."""
    questions: Annotated[list[Name] | None, Field(min_length=1)] = None
    """Ids; all labelled questions when left out."""
    skills: Annotated[list[Name] | None, Field(min_length=1)] = None
    """Only questions of these skills."""
    limit: Annotated[int, Field(ge=1, le=2000)] = 200
    """At most so many questions, spread evenly over the skills."""
    target_cost: Annotated[float | None, Field(gt=0, le=10, allow_inf_nan=False)] = None
    """Of what asking the last expert every time costs; the best threshold within it is chosen."""
    escalation_rate: Annotated[float | None, Field(ge=0, le=1, allow_inf_nan=False)] = None
    """Share of the questions for which another than the first expert may be asked."""
    dry_run: bool = False
    """Only tell what would be chosen."""


class OutcomeBody(StrictModel):
    """One graded answer, as exported."""

    expert_id: Name
    question_id: Name
    skills: list[Name] = []
    category: Name | None = None
    correct: bool
    answer: str = ""
    latency_ms: Annotated[float, Field(ge=0)] = 0.0
    error: str | None = None
    expert_fingerprint: Annotated[str | None, Field(max_length=64)] = None
    """Of the card that the expert had when it was asked; when left out, that of the card that is here. An answer of another card is kept
    and counts for nothing."""


class AggregatorOutcomeBody(StrictModel):
    """One graded synthesis, as exported."""

    expert_id: Name
    question_id: Name
    category: Name | None = None
    correct: bool
    answer: str = ""
    error: str | None = None
    expert_fingerprint: Annotated[str | None, Field(max_length=128)] = None
    """As of a graded answer."""


class ImportBody(StrictModel):
    """Outcomes measured elsewhere."""

    outcomes: list[OutcomeBody] = []
    aggregator_outcomes: list[AggregatorOutcomeBody] = []
    note: Annotated[str, Field(max_length=2000)] = "imported"
