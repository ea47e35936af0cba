"""Saved views of MLflow's runs page: experiment tags that its menu "Views" offers.

The schema is MLflow's own and undocumented (seen in 3.15 to 3.17). A view's id is stable, so that
publishing twice overwrites.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from netzip_mlflow.errors import NetzipError
from netzip_mlflow.metrics.catalogue import extra
from netzip_mlflow.report.style import BASELINE_COLOUR

__all__ = [
    "BASELINE_COLOUR",
    "OVERVIEW",
    "SEARCH",
    "TRADE_OFFS",
    "Group",
    "View",
    "encode",
    "link",
    "overview",
    "search",
    "tag",
    "trade_offs",
]

OVERVIEW, TRADE_OFFS, SEARCH = "netzip-overview", "netzip-trade-offs", "netzip-search"
TAG_LIMIT = 20_000
_TAG = "mlflow.sharedViewState."
_PARENTS = ("train", "compress", "measure", "compare", "search")
_FEASIBLE = ("validation/score/feasible", "score/feasible")
_RATIOS = ("ratio/P", "ratio/S", "ratio/C", "ratio/E", "ratio/its")
_COLUMNS = (
    "tags.`netzip.kind`",
    "tags.`netzip.chain`",
    "tags.`netzip.verdict`",
    "metrics.`score/ocs`",
    "metrics.`validation/score/ocs`",
    "metrics.`{accuracy}`",
    "metrics.`accuracy/drop_points`",
    "metrics.`speed/latency_ms`",
    "metrics.`ratio/its`",
    "metrics.`ratio/S`",
    "metrics.`size/disk_bytes`",
    "metrics.`ratio/C`",
)
_TRIAL_OCS, _TRIAL_DROP = "validation/score/ocs", "validation/accuracy/drop_points"
_TRIAL_COLUMNS = (
    "tags.`netzip.chain`",
    "tags.`netzip.trial`",
    f"metrics.`{_TRIAL_OCS}`",
    f"metrics.`{_TRIAL_DROP}`",
    "metrics.`validation/score/feasible`",
    "metrics.`ratio/S`",
    "metrics.`ratio/C`",
    "metrics.`size/disk_bytes`",
    "tags.`netzip.reason`",
)


@dataclass(frozen=True)
class Group:
    """The runs that may be ranked together: one baseline, basis, terms and fingerprint.

    Every field is the value of the tag ``netzip.<field>`` that those runs carry, the baseline's own
    run included; an empty one is not filtered on.
    """

    baseline: str
    basis: str
    terms: str
    fingerprint: str = ""

    def search_filter(self, metric_names: Iterable[str]) -> str:
        """MLflow's filter: no parents, this group only, feasible ones where that was judged.

        Tags allow neither IN nor OR there, so the parents are excluded one by one.

        Raises:
            NetzipError: a value holds a quote, which the filter's grammar cannot express.
        """
        clauses = [f"tags.`netzip.kind` != '{kind}'" for kind in _PARENTS]
        for name in ("baseline", "basis", "terms", "fingerprint"):
            value = getattr(self, name)
            if "'" in value:
                raise NetzipError(f"tag netzip.{name}: {value!r} holds a quote, cannot be a filter")
            if value:
                clauses.append(f"tags.`netzip.{name}` = '{value}'")
        known = set(metric_names)
        judged = next((key for key in _FEASIBLE if key in known), None)
        if judged:
            clauses.append(f"metrics.`{judged}` > 0")
        return " AND ".join(clauses)


@dataclass(frozen=True)
class View:
    """One saved view: its stable id, the name in the menu, and the page's state."""

    id: str
    name: str
    state: Mapping[str, Any]


def overview(metric_names: Iterable[str], group: Group, accuracy: str) -> View:
    """OCS and ratios as bars, accuracy against latency, size against accuracy.

    Args:
        metric_names: every metric key that the runs hold (the page would chart them all).
        group: the runs to show.
        accuracy: the key of the basis' accuracy.
    """
    names = set(metric_names)
    bars = [_bar(key, "score") for key in ("score/ocs", *_RATIOS) if key in names]
    plane = [
        _scatter("speed/latency_ms", accuracy, "planes"),
        _scatter("size/disk_bytes", accuracy, "planes"),
    ]
    sections = [_section("score", "Score and ratios", 3), _section("planes", "Against accuracy", 2)]
    return View(
        OVERVIEW,
        "NetZIP overview",
        _state(names, group, accuracy, [*bars, *plane], sections),
    )


def trade_offs(metric_names: Iterable[str], group: Group, accuracy: str) -> View:
    """Parallel coordinates of what is gained and what it costs, and speed against compression."""
    names = set(metric_names)
    wanted = (accuracy, "accuracy/drop_points", *_RATIOS[1:], "score/ocs")
    parallel = {
        "type": "PARALLEL",
        "uuid": "netzip-parallel",
        "metricSectionId": "trade",
        "selectedParams": [],
        "selectedMetrics": [key for key in wanted if key in names],
        "showAllRuns": True,
    }
    planes = [
        _scatter("ratio/its", "accuracy/drop_points", "planes"),
        _scatter("ratio/C", "accuracy/drop_points", "planes"),
    ]
    sections = [_section("trade", "Trade-offs", 1), _section("planes", "Gain against loss", 2)]
    return View(
        TRADE_OFFS,
        "NetZIP trade-offs",
        _state(names, group, accuracy, [parallel, *planes], sections),
    )


