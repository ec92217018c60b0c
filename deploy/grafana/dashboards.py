"""
The dashboards as code: writes dashboards/exits.json and dashboards/service.json beside this file.

    python deploy/grafana/dashboards.py

- the JSON is committed, because Grafana reads that; a test fails when it isn't what this file writes
- every panel asks Prometheus through the variable `datasource` and, where a metric has a model, about `model`
- series named with colons (job:..., model:...) are recorded by ../prometheus/rules, all others exported by the service
"""

import json
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders import barchart, common, dashboard, heatmap, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    GraphThresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    StackingMode,
    TooltipDisplayMode,
    VisibilityMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    DataTransformerConfig,
    Threshold,
    ThresholdsMode,
    VariableOption,
    VariableRefresh,
    VariableSort,
)
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode, HeatmapColorScale
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

FOLDER = Path(__file__).parent / "dashboards"
SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
MODEL = 'model=~"$model"'
SERVICE = 'job="beexformer"'  # for series that every process of the world exports: up, process_*
RATE = "[$__rate_interval]"
PHASES = {
    "tokenize": "From text to tokens. Grows with the length of texts.",
    "queue": "Waiting, before and between turns, while others have theirs. The first to grow under load: see Lag.",
    "compute": "The text's own blocks, all turns together.",
}
DRIFT = [("green", None), ("yellow", 0.1), ("red", 0.25)]

Query = tuple[str, str]  # expression, legend
Steps = list[tuple[str, float | None]]
Builder = Any  # panel builders share methods, but no base class that has them


def panel(builder: Builder, title: str, text: str, unit: str, *queries: Query, steps: Steps | None = None) -> Builder:
    """What every panel has. The steps of thresholds are colours and the values from which on they hold."""
    builder.title(title).description(text).unit(unit).datasource(SOURCE)
    for ref, (expression, legend) in zip("ABCDEFGH", queries, strict=False):
        query = prometheus.Dataquery().expr(expression).legend_format(legend).ref_id(ref).datasource(SOURCE)
        if isinstance(builder, heatmap.Panel):
            query.range().format(PromQueryFormat.HEATMAP)
        elif isinstance(builder, barchart.Panel | table.Panel):
            query.instant().format(PromQueryFormat.TABLE)
        else:
            query.range() if isinstance(builder, timeseries.Panel) else query.instant()
        builder.with_target(query)
    if steps:
        thresholds = [Threshold(color=color, value=value) for color, value in steps]
        builder.thresholds(dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(thresholds))
    return builder


def number(title: str, text: str, unit: str, *queries: Query, steps: Steps | None = None, decimals: int = 2) -> Builder:
    """One large number, or one for each series."""
    builder = stat.Panel().height(4).span(4).decimals(decimals).graph_mode(BigValueGraphMode.NONE)
    builder.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
    builder.color_mode(BigValueColorMode.VALUE if steps else BigValueColorMode.NONE)
    return panel(builder, title, text, unit, *queries, steps=steps)


def lines(title: str, text: str, unit: str, *queries: Query, steps: Steps | None = None, width: int = 12) -> Builder:
    """Lines over time; thresholds are dashed lines across."""
    builder = timeseries.Panel().height(8).span(width).fill_opacity(8).show_points(VisibilityMode.NEVER).min(0)
    builder.legend(
        common.VizLegendOptions()
        .show_legend(True)
        .display_mode(LegendDisplayMode.LIST)
        .placement(LegendPlacement.BOTTOM)
        .calcs(["lastNotNull"])
    )
    builder.tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
    if steps:
        builder.thresholds_style(common.GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.DASHED))
    return panel(builder, title, text, unit, *queries, steps=steps)


def stacked(title: str, text: str, unit: str, *queries: Query, width: int = 12) -> Builder:
    builder = lines(title, text, unit, *queries, width=width).fill_opacity(60).line_width(0)
    return builder.stacking(common.StackingConfig().mode(StackingMode.NORMAL).group("A"))


