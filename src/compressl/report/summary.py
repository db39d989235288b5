"""What was learnt, in sentences computed from the figures.

One representation is called better than another only if both were measured on the same test images, with classifiers
fitted the same way, and the 95 % bootstrap interval of the paired difference excludes 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from compressl.measures.intervals import Estimate, bootstrap_mean
from compressl.report.reading import BASELINES, MEASURES, Evaluated, Measured, Run

Verdict = Literal["better", "worse", "indistinguishable", "not comparable"]
STATUS = {
    "finished": "finished",
    "running": "still running, or ended without a word",
    "interrupted": "interrupted; the same command continues it",
    "failed": "failed",
}


@dataclass(frozen=True)
class Comparison:
    """The first against the second, by one measure."""

    first: str
    second: str
    measure: str
    difference: Estimate | None
    """Of the accuracies, first minus second, over the same test images."""
    reason: str = ""
    """Why they are not comparable."""

    @property
    def verdict(self) -> Verdict:
        if self.difference is None:
            return "not comparable"
        if self.difference.low > 0:
            return "better"
        return "worse" if self.difference.high < 0 else "indistinguishable"


@dataclass(frozen=True)
class Summary:
    """The headline, and what else there is to say, most important first."""

    headline: str
    findings: list[str]


def percent(share: float) -> str:
    """
    >>> percent(0.8642)
    '86.4\\u202f%'
    """
    return f"{100 * share:.1f}\u202f%".replace("-", "−")


def points(share: float, *, sign: bool = True) -> str:
    """A difference of percentages.

    >>> points(-0.0251), points(0.012)
    ('−2.5', '+1.2')
    """
    text = f"{100 * share:+.1f}" if sign else f"{100 * abs(share):.1f}"
    return text.replace("+0.0", "0.0").replace("-0.0", "0.0").replace("-", "−")


def interval(difference: Estimate) -> str:
    return f"{points(difference.low)} to {points(difference.high)}"


def compare(first: Run, second: Run, measure: str) -> Comparison:
    """Two encoders by one measure."""
    one, other = first.scored, second.scored
    if one is None or other is None:
        return Comparison(first.name, second.name, measure, None, "the accuracy of one is not known")
    difference = None
    if not (reason := obstacle(one, other)):
        difference = paired(one.results["encoder"][measure], other.results["encoder"][measure])
        reason = "" if difference else "which test images were right is not on record"
    return Comparison(first.name, second.name, measure, difference, reason)


def against_baseline(run: Run, baseline: str, measure: str) -> Comparison | None:
    """An encoder beside one of its own baselines, if that was measured."""
    if run.scored is None or baseline not in run.scored.results:
        return None
    results = run.scored.results
    difference = paired(results["encoder"][measure], results[baseline][measure])
    return Comparison(run.name, BASELINES[baseline], measure, difference)


def obstacle(one: Evaluated, other: Evaluated) -> str:
    """Why two evaluations are not comparable, or nothing."""
    if not one.data.get("test_fingerprint") or one.ground[0] != other.ground[0]:
        return "they were tested on other images"
    if one.ground[1] != other.ground[1]:
        return f"their classifiers were fitted on {one.ground[1]} and {other.ground[1]} training images"
    return "" if one.ground == other.ground else "their classifiers were fitted by other rules"


def paired(first: Measured, second: Measured) -> Estimate | None:
    """The difference of two accuracies with its interval, image by image; None where that is not possible."""
    if first.correct is None or second.correct is None or len(first.correct) != len(second.correct):
        return None
    return bootstrap_mean(first.correct.astype(float) - second.correct.astype(float))


def summarize(runs: Sequence[Run]) -> Summary:
    """The headline and the findings for one or several runs."""
    evaluated = [run for run in runs if run.scored]
    findings = []
    if not evaluated:
        headline = progress(runs[0]) if len(runs) == 1 else _unscored(runs)
    elif len(evaluated) == 1:
        headline = standing(evaluated[0], "linear")
        findings.append(standing(evaluated[0], "knn"))
    else:
        headline, findings = _ranking(evaluated)
        findings += [standing(run, "linear") for run in evaluated]
    for run in runs:
        if headline != progress(run) and (run.scored is None or run.status != "finished"):
            findings.append(progress(run))
        findings += [f"{run.name}: {file} is damaged and was left out." for file in run.damaged]
    return Summary(headline, findings)


def progress(run: Run) -> str:
    """How far a training came."""
    total = run.settings.get("epochs")
    where = f"step {run.steps:,}, epoch {run.epochs:,}" + (f" of {total:,}" if isinstance(total, int) else "")
    if not run.steps:
        where = "no step is on record"
    missing = " Its accuracy has not been measured." if run.evaluation else " It has not been evaluated."
    missing = "" if run.scored else missing
    match run.status:
        case "finished":
            return f"{run.name} has finished its training: {where}.{missing}"
        case "running":
            return f"{run.name} is still running, or ended without a word: {where}.{missing}"
        case "interrupted":
            return f"{run.name} was interrupted: {where}; the same command continues it.{missing}"
        case "failed":
            return f"{run.name} failed: {run.reason.rstrip('.') or 'no reason is on record'} ({where}).{missing}"
    return f"{run.name} has no record of its state: {where}.{missing}"


def _unscored(runs: Sequence[Run]) -> str:
    """The headline where no accuracy is known."""
    if any(run.evaluation for run in runs):
        return "The accuracy of none of the runs has been measured."
    return "None of the runs has been evaluated yet."


def standing(run: Run, measure: str) -> str:
    """An encoder beside its baselines by one measure."""
    assert run.scored is not None
    share = percent(run.scored.results["encoder"][measure].estimate.value)
    compared = [c for b in BASELINES if (c := against_baseline(run, b, measure))]
    how = "a linear probe on its features gets" if measure == "linear" else "nearest neighbours among its features get"
    text = f"{run.name}: {how} {share} of the test images right"
    return text + (f", {_join([_clause(c) for c in compared])}." if compared else ".")


def _clause(comparison: Comparison) -> str:
    difference, other = comparison.difference, comparison.second
    if difference is None:
        return f"not compared with {other}"
    size = points(difference.value, sign=False)
    if comparison.verdict == "indistinguishable":
        return (
            f"level with {other} (a difference of {points(difference.value)} points, interval {interval(difference)})"
        )
    return f"{size} points {'more' if comparison.verdict == 'better' else 'fewer'} than {other}"


def _ranking(runs: Sequence[Run]) -> tuple[str, list[str]]:
    grounds = {run.scored.ground for run in runs if run.scored}
    if len(grounds) > 1 or None in {ground[0] for ground in grounds}:
        first = runs[0]
        odd = next((r for r in runs[1:] if compare(first, r, "linear").difference is None), runs[1])
        reason = compare(first, odd, "linear").reason
        return f"{_join([run.name for run in runs])} cannot {'all ' * (len(runs) > 2)}be compared: {reason}.", [
            sentence(compare(run, other, measure))
            for i, run in enumerate(runs)
            for other in runs[i + 1 :]
            for measure in MEASURES
            if compare(run, other, measure).difference
        ]
    best, *rest = sorted(runs, key=lambda run: -_accuracy(run))
    comparisons = [compare(best, other, "linear") for other in rest]
    level = [c for c in comparisons if c.verdict != "better"]
    behind = [c.second for c in (compare(best, other, "knn") for other in rest) if c.verdict == "worse"]
    if len(rest) == 1:
        headline = _duel(comparisons[0], best, rest[0])
    elif not level:
        headline = (
            f"Of {len(runs)} runs {best.name} is best: a linear probe gets {percent(_accuracy(best))} of the test "
            f"images right, against {percent(_accuracy(rest[0]))} for {rest[0].name}, the next."
        )
    else:
        headline = (
            f"Of {len(runs)} runs none is clearly best: {best.name} leads with {percent(_accuracy(best))} of the test "
            f"images right by a linear probe, but cannot be told from {_join([c.second for c in level])}."
        )
    if behind and not level:
        headline += f" By nearest neighbours, however, {_join(behind)} is better."
    beaten = [against_baseline(best, b, "linear") for b in BASELINES]
    if fails := [c.second for c in beaten if c and c.verdict != "better"]:
        headline += f" {best.name} does not beat {_join(fails, 'or')}."
    findings = [] if len(rest) == 1 else [sentence(c) for c in comparisons]
    return headline, findings + [sentence(compare(best, other, "knn")) for other in rest]


def _duel(comparison: Comparison, best: Run, second: Run) -> str:
    """The headline for two runs, the better first."""
    difference, shares = comparison.difference, (percent(_accuracy(best)), percent(_accuracy(second)))
    if difference is None:
        return sentence(comparison)
    if comparison.verdict == "better":
        return (
            f"{best.name} is better than {second.name}: a linear probe gets {shares[0]} of the test images right "
            f"against {shares[1]}, {points(difference.value)} points (95\u202f% interval {interval(difference)})."
        )
    return (
        f"{best.name} and {second.name} cannot be told apart: a linear probe gets {shares[0]} and {shares[1]} of the "
        f"test images right, and the 95\u202f% interval of the difference, {interval(difference)} points, includes 0."
    )


def sentence(comparison: Comparison) -> str:
    """A comparison in words."""
    first, second, difference = comparison.first, comparison.second, comparison.difference
    by = MEASURES[comparison.measure]
    if difference is None:
        return f"{first} and {second} cannot be compared: {comparison.reason}."
    if comparison.verdict == "indistinguishable":
        return (
            f"By {by}, {first} and {second} cannot be told apart: the 95\u202f% interval of the difference, "
            f"{interval(difference)} points, includes 0."
        )
    return (
        f"By {by}, {first} is {comparison.verdict} than {second}: {points(difference.value)} points on the same test "
        f"images (95\u202f% interval {interval(difference)})."
    )


def _accuracy(run: Run) -> float:
    return run.scored.results["encoder"]["linear"].estimate.value if run.scored else 0.0


def _join(words: Sequence[str], last: str = "and") -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"
