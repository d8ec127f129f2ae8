"""Bodies of the admin plane that are not a resource of the registry itself. Experts and strategies are in the manifest's models."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from experts_registry.fields import http_url

Name = Annotated[str, Field(min_length=1, max_length=128)]
SecretReference = Annotated[str, Field(pattern=r"^env:[A-Za-z_][A-Za-z0-9_]*$")]
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


class AggregatorOutcomeBody(StrictModel):
    """One graded synthesis, as exported."""

    expert_id: Name
    question_id: Name
    category: Name | None = None
    correct: bool
    answer: str = ""
    error: str | None = None


class ImportBody(StrictModel):
    """Outcomes measured elsewhere."""

    outcomes: list[OutcomeBody] = []
    aggregator_outcomes: list[AggregatorOutcomeBody] = []
    note: Annotated[str, Field(max_length=2000)] = "imported"