def heat(title: str, text: str, unit: str, metric: str, by: str = "le", width: int = 12) -> Builder:
    """The buckets of a histogram over time; `unit` is the buckets', cells count texts a second."""
    builder = heatmap.Panel().height(8).span(width).calculate(False).show_legend().show_y_histogram()
    builder.y_axis(heatmap.YAxisConfig().unit(unit))
    builder.cell_values(heatmap.CellValues().unit("reqps").decimals(2))
    builder.filter_values(heatmap.FilterValueRange().le(1e-9))
    builder.color(
        heatmap.HeatmapColorOptions()
        .mode(HeatmapColorMode.SCHEME)
        .scheme("Oranges")
        .fill("dark-orange")
        .scale(HeatmapColorScale.EXPONENTIAL)
        .exponent(0.5)
        .steps(64)
        .reverse(False)
    )
    return panel(builder, title, text, unit, (f"sum by ({by}) (rate({metric}{RATE}))", "{{le}}"))


def quantiles(metric: str, *of: float) -> list[Query]:
    return [(f"histogram_quantile({q}, sum by (le) (rate({metric}{RATE})))", f"p{q * 100:g}") for q in of]


def share(selector: str, window: str, by: str = "exit") -> str:
    """Of each exit among all, for one model."""
    counted = f"increase({selector}[{window}])"
    return f"sum by ({by}) ({counted}) / scalar(sum({counted}) > 0)"


def exits() -> dashboard.Dashboard:
    board = start(
        "BEExformer: exits",
        "beexformer-exits",
        "Where texts leave the model, what that saves, and whether it still is what training saw.",
    )
    for builder in (
        number(
            "FLOPs saved",
            "Share of the work of all blocks that was not done, over the time shown. Below 20 % the exits hardly pay.",
            "percentunit",
            (flops_saved("[$__range]"), "{{model}}"),
            steps=[("red", None), ("yellow", 0.2), ("green", 0.4)],
            decimals=1,
        ).span(6),
        number(
            "Mean exit",
            "Block after which a text left, on average over the time shown. Blocks count from 1.",
            "none",
            (
                f"sum by (model) (increase(bee_exit_index_sum{{{MODEL}}}[$__range]))"
                f" / (sum by (model) (increase(bee_exit_index_count{{{MODEL}}}[$__range])) > 0)",
                "{{model}}",
            ),
        ).span(6),
        number(
            "Drift",
            "Population stability index of the exits of the last hour against those of training. From 0.1"
            " texts leave elsewhere than in training, from 0.25 they are something else. Needs 500 comparable answers.",
            "none",
            (f"model:bee_exit_drift:psi1h{{{MODEL}}}", "{{model}}"),
            steps=DRIFT,
        ).span(6),
        number(
            "Comparable answers, last hour",
            "Answers at the model's own delta and without other options: what drift is made of. It needs 500.",
            "none",
            (f"model:bee_exit_at_default:increase1h{{{MODEL}}}", "{{model}}"),
            steps=[("yellow", None), ("green", 500)],
            decimals=0,
        ).span(6),
    ):
        board.with_panel(builder)

    board.with_row(dashboard.Row("Model $model").repeat("model"))
    for builder in (
        exit_histogram(),
        heat(
            "Exits over time",
            "How many texts a second left after which block: the darker, the more.",
            "none",
            f"bee_exit_index_bucket{{{MODEL}}}",
            width=8,
        ),
        stacked(
            "Share of each exit",
            "Of all texts answered, how many left after which block. The bands move when texts, delta or model change.",
            "percentunit",
            (share(f"bee_exit_total{{{MODEL}}}", "$__rate_interval"), "after block {{exit}}"),
            width=8,
        ).max(1),
        lines(
            "Entropy of answers by exit",
            "Mean entropy of the answers that left after each block, as a share of the largest possible: 0 % is"
            " certainty, 100 % a toss of a coin. From 90 % on answers are hardly better than that.",
            "percentunit",
            (
                f"sum by (exit) (rate(bee_exit_entropy_ratio_sum{{{MODEL}}}{RATE}))"
                f" / (sum by (exit) (rate(bee_exit_entropy_ratio_count{{{MODEL}}}{RATE})) > 0)",
                "after block {{exit}}",
            ),
            steps=[("transparent", None), ("yellow", 0.9)],
            width=8,
        ).max(1),
        heat(
            "Entropy of answers over time",
            "How many answers a second had which entropy, as a share of the largest possible. A band that rises"
            " says that the model has become less certain.",
            "percentunit",
            f"bee_exit_entropy_ratio_bucket{{{MODEL}}}",
            width=8,
        ),
        lines(
            "Contradicted by full depth",
            "Share of the answers compared with full depth (BEE_SHADOW_RATIO) whose label was another there, by exit. "
            "Early exits are worth that much less than all blocks, or more: full depth is no truth either.",
            "percentunit",
            (
                f'sum by (exit) (rate(bee_shadow_total{{agreed="no", {MODEL}}}{RATE}))'
                f" / clamp_min(sum by (exit) (rate(bee_shadow_total{{{MODEL}}}{RATE})), 1e-9)",
                "after block {{exit}}",
            ),
            steps=[("transparent", None), ("yellow", 0.05), ("red", 0.1)],
            width=8,
        ),
        lines(
            "Moved against training",
            "Share of the last hour's comparable answers minus that of training, exit by exit: where drift comes from.",
            "percentunit",
            (
                f"model_exit:bee_exit_at_default:share1h{{{MODEL}}}"
                f" - model_exit:bee_exit_training_rows:share{{{MODEL}}}",
                "after block {{exit}}",
            ),
            width=8,
        )
        .min(-0.5)
        .max(0.5),
    ):
        board.with_panel(builder)

    board.with_row(dashboard.Row("Models beside each other"))
    for builder in (
        lines(
            "Drift against training",
            "Population stability index of the exits of the last hour. The alert BeexformerExitDrift waits for 0.1.",
            "none",
            (f"model:bee_exit_drift:psi1h{{{MODEL}}}", "{{model}}"),
            steps=DRIFT,
        ).axis_soft_max(0.3),
        lines(
            "FLOPs saved over time",
            "Share of the work of all blocks that was not done. Falls when texts leave later.",
            "percentunit",
            (flops_saved(RATE), "{{model}}"),
            steps=[("red", None), ("yellow", 0.2), ("green", 0.4)],
        ).max(1),
        lines(
            "FLOPs executed and at full depth",
            "Work done a second, and what the same texts would have cost through all blocks. Binary ones count 1/64.",
            "flops",
            (f"sum by (model) (rate(bee_flops_executed_total{{{MODEL}}}{RATE}))", "{{model}} executed"),
            (f"sum by (model) (rate(bee_flops_full_total{{{MODEL}}}{RATE}))", "{{model}} at full depth"),
        ),
        lines(
            "CPU time of answers",
            "Tokenizing and computing, in CPUs. Times the watts of a busy CPU it is the power that answers take; "
            "docs/operations.md says how to measure those.",
            "none",
            (f"sum by (model) (rate(bee_cpu_seconds_total{{{MODEL}}}{RATE}))", "{{model}}"),
        ),
        lines(
            "Answers, and those at the model's own delta",
            "Only answers at the model's own delta and without other options say something about drift.",
            "reqps",
            (f"sum by (model) (rate(bee_exit_total{{{MODEL}}}{RATE}))", "{{model}} all"),
            (f"sum by (model) (rate(bee_exit_at_default_total{{{MODEL}}}{RATE}))", "{{model}} comparable"),
        ),
    ):
        board.with_panel(builder)
    return board