def search(metric_names: Iterable[str], parent: str, parameters: Sequence[str]) -> View:
    """The trials of one search, the highest OCS on validation first.

    Args:
        metric_names: every metric key that the trials hold.
        parent: id of the search's run.
        parameters: params that every judged trial has: the page leaves a run out of the parallel
            coordinates that lacks one.
    """
    names = {*metric_names, _TRIAL_OCS, _TRIAL_DROP}
    charts = [
        _bar(_TRIAL_OCS, "trials"),
        _scatter(_TRIAL_DROP, _TRIAL_OCS, "trials"),
        _scatter("ratio/C", _TRIAL_DROP, "trials"),
        _scatter("ratio/S", _TRIAL_DROP, "trials"),
        {
            "type": "PARALLEL",
            "uuid": "netzip-parallel",
            "metricSectionId": "parameters",
            "selectedParams": list(parameters),
            "selectedMetrics": ["ratio/S", "ratio/C", _TRIAL_DROP, _TRIAL_OCS],
            "showAllRuns": True,
        },
    ]
    sections = [_section("trials", "OCS and drop", 2), _section("parameters", "Parameters", 1)]
    state = {
        **_page(names, _TRIAL_COLUMNS, charts, sections),
        "searchFilter": f"tags.`netzip.kind` = 'trial' AND tags.`netzip.parent` = '{parent}'",
        "orderByKey": f"metrics.`{_TRIAL_OCS}`",
        "orderByAsc": False,
    }
    return View(SEARCH, "Search", state)


def encode(state: Mapping[str, Any]) -> str:
    """The state as the page stores it: ``deflate;`` and base64 of zlib-compressed JSON."""
    text = json.dumps(state, separators=(",", ":")).encode()
    return "deflate;" + base64.b64encode(zlib.compress(text, level=9)).decode("ascii")


def tag(view: View, *, now_ms: int) -> tuple[str, str]:
    """Key and value of the experiment tag that publishes a view at a time in ms since 1970.

    Raises:
        NetzipError: the value exceeds the 20,000 characters that the page accepts.
    """
    value = json.dumps(
        {
            "name": view.name,
            "createdAt": now_ms,
            "updatedAt": now_ms,
            "state": encode(view.state),
        }
    )
    if len(value) >= TAG_LIMIT:
        raise NetzipError(
            f"saved view {view.name!r} takes {len(value):,} characters, MLflow accepts fewer than "
            f"{TAG_LIMIT:,}: the runs hold too many metrics"
        )
    return _TAG + view.id, value


def link(experiment_id: str, view_id: str) -> str:
    """The page's address of a view, relative to the server; any further facet would disable it."""
    return (
        f"#/experiments/{experiment_id}/runs?viewStateShareKey={view_id}"
        "&compareRunsMode=CHART&workflowType=machine_learning"
    )


def _state(
    names: set[str],
    group: Group,
    accuracy: str,
    charts: Sequence[Mapping[str, Any]],
    sections: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    columns = [column.format(accuracy=accuracy) for column in _COLUMNS]
    further = (f"metrics.`{key}`" for key in extra(names) if key != accuracy)
    columns = [*columns, *further]
    return {
        **_page(names, columns, charts, sections),
        "searchFilter": group.search_filter(names),
        "orderByKey": "tags.`netzip.kind`",  # ascending: the baseline stands before candidates
        "orderByAsc": True,
    }


def _page(
    names: set[str],
    columns: Sequence[str],
    charts: Sequence[Mapping[str, Any]],
    sections: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """The page's state without which runs it shows, and in what order."""
    charted = {chart.get("metricKey") for chart in charts}
    home = sections[0]["uuid"]
    # the page adds a chart for every metric that none names: say that those were removed
    removed = [
        {**_bar(key, home), "deleted": True, "isGenerated": True} for key in sorted(names - charted)
    ]
    return {
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": list(columns),
        "runsHiddenMode": "SHOW_ALL",
        "hideEmptyCharts": True,
        "viewMaximized": False,
        "compareRunCharts": [*charts, *removed],
        "compareRunSections": list(sections),
    }


def _bar(key: str, section: str) -> dict[str, Any]:
    return {
        "type": "BAR",
        "uuid": f"netzip-bar-{key}",
        "metricSectionId": section,
        "metricKey": key,
        "runsCountToCompare": 20,
    }


def _scatter(x: str, y: str, section: str) -> dict[str, Any]:
    return {
        "type": "SCATTER",
        "uuid": f"netzip-scatter-{x}-{y}",
        "metricSectionId": section,
        "xaxis": {"key": x, "type": "METRIC"},
        "yaxis": {"key": y, "type": "METRIC"},
        "runsCountToCompare": 100,
    }


def _section(uuid: str, name: str, columns: int) -> dict[str, Any]:
    return {
        "uuid": uuid,
        "name": name,
        "display": True,
        "isReordered": False,
        "deleted": False,
        "isGenerated": False,
        "columns": columns,
        "cardHeight": 360 if columns > 1 else 480,
    }
