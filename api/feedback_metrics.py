"""What a scrape reads about feedback."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from api.metrics import MAX_LABEL_VALUES, Metrics
from domain.feedback import FeedbackView


class FeedbackGauges(Protocol):
    """What is read of ``orchestrator.feedback.service.FeedbackService``."""

    num_given: int
    num_rolled_back: int
    num_taught: int

    @property
    def view(self) -> FeedbackView: ...


def watch_feedback(metrics: Metrics, gauges: FeedbackGauges) -> None:
    """Show what users said, and what it says of experts."""
    metrics.counter("consilium_feedback_given", "Things said about answers.", lambda: gauges.num_given)
    metrics.counter("consilium_feedback_rolled_back", "Feedback taken back.", lambda: gauges.num_rolled_back)
    metrics.counter("consilium_feedback_taught", "Updates of routers that learn online.", lambda: gauges.num_taught)
    metrics.registry.register(_FeedbackCollector(gauges))


class _FeedbackCollector:
    """Reads the view at each scrape, so that an expert that was removed leaves no stale series."""

    def __init__(self, gauges: FeedbackGauges) -> None:
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        labels = ["expert"]
        accuracy = GaugeMetricFamily("consilium_prequential_accuracy", "Mean score of the expert's last answers, by users.", labels=labels)
        said = GaugeMetricFamily("consilium_expert_feedback", "Feedback that speaks of the expert and counts.", labels=labels)
        drifted = GaugeMetricFamily("consilium_expert_drifted", "1 while the expert answers worse than it used to.", labels=labels)
        alarms = CounterMetricFamily("consilium_drift_alarms", "Alarms: worse than before, or as before again.", labels=labels)
        frozen = GaugeMetricFamily("consilium_expert_feedback_frozen", "1 while the expert's figures have settled.", labels=labels)
        for found in list(self._gauges.view.experts.values())[:MAX_LABEL_VALUES]:
            name = [found.expert_id]
            if found.accuracy is not None:
                accuracy.add_metric(name, found.accuracy)
            said.add_metric(name, found.num_feedback)
            drifted.add_metric(name, float(found.drifted))
            alarms.add_metric(name, found.num_alarms)
            frozen.add_metric(name, float(found.frozen))
        yield from (accuracy, said, drifted, alarms, frozen)
