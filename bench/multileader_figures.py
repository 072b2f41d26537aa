"""From the runs of `bench multileader` to its figures: ratios, and what theory says beside them. Pure.

What is *used* of a limit is a share of it, a figure a server. The *forms* of a setting are what is compared:
as many groups as servers, or one group with its clients here or there.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.experiment import Figures
from bench.figures import Measured, mean, ratio, spent
from bench.namespaces import INTERFACE
from bench.plots import Curve, Plot
from bench.repeats import shown, spread, spreads

EGRESS, CPU = "egress", "cpu"

TARGETS = {(EGRESS, 3): 2.7, (EGRESS, 5): 4.3, (CPU, 3): 1.6}
"""What several leaders must bring at least, by what is scarce and how many servers there are."""

FULL = 0.85
"""A busiest server that used less of its limit was not held up by it."""


MACHINE_SHARE_MAX = 0.75
"""Of the machine's cores, all servers together, where the network is to be the limit."""


MANY, SPREAD, LEADER = "many", "spread", "leader"
FORMS = {
    MANY: "a group a server",
    SPREAD: "one group, clients everywhere",
    LEADER: "one group, clients at the leader",
}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One cluster under one load."""

    limit: str
    servers: int
    form: str

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.servers} servers, {self.limit} limited, {FORMS[self.form]}"

    @property
    def groups(self) -> int:
        """How many groups the cluster has."""
        return self.servers if self.form == MANY else 1


def used(measured: Sequence[Measured], limit: str) -> list[float]:
    """What each server used of it in the window, a second."""
    if limit == CPU:
        return [spent(one, "cpu_s") / spent(one, "at_s") for one in measured]
    return [
        (one["after"]["sent"][INTERFACE] - one["before"]["sent"][INTERFACE]) / spent(one, "at_s")
        for one in measured
    ]


def sustained(figures: Figures) -> float:
    """Commands a second that a server applied, the mean over the servers.

    Not what was answered: a leader whose link is full may send to a majority only, for a while, and answer;
    the others fall behind, and that is no rate which lasts.
    """
    return mean([server["applied_per_second"] for server in figures["servers"]])


def payload_bound(*, rate: float, servers: int, size: int, leaders: int) -> float:
    """Commands a second that leaders can send to everybody else if nothing but commands is on the wire."""
    return leaders * rate / ((servers - 1) * size)


def even_bound(work: Sequence[float]) -> float:
    """How much more the servers could do if the work that one run made for them were spread evenly.

    With w_l for the leader and w_f for each of n - 1 followers this is n w_l / (w_l + (n - 1) w_f): n where
    followers have nothing to do, 1 where they have as much as the leader.
    """
    return len(work) * max(work) / sum(work) if sum(work) else 1.0


def comparison(
    limit: str,
    servers: int,
    runs: Mapping[str, Sequence[Figures]],
    *,
    capacity: float,
    size: int,
) -> dict[str, Any]:
    """Several leaders beside one, over the rounds, and what theory says."""
    rounds = list(zip(*(runs[form] for form in FORMS), strict=True))
    forms = {form: _form(runs[form]) for form in FORMS}
    best = max((SPREAD, LEADER), key=lambda form: forms[form]["sustained_per_second"]["median"] or 0.0)
    ratios = [
        ratio(many["sustained_per_second"], max(one["sustained_per_second"] for one in single))
        for many, *single in rounds
    ]
    ratio_found = spread(ratios)
    target = TARGETS.get((limit, servers))
    found: dict[str, Any] = {
        "limit": limit,
        "servers": servers,
        "capacity": capacity,
        "ratio": ratio_found,
        "bound": spread(round(even_bound(run["used"]), 3) for run in runs[best]),
        "ideal": servers,
        "target": target,
        "within_target": None if target is None else (ratio_found["median"] or 0.0) >= target,
        "best_single": best,
        "forms": forms,
        "doubts": [doubt for form in FORMS for doubt in _doubts(limit, servers, form, runs[form])],
    }
    if (ratio_found["median"] or 0.0) > servers:
        found["doubts"].append(
            f"{servers} servers, {limit} limited: more than {servers} times one leader cannot be; its"
            " limit went into something else than commands"
        )
    if limit == EGRESS:
        for name, leaders in (("payload_bound_one", 1), ("payload_bound_many", servers)):
            bound = payload_bound(rate=capacity, servers=servers, size=size, leaders=leaders)
            found[name] = round(bound, 1)
    return found


def _form(runs: Sequence[Figures]) -> dict[str, Any]:
    names = (
        "sustained_per_second",
        "applied_per_second",
        "p50_ms",
        "p99_ms",
        "cores_per_server",
        "entries_per_second",
    )
    return {
        **spreads(runs, (*names, "wire_bytes_per_payload_byte")),
        "used_most": spread(max(run["used"]) for run in runs),
        "used_least": spread(min(run["used"]) for run in runs),
        "runs": list(runs),
    }


def _doubts(limit: str, servers: int, form: str, runs: Sequence[Figures]) -> list[str]:
    """What speaks against the figures of one setting."""
    name = Setting(limit=limit, servers=servers, form=form).name
    found = [doubt for run in runs for doubt in run["doubts"]]
    least = min(max(run["used"]) for run in runs)
    if least < FULL:
        found.append(f"the busiest server used {least:.0%} of its limit only: something else was the limit")
    cores = max(sum(server["cores"] for server in run["servers"]) for run in runs)
    if limit == EGRESS and cores > MACHINE_SHARE_MAX * (os.cpu_count() or 1):
        found.append(
            f"the servers used {cores:.1f} cores: the machine may have been the limit, not the network"
        )
    return [f"{name}: {one}" for one in dict.fromkeys(found)]


def picture(compared: Sequence[Mapping[str, Any]]) -> Plot:
    """The ratios over the number of servers, with their bounds."""
    curves = []
    for limit in dict.fromkeys(one["limit"] for one in compared):
        mine = [one for one in compared if one["limit"] == limit]
        servers = [one["servers"] for one in mine]
        curves += [
            Curve(
                name=f"{limit} limited, measured",
                x=servers,
                y=[one["ratio"]["median"] for one in mine],
                least=[one["ratio"]["least"] for one in mine],
                greatest=[one["ratio"]["greatest"] for one in mine],
            ),
            Curve(
                name=f"{limit} limited, the same work spread evenly",
                x=[1, *servers],
                y=[1, *(one["bound"]["median"] for one in mine)],
                dashed=True,
            ),
        ]
    ticks = sorted({1, *(one["servers"] for one in compared)})
    curves.append(Curve(name="as many times as servers", x=ticks, y=ticks, dashed=True))
    return Plot(
        title="Several leaders over one leader",
        x_label="servers, as many groups",
        y_label="times the commands a second of one group",
        curves=curves,
        x_ticks=ticks,
    )


def summary(figures: Figures) -> list[str]:
    """The figures for people."""
    return [line for one in figures["comparisons"] for line in _summary(one)]


def _summary(one: Mapping[str, Any]) -> list[str]:
    limit, servers, capacity = one["limit"], one["servers"], one["capacity"]
    each = f"{capacity / 1000:,.0f} kB/s egress each" if limit == EGRESS else f"{capacity:g} cores each"
    verdict = {None: "", True: f"; target {one['target']}: kept", False: f"; target {one['target']}: MISSED"}
    lines = [
        f"{servers} servers, {each}",
        (
            f"  ratio      {shown(one['ratio'], 2)} times {FORMS[one['best_single']]}"
            f"{verdict[one['within_target']]}"
        ),
        (
            f"  theory     {shown(one['bound'], 2)} times if that run's work were spread evenly;"
            f" {one['ideal']} if followers had none"
        ),
    ]
    for form, name in FORMS.items():
        got = one["forms"][form]
        lines.append(
            f"  {name + ':':34} {shown(got['sustained_per_second'])} commands a second,"
            f" p50 {shown(got['p50_ms'], 1)} ms,"
            f" limits used {got['used_least']['median']:.0%} to {got['used_most']['median']:.0%},"
            f" {got['cores_per_server']['median']:.2f} cores a server"
        )
    if limit == EGRESS:
        lines.append(
            f"  payload alone allows {one['payload_bound_one']:,.0f} a second with one leader,"
            f" {one['payload_bound_many']:,.0f} with {servers}"
        )
    return lines