def flops_saved(window: str) -> str:
    executed, full = (f"rate(bee_flops_{which}_total{{{MODEL}}}{window})" for which in ("executed", "full"))
    return f"1 - sum by (model) ({executed}) / (sum by (model) ({full}) > 0)"


def exit_histogram() -> Builder:
    builder = (
        barchart.Panel().height(8).span(8).x_field("exit").show_value(VisibilityMode.AUTO).min(0).max(1).decimals(0)
    )
    builder.legend(
        common.VizLegendOptions()
        .show_legend(True)
        .display_mode(LegendDisplayMode.LIST)
        .placement(LegendPlacement.BOTTOM)
        .calcs([])
    )
    names = {"exit": "exit", "Value #A": "all answers", "Value #B": "at the model's own delta", "Value #C": "training"}
    builder.with_transformation(
        DataTransformerConfig(id_val="joinByField", options={"byField": "exit", "mode": "outer"})
    )
    builder.with_transformation(
        DataTransformerConfig(id_val="filterFieldsByName", options={"include": {"names": list(names)}})
    )
    builder.with_transformation(DataTransformerConfig(id_val="sortBy", options={"sort": [{"field": "exit"}]}))
    builder.with_transformation(
        DataTransformerConfig(
            id_val="organize", options={"excludeByName": {}, "indexByName": {}, "renameByName": names}
        )
    )
    trained = f"max by (exit) (bee_exit_training_rows{{{MODEL}}})"
    return panel(
        builder,
        "Where texts left",
        "Share of answers by the block they left after, over the time shown: of all, of those at the model's own delta,"
        " and of the dev rows in training. The last two should look alike.",
        "percentunit",
        (share(f"bee_exit_total{{{MODEL}}}", "$__range"), "all answers"),
        (share(f"bee_exit_at_default_total{{{MODEL}}}", "$__range"), "at the model's own delta"),
        (f"{trained} / scalar(sum({trained}))", "training"),
    )


