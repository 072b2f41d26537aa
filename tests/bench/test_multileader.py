"""`bench multileader`: servers apart from each other on one machine, and nothing of it left behind.

No test looks at how fast anything was. What needs namespaces or control groups skips where there are none.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bench import namespaces, quotas
from bench.__main__ import parse
from bench.multileader import able, settings_of, shape_of
from bench.multileader_figures import (
    CPU,
    EGRESS,
    FORMS,
    TARGETS,
    comparison,
    even_bound,
    payload_bound,
    picture,
    summary,
    used,
)
from bench.processes import BenchError, Host, Plan, configs
from bench.quotas import Hierarchy, Quotas, hierarchy, started, sweep
from craft import Config
from tests.bench.test_bench import bench, children, result_of

ROOT = Path(__file__).resolve().parents[2]

GONE_WITHIN_S = 30.0
POLL_S = 0.05

TINY = ("--seconds", "0.5", "--warmup", "0.2", "--backlog", "0.2", "--repeats", "1", "--tasks", "2")


def options_of(*arguments: str) -> Any:
    """The options of a command line."""
    return parse(["multileader", *arguments])[1]


def needs(why: str | None, what: str) -> None:
    """Skip by name where this machine cannot do it."""
    if why is not None:
        pytest.skip(f"no {what}: {why}")


# -- whole runs ------------------------------------------------------------------------------------


@pytest.mark.system
def test_servers_behind_narrow_links_are_compared(tmp_path: Path) -> None:
    """Each form runs, its servers agree, and all that leaves a server goes through its link."""
    needs(namespaces.missing(), "network namespaces")
    small = ("--limit", "egress", "--servers", "2", "--rate", "1000")
    result = result_of(bench("multileader", *small, *TINY, place=tmp_path), tmp_path)
    (compared,) = result["comparisons"]
    assert (compared["limit"], compared["servers"], compared["ideal"]) == (EGRESS, 2, 2)
    assert compared["capacity"] == 1_000_000
    assert compared["forms"].keys() == FORMS.keys()
    for form in compared["forms"].values():
        (one,) = form["runs"]
        assert one["sustained_per_second"] > 0 and len(one["used"]) == 2
    assert result["ratio"] == compared["ratio"]["median"] > 0
    leading = compared["forms"]["leader"]["runs"][0]
    assert max(leading["used"]) > 5 * min(leading["used"])  # the leader sends commands, the other answers


@pytest.mark.system
def test_servers_with_a_share_of_a_core_are_compared(tmp_path: Path) -> None:
    """The same with quotas, which are lifted before the servers are compared."""
    needs(quotas.missing(), "control groups")
    small = ("--limit", "cpu", "--cpu-servers", "2", "--quota", "0.3")
    result = result_of(bench("multileader", *small, *TINY, place=tmp_path), tmp_path)
    (compared,) = result["comparisons"]
    assert (compared["limit"], compared["capacity"]) == (CPU, 0.3)
    assert all(form["runs"][0]["sustained_per_second"] > 0 for form in compared["forms"].values())
    here = quotas.found()
    assert here is not None and sweep(here) == []  # nothing is there whose harness is gone


def groups_of(pid: int) -> list[str]:
    """Control groups of a harness, if there are control groups."""
    here = quotas.found()
    return [] if here is None else [group.name for group in here.root.glob(f"craft-bench-{pid}-*")]


def network_of(pid: str) -> str | None:
    """Which network namespace a process is in; None once it is gone."""
    try:
        return str(Path(f"/proc/{pid}/ns/net").readlink())
    except OSError:
        return None


@pytest.mark.system
@pytest.mark.parametrize("limit", [EGRESS, CPU])
def test_a_harness_that_is_killed_leaves_nothing(limit: str, tmp_path: Path) -> None:
    """SIGKILL in the middle: processes, namespaces and control groups go by themselves, without a sweep."""
    needs(namespaces.missing() if limit == EGRESS else quotas.missing(), limit)
    command = (sys.executable, "-m", "bench", "multileader", "--limit", limit, "--dir", str(tmp_path))
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as harness:
        try:
            assert harness.stdout is not None
            assert any(line.startswith("… warming up") for line in harness.stdout)
            ours = children(harness.pid)
            networks = {network_of(child) for child in ours} - {network_of(str(harness.pid))}
            groups = groups_of(harness.pid)
        finally:
            harness.kill()
    assert len(networks) == (4 if limit == EGRESS else 0)  # three servers and the switch
    assert len(groups) == (3 if limit == CPU else 0)
    until = time.monotonic() + GONE_WITHIN_S
    while time.monotonic() < until and (groups_of(harness.pid) or any(map(network_of, ours))):
        time.sleep(POLL_S)
    assert [child for child in ours if network_of(child)] == []
    assert not networks & {network_of(one.name) for one in Path("/proc").glob("[0-9]*")}
    assert groups_of(harness.pid) == []


# -- options and messages --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--servers", "3,x"), "'x' is not allowed; allowed: whole numbers 2 to 32"),
        (("--servers", "1"), "'1' is not allowed; allowed: whole numbers 2 to 32"),
        (("--limit", "disk"), "invalid choice: 'disk'"),
        (("--rate", "1"), "'1' is not allowed; allowed: whole numbers 10 to 1000000"),
        (("--quota", "nan"), "'nan' is not allowed; allowed: 0.05 to 32 cores"),
        (("--quota", "32"), "allowed: at most --quota"),
        (("--limit", "egress", "--batch", "500"), "entry_bytes_max allows"),
    ],
)
def test_a_bad_option_gets_a_clear_error(
    arguments: tuple[str, ...], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is started."""
    with pytest.raises(SystemExit) as ended:
        options_of(*arguments)
    assert ended.value.code == 2
    assert complaint in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(("limit", "module"), [(EGRESS, namespaces), (CPU, quotas)])
