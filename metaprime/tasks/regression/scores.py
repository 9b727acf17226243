"""Scores numbers; the correlations are SciPy's, the squared error is scikit-learn's.

Answers that are all alike correlate with nothing: their coefficient, which has no value, counts as 0, as
Matthews' does for classes, and the details say that they are constant. Ranks are no sums over examples: intervals
of these scores are over seeds alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from metaprime.data.rows import Example
from metaprime.tasks.regression.settings import MetricName
from metaprime.tasks.task import Metric, Scores, Trivial

BY_NAME: dict[MetricName, Metric] = {
    "correlation": Metric(
        "correlation",
        ("correlation",),
        "correlation",
        heading="correlation",
        unit="x 100",
        note="mean of Pearson's and Spearman's",
    ),
    "pearson": Metric("Pearson correlation", ("pearson",), "pearson", short="Pearson", heading="Pearson", unit="x 100"),
    "spearman": Metric("Spearman correlation", ("spearman",), "spearman", short="Spearman", unit="x 100"),
    "mse": Metric("mean squared error", ("mse",), "mse", short="MSE", unit="", higher_is_better=False),
}
"""Metrics by the values of `task.metric`."""

TRIVIAL = Trivial("Answering the mean target always", lambda details, metric: metric.of(details["mean"]))


def metrics_of(first: MetricName) -> tuple[Metric, ...]:
    """Returns all metrics, the one that models are chosen by first: `metrics_of("mse")[0].label`."""
    return (BY_NAME[first], *(metric for name, metric in BY_NAME.items() if name != first))


def score(examples: Sequence[Example], predicted: Sequence[float], headline: MetricName) -> Scores:
    """Scores predicted numbers.

    Args:
        examples: `gold` is a number.
        predicted: one number for each text.
        headline: the metric by which models are chosen.

    Returns:
        Scores with the details `texts`, `correlation`, `pearson`, `spearman` (x 100), `mse`, `constant`, and
        `mean`: the mean target, and the same scores of answering it always.

    Raises:
        ValueError: there is no text, or not as many answers.

    Example: `score(examples, [example.gold for example in examples], "pearson").headline` is 100.
    """
    # Imported here: it takes a second, and no start of a run scores anything.
    from scipy.stats import pearsonr, spearmanr
    from sklearn.metrics import mean_squared_error

    gold = np.array([example.gold for example in examples], dtype=np.float64)
    answers = np.array(predicted, dtype=np.float64)
    constant = bool(np.ptp(answers) == 0)
    undefined = constant or np.ptp(gold) == 0 or len(gold) < 2
    pearson = 0.0 if undefined else 100 * float(pearsonr(gold, answers).statistic)
    spearman = 0.0 if undefined else 100 * float(spearmanr(gold, answers).statistic)
    details = {
        "texts": len(gold),
        "correlation": (pearson + spearman) / 2,
        "pearson": pearson,
        "spearman": spearman,
        "mse": float(mean_squared_error(gold, answers)),
        "mean": {
            "answer": float(gold.mean()),
            "correlation": 0.0,
            "pearson": 0.0,
            "spearman": 0.0,
            "mse": float(gold.var()),
        },
        "constant": constant,
    }
    return Scores(BY_NAME[headline].of(details), details)