def service() -> dashboard.Dashboard:
    board = start(
        "BEExformer: service",
        "beexformer-service",
        "Traffic, errors, latency and load of the service, and how much of its promises is used up.",
    )
    requests = f"bee_requests_total{{{MODEL}}}"
    budget: Steps = [("green", None), ("yellow", 1), ("orange", 6), ("red", 14.4)]
    for builder in (
        number(
            "Ready",
            "Instances that answer texts: an engine of each has answered a first forward.",
            "none",
            ("sum(bee_ready)", "ready"),
            steps=[("red", None), ("green", 1)],
            decimals=0,
        ),
        number(
            "Alerts firing",
            "How many of the alerts in the rules fire. What to do stands in docs/operations.md.",
            "none",
            ('count(ALERTS{alertstate="firing", alertname=~"Beexformer.*"}) or vector(0)', "firing"),
            steps=[("green", None), ("red", 1)],
            decimals=0,
        ),
        number(
            "Texts a second",
            "Texts that came to an end, whatever the outcome. Each item of a batch is one.",
            "reqps",
            (f"sum(rate({requests}[5m]))", "texts"),
            decimals=1,
        ),
        number(
            "Failed",
            "Share of texts answered with 5xx over five minutes. The promise is 0.1 % over 30 days.",
            "percentunit",
            ("job:bee_requests_failed:ratio_rate5m", "{{job}}"),
            steps=[("green", None), ("yellow", 0.001), ("red", 0.0144)],
        ),
        number(
            "Latency p99",
            "99 % of texts of the last five minutes were settled within this time. The promise is 250 ms.",
            "s",
            (
                f"histogram_quantile(0.99, sum by (le) (rate(bee_request_duration_seconds_bucket{{{MODEL}}}[5m])))",
                "p99",
            ),
            steps=[("green", None), ("yellow", 0.125), ("red", 0.25)],
            decimals=1,
        ),
        number(
            "Saturation",
            "Busy share of the event loops of the busiest instance over five minutes. At 100 % requests wait.",
            "percentunit",
            ("max(instance:bee_event_loop_busy:ratio_rate5m)", "busiest"),
            steps=[("green", None), ("yellow", 0.7), ("red", 0.9)],
            decimals=0,
        ),
    ):
        board.with_panel(builder)

    board.with_row(dashboard.Row("Traffic and errors"))
    for builder in (
        stacked(
            "Texts by outcome",
            "Texts a second by status code. 4xx are the clients' mistakes, 499 clients who left, 5xx are ours.",
            "reqps",
            (f"sum by (code) (rate({requests}{RATE}))", "{{code}}"),
            width=8,
        ),
        lines(
            "Texts by model",
            "Texts a second by the model they asked for; those that named none that is loaded stand under no model.",
            "reqps",
            (f"sum by (model) (rate({requests}{RATE}))", "{{model}}"),
            width=8,
        ),
        lines(
            "Errors",
            "Share of texts that were answered with 5xx, were refused with 503, and were the client's mistake (4xx).",
            "percentunit",
            (f'sum(rate(bee_requests_total{{code=~"5..", {MODEL}}}{RATE})) / sum(rate({requests}{RATE}))', "5xx"),
            ("job:bee_requests_refused:ratio_rate5m", "503, {{job}}, 5 min"),
            (f'sum(rate(bee_requests_total{{code=~"4..", {MODEL}}}{RATE})) / sum(rate({requests}{RATE}))', "4xx"),
            steps=[("transparent", None), ("red", 0.01)],
            width=8,
        ),
        lines(
            "Pace of the error budget",
            "How fast the budget of 0.1 % failed texts is spent: at 1 it lasts exactly the 30 days. Pages go out from"
            " 14.4 over an hour and 6 over six hours, a ticket from 1 over three days.",
            "none",
            ("job:bee_requests_failed:ratio_rate5m / 0.001", "5 min"),
            ("job:bee_requests_failed:ratio_rate1h / 0.001", "1 h"),
            ("job:bee_requests_failed:ratio_rate6h / 0.001", "6 h"),
            ("job:bee_requests_failed:ratio_rate3d / 0.001", "3 d"),
            steps=budget,
        ),
        lines(
            "Pace of the latency budget",
            "How fast the budget of 1 % texts slower than 250 ms is spent: at 1 it lasts exactly the 30 days.",
            "none",
            ("job:bee_requests_slow:ratio_rate5m / 0.01", "5 min"),
            ("job:bee_requests_slow:ratio_rate1h / 0.01", "1 h"),
            ("job:bee_requests_slow:ratio_rate6h / 0.01", "6 h"),
            ("job:bee_requests_slow:ratio_rate3d / 0.01", "3 d"),
            steps=budget,
        ),
    ):
        board.with_panel(builder)

    board.with_row(dashboard.Row("Latency"))
    latency = f"bee_request_duration_seconds_bucket{{{MODEL}}}"
    board.with_panel(
        lines(
            "Latency",
            "From arrival of the request to the outcome of a text, inside the process.",
            "s",
            *quantiles(latency, 0.5, 0.95, 0.99),
            steps=[("transparent", None), ("red", 0.25)],
        )
    )
    board.with_panel(
        heat("Latency over time", "How many texts a second took how long: the darker, the more.", "s", latency)
    )
    for phase, text in PHASES.items():
        metric = f'bee_phase_duration_seconds_bucket{{phase="{phase}", {MODEL}}}'
        board.with_panel(lines(f"Phase {phase}", text, "s", *quantiles(metric, 0.5, 0.95, 0.99), width=8))

    board.with_row(dashboard.Row("Load"))
    for builder in (
        lines(
            "Saturation",
            "Busy share of the event loops, by instance. Above 90 % there is no reserve: add instances or workers.",
            "percentunit",
            (f"rate(bee_event_loop_busy_seconds_total{RATE}) / bee_workers", "{{instance}}"),
            ("instance:bee_event_loop_busy:ratio_rate5m", "{{instance}}, 5 min"),
            steps=[("transparent", None), ("yellow", 0.7), ("red", 0.9)],
            width=6,
        ).max(1),
        lines(
            "Lag",
            "How late the event loop is, looked at 20 times a second: what a request waits before anything is done for "
            "it. At the limit texts get 503.",
            "s",
            *quantiles("bee_event_loop_lag_seconds_bucket", 0.5, 0.99),
            ("max(bee_wait_limit_seconds)", "limit"),
            steps=[("transparent", None), ("yellow", 0.1), ("red", 0.25)],
            width=6,
        ),
        lines(
            "Texts in progress",
            "On average, between arrival and outcome: their rate times their duration (Little's law), so true between "
            "scrapes too. What the autoscaler can follow.",
            "none",
            (f"sum by (instance) (rate(bee_request_duration_seconds_sum{RATE}))", "{{instance}}"),
            width=6,
        ),
        lines(
            "Backlog",
            "Time that the long texts and batches which wait now will take, as a share of the limit. At 100 % more "
            "of them get 503; short texts go before them.",
            "percentunit",
            ("bee_backlog_seconds / bee_wait_limit_seconds", "{{instance}}"),
            steps=[("transparent", None), ("yellow", 0.5), ("red", 0.9)],
            width=6,
        ),
        lines(
            "Brown-out",
            "Share of answers whose texts left earlier than they would have, because requests waited "
            "(BEE_BROWNOUT_WAIT_MS).",
            "percentunit",
            (f"sum(rate(bee_brownout_total{RATE})) / clamp_min(sum(rate(bee_exit_total{RATE})), 1e-9)", "of answers"),
            steps=[("transparent", None), ("yellow", 0.01), ("red", 0.5)],
            width=6,
        ),
        heat("Tokens over time", "Length of answered texts in tokens.", "none", "bee_request_tokens_bucket", width=6),
        lines(
            "Tokens",
            "Length of answered texts in tokens. Longer texts cost more, and a model's window cuts the longest.",
            "none",
            (f"sum(rate(bee_request_tokens_sum{RATE})) / (sum(rate(bee_request_tokens_count{RATE})) > 0)", "mean"),
            *quantiles("bee_request_tokens_bucket", 0.5, 0.95),
            width=6,
        ),
        lines(
            "Tokens a second",
            "Tokens of answered texts: throughput in a measure that long and short texts share.",
            "none",
            (f"sum(rate(bee_request_tokens_sum{RATE}))", "tokens a second"),
            width=6,
        ),
        lines(
            "Unknown tokens",
            "Share of texts' tokens that the model's vocabulary doesn't know, such as emoji or another script. "
            "Where it rises, the model reads ever less of what it is asked about.",
            "percentunit",
            (
                f"sum by (model) (rate(bee_request_unknown_ratio_sum{RATE})) / "
                f"(sum by (model) (rate(bee_request_unknown_ratio_count{RATE})) > 0)",
                "{{model}}",
            ),
            steps=[("transparent", None), ("yellow", 0.1), ("red", 0.3)],
            width=18,
        ),
        lines(
            "Workers replaced",
            "Server processes that ended unasked, or hung and were killed, in half an hour. Each takes the requests "
            "that it had with it; the log says why.",
            "none",
            ("sum by (instance, reason) (increase(bee_workers_replaced_total[30m]))", "{{instance}} {{reason}}"),
            steps=[("transparent", None), ("yellow", 1), ("red", 2)],
            width=6,
        ),
    ):
        board.with_panel(builder)

    board.with_row(dashboard.Row("Process"))
    for builder in (
        lines(
            "CPU",
            "Cores in use by each instance. Each worker can use one.",
            "none",
            (f"sum by (instance) (rate(process_cpu_seconds_total{{{SERVICE}}}{RATE}))", "{{instance}}"),
            width=6,
        ),
        lines(
            "Memory",
            "Resident memory of each instance, all its processes together. It should be flat.",
            "bytes",
            (f"sum by (instance) (process_resident_memory_bytes{{{SERVICE}}})", "{{instance}}"),
            width=6,
        ),
        lines(
            "Open files",
            "Share of the file descriptors in use that the system allows. At 100 % no connection is accepted.",
            "percentunit",
            (f"max by (instance) (process_open_fds{{{SERVICE}}} / process_max_fds{{{SERVICE}}})", "{{instance}}"),
            steps=[("transparent", None), ("red", 0.8)],
            width=6,
        ),
        lines(
            "Up, and for how long",
            "Time since the oldest process of each instance started. It falls to 0 with every restart.",
            "s",
            (
                f"(time() - min by (instance) (process_start_time_seconds{{{SERVICE}}}))"
                f" * on (instance) up{{{SERVICE}}}",
                "{{instance}}",
            ),
            width=6,
        ),
        models(),
    ):
        board.with_panel(builder)
    return board