def test_missing_privileges_are_named(limit: str, module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing, what to do, and which half needs other things."""
    monkeypatch.setattr(module, "missing", lambda: "run as root")
    other = ({EGRESS, CPU} - {limit}).pop()
    with pytest.raises(BenchError, match=f"--limit {limit} is not possible here: run as root; .* {other}"):
        able([limit])


def test_missing_tools_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is tried without them."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert namespaces.missing() == "ip, tc, unshare, nsenter not found: install iproute2 and util-linux"
    tool = tmp_path / "unshare"
    for name in namespaces.TOOLS:
        (tmp_path / name).symlink_to(tool)
    tool.unlink()
    tool.write_text("#!/bin/sh\necho 'unshare failed: Operation not permitted' >&2\nexit 1\n")
    tool.chmod(0o755)
    assert "Operation not permitted): run as root" in str(namespaces.missing())


# -- theory ----------------------------------------------------------------------------------------


def test_one_link_carries_every_command_to_everybody_else() -> None:
    """B / ((n - 1) b) for one leader, n times that for n."""
    assert payload_bound(rate=2_000_000, servers=3, size=1000, leaders=1) == 1000
    assert payload_bound(rate=2_000_000, servers=5, size=1000, leaders=5) == 2500


def test_even_work_bounds_what_leaders_bring() -> None:
    """From n, if only the leader works, to 1, if all work alike."""
    assert even_bound([8.0, 0.0, 0.0]) == 3
    assert even_bound([5.0, 5.0, 5.0]) == 1
    assert even_bound([0.4, 0.1, 0.1]) == pytest.approx(2)
    assert even_bound([0.0, 0.0]) == 1


def test_the_load_is_the_same_in_every_form() -> None:
    """And one leader's link takes as long as the backlog says to send what is outstanding."""
    options = options_of("--limit", "egress", "--servers", "5", "--backlog", "1", "--rate", "4096")
    settings = settings_of(options)
    assert [setting.form for setting in settings] == list(FORMS)
    (shape,) = {shape_of(options, setting) for setting in settings}
    assert 5 * shape.tasks * shape.batch == 1000
    assert [setting.groups for setting in settings] == [5, 1, 1]


def run_of(rate: float, used_: list[float]) -> dict[str, Any]:
    """One run's figures."""
    cores = [{"cores": 0.1} for _ in used_]
    names = ("applied_per_second", "p50_ms", "p99_ms", "cores_per_server", "entries_per_second")
    return {
        **dict.fromkeys((*names, "wire_bytes_per_payload_byte"), 1.0),
        "sustained_per_second": rate,
        "used": used_,
        "doubts": [],
        "servers": cores,
    }


def compared_of(**changed: list[float]) -> dict[str, Any]:
    """A comparison of two rounds: 300 and 280 a second with three leaders."""
    rates = {"many": [300.0, 280.0], "spread": [100.0, 90.0], "leader": [90.0, 100.0], **changed}
    busy = {"many": [0.9, 0.9, 0.9], "spread": [0.9, 0.3, 0.3], "leader": [0.9, 0.0, 0.0]}
    runs = {form: [run_of(rate, busy[form]) for rate in rates[form]] for form in FORMS}
    return comparison(EGRESS, 3, runs, capacity=2e6, size=1024)


def test_the_better_single_leader_of_each_round_counts() -> None:
    """Not the one that happens to make several leaders look best."""
    compared = compared_of()
    assert compared["ratio"] == {"median": 2.9, "least": 2.8, "greatest": 3.0, "runs": 2}
    assert compared["target"] == TARGETS[EGRESS, 3] == 2.7
    assert compared["within_target"] is True
    assert compared["doubts"] == []
    assert compared["payload_bound_many"] == pytest.approx(3 * compared["payload_bound_one"], abs=0.2)
    worse = compared_of(leader=[150.0, 150.0])
    assert worse["within_target"] is False and worse["best_single"] == "leader"
    assert worse["bound"]["median"] == 3
    assert "MISSED" in " ".join(summary({"comparisons": [worse]}))


def test_what_cannot_be_right_is_doubted() -> None:
    """More than as many times as servers: the one leader's link carried something else than commands."""
    (doubt,) = compared_of(many=[400.0, 400.0])["doubts"]
    assert "more than 3 times" in doubt


def test_the_picture_has_measured_and_theory() -> None:
    """A curve each, over the number of servers."""
    plot = picture([compared_of()])
    assert [curve.dashed for curve in plot.curves] == [False, True, True]
    assert plot.x_ticks == [1, 3]


def test_what_a_server_used_is_of_its_own_link() -> None:
    """Bytes a second through its interface; or seconds of CPU."""
    before = {"at_s": 1.0, "cpu_s": 1.0, "sent": {"lo": 0, "wire": 1000}}
    after = {"at_s": 3.0, "cpu_s": 1.5, "sent": {"lo": 9999, "wire": 5000}}
    measured = [{"before": before, "after": after}]
    assert used(measured, EGRESS) == [2000]
    assert used(measured, CPU) == [0.25]


# -- the parts -------------------------------------------------------------------------------------


def test_a_host_decides_address_and_command(tmp_path: Path) -> None:
    """Servers elsewhere than on loopback; the others as ever."""
    hosts = (Host(address="10.77.0.1", closed_network=True), Host())
    first, second = configs(Plan(servers=2, hosts=hosts), tmp_path)
    assert str(first.servers[1]).startswith("10.77.0.1:") and first.insecure_listen
    assert str(second.servers[2]).startswith("127.0.0.1:") and not second.insecure_listen
    assert Config.from_toml(first.to_toml()) == first


def test_a_bucket_holds_at_least_some_frames() -> None:
    """Else a slow link would drop what is larger than its bucket."""
    assert namespaces.shaping(10_000) == [
        "qdisc add dev wire root tbf rate 10000bps burst 16384 limit 4194304"
    ]
    assert "burst 100000 " in namespaces.shaping(10_000_000)[0]


def test_a_network_has_a_namespace_for_each(tmp_path: Path) -> None:
    """Each server's link is there while the block runs, and limited; the holders are gone afterwards."""
    needs(namespaces.missing(), "network namespaces")
    own = network_of("self")
    with namespaces.network(2, 1_000_000) as hosts:
        assert [host.address for host in hosts] == ["10.77.0.1", "10.77.0.2"]
        networks = []
        for host in hosts:
            shown = subprocess.run(
                [*host.prefix, "sh", "-c", "readlink /proc/self/ns/net; tc qdisc show dev wire"],
                capture_output=True, text=True, check=True,
            ).stdout  # fmt: skip
            assert "tbf" in shown and "rate 8Mbit" in shown
            networks.append(shown.splitlines()[0])
        assert len({own, *networks}) == 3
    assert not {network_of(one.name) for one in Path("/proc").glob("[0-9]*")} & set(networks)


@pytest.fixture
def groups(tmp_path: Path) -> list[Path]:
    """Two directories that look like control groups."""
    made = [tmp_path / str(number) for number in range(2)]
    for group in made:
        group.mkdir()
    return made


def test_quotas_speak_both_versions(groups: list[Path]) -> None:
    """A limit and its end, in the words of either version."""
    one = Quotas(Hierarchy(groups[0].parent, 1), groups)
    one.limit(0.4)
    assert (groups[1] / "cpu.cfs_quota_us").read_text() == "4000"
    assert (groups[1] / "cpu.cfs_period_us").read_text() == "10000"
    one.lift()
    assert (groups[1] / "cpu.cfs_quota_us").read_text() == "-1"
    two = Quotas(Hierarchy(groups[0].parent, 2), groups)
    two.limit(1.5)
    assert (groups[0] / "cpu.max").read_text() == "15000 10000"
    two.lift()
    assert (groups[0] / "cpu.max").read_text() == "max 10000"


def test_the_hierarchy_with_the_controller_is_found(tmp_path: Path) -> None:
    """Version 1 by its mount's options, version 2 by what the top gives to groups below it."""
    first = "cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0\n"
    second = f"cgroup2 {tmp_path} cgroup2 rw,nosuid 0 0\n"
    assert hierarchy(first) == Hierarchy(Path("/sys/fs/cgroup/cpu,cpuacct"), 1)
    assert hierarchy(second) is None
    (tmp_path / "cgroup.subtree_control").write_text("memory cpuset\n")
    assert hierarchy(second) is None
    (tmp_path / "cgroup.subtree_control").write_text("cpuset cpu memory\n")
    assert hierarchy("proc /proc proc rw 0 0\n" + second) == Hierarchy(tmp_path, 2)


def test_a_sweep_takes_only_what_the_dead_left(tmp_path: Path) -> None:
    """A process is known by its id and its start: an id that was given anew does not keep a group."""
    alive = f"craft-bench-{os.getpid()}-{started(os.getpid())}-1"
    dead = f"craft-bench-{os.getpid()}-1-1"
    for name, other in itertools.product((alive, dead), ("", "x")):
        (tmp_path / (name + other)).mkdir()
    assert sweep(Hierarchy(tmp_path, 1)) == [dead]
    assert sorted(one.name for one in tmp_path.iterdir()) == sorted([alive, alive + "x", dead + "x"])
