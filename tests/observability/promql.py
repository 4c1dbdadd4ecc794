"""What an expression of PromQL asks for: the metrics, and the labels that it names."""

import re
from typing import NamedTuple

_SELECTOR = re.compile(r"\b([a-zA-Z_:][\w:]*)\{([^}]*)\}")
_MATCHER = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"")
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)")
# What Grafana puts in the place of its variables.
_VARIABLES = {"$__rate_interval": "1m", "$job": "segmentd", "$instance": ".+"}


class Asked(NamedTuple):
    """selected: metric → labels that it is selected by. grouped: labels of the result."""

    selected: dict[str, set[str]]
    grouped: set[str]


def asked(expression: str) -> Asked:
    """Every metric has braces in the dashboard, so that a name without them is noticed as none."""
    selected: dict[str, set[str]] = {}
    for name, matchers in _SELECTOR.findall(expression):
        selected.setdefault(name, set()).update(_MATCHER.findall(matchers))
    grouped = {
        label.strip() for labels in _GROUPING.findall(expression) for label in labels.split(",") if label.strip()
    }
    return Asked(selected, grouped)


def without_variables(expression: str) -> str:
    """The expression as Grafana would send it."""
    for name, value in _VARIABLES.items():
        expression = expression.replace(name, value)
    return expression