def models() -> Builder:
    builder = table.Panel().height(6).span(24)
    hidden = {"Time": True, "Value": True, "__name__": True, "job": True}
    builder.with_transformation(
        DataTransformerConfig(
            id_val="organize", options={"excludeByName": hidden, "indexByName": {}, "renameByName": {}}
        )
    )
    return panel(
        builder,
        "Models",
        "The loaded models by instance: blocks, classes and version of the checkpoint's format.",
        "none",
        (f"bee_model_info{{{MODEL}}}", "{{model}}"),
    )


def start(title: str, uid: str, text: str) -> dashboard.Dashboard:
    source = (
        dashboard.DatasourceVariable("datasource")
        .label("Data source")
        .type("prometheus")
        .current(VariableOption(text="Prometheus", value="prometheus", selected=True))
    )
    model = (
        dashboard.QueryVariable("model")
        .label("Model")
        .description("Models to show; those that are loaded")
        .datasource(SOURCE)
        .query("label_values(bee_model_info, model)")
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(VariableOption(text=["All"], value=["$__all"], selected=True))
    )
    other = (
        dashboard.DashboardLink("BEExformer")
        .type(DashboardLinkType.DASHBOARDS)
        .tags(["beexformer"])
        .icon("external link")
        .keep_time(True)
        .include_vars(True)
    )
    return (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(text)
        .tags(["beexformer"])
        .readonly()
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .time("now-15m", "now")
        .refresh("5s")
        .with_variable(source)
        .with_variable(model)
        .link(other)
    )


def written(board: dashboard.Dashboard) -> str:
    """The dashboard as its file has it."""
    built = board.build()
    for i, one in enumerate(built.panels or [], start=1):
        one.id_val = i
    content = json.loads(JSONEncoder().encode(built))
    for variable in content["templating"]["list"]:  # the kit writes the fields of interval variables into all of them
        for name in ("auto", "auto_min", "auto_count"):
            del variable[name]
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, board in (("exits", exits()), ("service", service())):
        (FOLDER / f"{name}.json").write_text(written(board))


if __name__ == "__main__":
    main()
