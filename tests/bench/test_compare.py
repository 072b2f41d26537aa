"""`bench compare`: what other systems are sent, what their tools say, and that their writes are counted.

No test looks at how fast anything was. The systems that are not installed are skipped by name.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.__main__ import EXPERIMENTS, parse
from bench.compare import comparison, etcd, nats_wire, peer, redis_load, zookeeper, zookeeper_wire
from bench.compare.comparison import PEERS
from bench.experiment import OptionError
from bench.processes import BenchError

ROOT = Path(__file__).resolve().parents[2]
TINY = ("--repeats", "1", "--seconds", "0.3", "--warmup", "0.2", "--clients", "6")


def compare(systems: str, place: Path, *more: str) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """Run it; nothing is left where the servers' data was. What it printed, and its result."""
    data = place / "data"
    data.mkdir()
    result = place / "result.json"
    done = subprocess.run(
        (sys.executable, "-m", "bench", "compare", "--systems", systems, *TINY, *more, "--dir", str(data),
         "--json", str(result)),
        cwd=ROOT, capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert list(data.iterdir()) == []
    assert result.exists(), done.stdout + done.stderr
    return done, json.loads(result.read_text(encoding="utf-8"))


def marked(mark: str) -> dict[int, str]:
    """The processes that were started with this in their environment, and their names."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended, or is somebody else's
            if mark.encode() in (process / "environ").read_bytes().split(b"\0"):
                found[int(process.name)] = (process / "comm").read_text(encoding="utf-8").strip()
    return found


def until(reached: Callable[[], bool], seconds: float = 20.0) -> bool:
    """Wait for what other processes do; has it come to that?"""
    end = time.monotonic() + seconds
    while not reached() and time.monotonic() < end:
        time.sleep(0.02)
    return reached()


def installed(name: str) -> str:
    """Its name, or the test is skipped with how to install it."""
    missing = PEERS[name].missing()
    if missing is not None:
        pytest.skip(missing)
    return name


# -- options ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--systems", "etcd,mysql"), "'mysql' is none; allowed: some of craft,craft-kv,etcd,"),
        (("--systems", "etcd,etcd"), "'etcd' is there twice"),
        (("--clients", "2"), "'2' is not allowed; allowed: whole numbers 3 to"),
        (("--pipeline", "0"), "'0' is not allowed; allowed: whole numbers 1 to"),
        (("--bytes", "7"), "'7' is not allowed"),
    ],
)
def test_a_wrong_option_is_named_with_what_is_allowed(
    options: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is started."""
    with pytest.raises(SystemExit) as ended:
        parse(["compare", *options])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_the_order_of_systems_is_the_users() -> None:
    """And blanks around a name are no part of it."""
    assert [one.name for one in comparison.chosen("redis, craft-kv")] == ["redis", "craft-kv"]
    with pytest.raises(OptionError):
        comparison.chosen("")


def test_the_short_run_is_a_valid_one() -> None:
    """Its options are accepted, and it has what is always there."""
    quick = EXPERIMENTS["compare"].quick
    _, options, _ = parse(["compare", *quick])
    assert {one.name for one in comparison.chosen(options.systems)} >= {"craft", "craft-kv", "etcd", "redis"}


# -- what is not installed -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "packages"),
    [
        ("etcd", ["etcd-server", "nghttp2-client"]),
        ("redis", ["redis-server", "redis-tools"]),
        ("craft-kv", ["redis-tools"]),
        ("nats", ["nats-server"]),
        ("zookeeper", ["zookeeper"]),
    ],
)
def test_what_is_missing_is_said_with_its_package(
    name: str, packages: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One can copy the command."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(peer, "SYSTEM_PATHS", ())
    monkeypatch.setattr(zookeeper, "JAR", tmp_path / "zookeeper.jar")
    missing = PEERS[name].missing()
    assert missing is not None
    for package in packages:
        assert f"apt-get install {package}" in missing


def test_a_missing_module_is_said_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the package index, not from the system."""
    monkeypatch.setattr(peer, "find_spec", lambda _: None)
    assert PEERS["pysyncobj"].missing() == "pysyncobj is missing: pip install 'craft-consensus[bench]'"
    assert PEERS["craft"].missing() is None


# -- what is sent ----------------------------------------------------------------------------------


def test_an_etcd_put_is_as_protocol_buffers_write_it() -> None:
    """Not compressed, ten bytes; the key is field 1, the value field 2, both with their length."""
    assert etcd.put_frame(b"k", b"value") == bytes.fromhex("00 0000000a 0a 01 6b 12 05 76616c7565")


@pytest.mark.parametrize(("number", "encoded"), [(0, "00"), (127, "7f"), (128, "8001"), (300, "ac02")])
def test_a_length_is_seven_bits_a_byte(number: int, encoded: str) -> None:
    """The last two from the documentation of Protocol Buffers."""
    assert etcd.varint(number) == bytes.fromhex(encoded)


def test_a_long_value_has_a_long_length() -> None:
    """The frame's length counts the message alone."""
    frame = etcd.put_frame(b"bench-0", b"x" * 300)
    assert frame[:5] == b"\0" + struct.pack(">I", len(frame) - 5)
    assert frame[5:17] == b"\x0a\x07bench-0\x12\xac\x02"


def test_zookeeper_requests_are_as_jute_writes_them() -> None:
    """Big-endian; a length before every string, buffer and request."""
    body = zookeeper_wire.set_data_body(b"/a", b"xyz")
    assert zookeeper_wire.request(7, zookeeper_wire.SET_DATA, body) == bytes.fromhex(
        "00000019 00000007 00000005 00000002 2f61 00000003 78797a ffffffff"
    )


def test_zookeepers_replies_are_counted_whatever_pieces_they_come_in() -> None:
    """Whole ones only; and a refusal is none."""
    reply = zookeeper_wire.frame(zookeeper_wire.REPLY_HEAD.pack(1, 2, 0) + bytes(68))
    for cut in range(1, 2 * len(reply)):
        connection = zookeeper_wire.ZooKeeperConnection(0, 8)
        pieces = (2 * reply)[:cut], (2 * reply)[cut:]
        assert [connection.answered(one) for one in pieces] == [cut // len(reply), 2 - cut // len(reply)]
    refusal = zookeeper_wire.frame(zookeeper_wire.REPLY_HEAD.pack(1, 2, -101))
    with pytest.raises(ValueError, match="-101"):
        zookeeper_wire.ZooKeeperConnection(0, 8).answered(refusal)


def test_nats_answers_are_counted_whatever_pieces_they_come_in() -> None:
    """Between lines that are none, and with contents that look like lines."""
    content = b'{"stream":"BENCH", "seq":5}'
    message = b"MSG _INBOX.a 1 %d\r\n%b\r\n" % (len(content), content)
    stream = b"INFO {}\r\nPONG\r\n" + message + b"PING\r\n" + message
    for cut in range(len(stream)):
        connection = nats_wire.NatsConnection(0, 8)
        assert connection.answered(stream[:cut]) + connection.answered(stream[cut:]) == 2


@pytest.mark.parametrize(
    "refusal",
    [b"-ERR 'no'\r\n", b'MSG a 1 34\r\n{"error":{"code":503,"x":"12345"}}\r\n', b"MSG a 1 2\r\n{}\r\n"],
)
def test_a_nats_refusal_is_no_answer(refusal: bytes) -> None:
    """Neither the server's, nor the stream's, nor an answer without a place."""
    with pytest.raises(ValueError, match="NATS"):
        nats_wire.NatsConnection(0, 8).answered(refusal)


# -- what is read ----------------------------------------------------------------------------------

H2LOAD = """
finished in 2.00s, 11181.50 req/s, 1.01MB/s
requests: 22363 total, 22406 started, 22363 done, 22363 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 22363 2xx, 0 3xx, 0 4xx, 0 5xx
"""

REDIS_BENCHMARK = """\
"test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p99_latency_ms","max_latency_ms"
"SET bench-0 xxxx","16666.67","7.367","0.656","7.727","19.807","67.455"
"""


def test_h2loads_successes_are_read_and_a_failure_is_an_error() -> None:
    """Nothing that failed is counted in silence."""
    assert etcd.succeeded(H2LOAD) == 22363
    with pytest.raises(BenchError, match="1 errored"):
        etcd.succeeded(H2LOAD.replace("0 errored", "1 errored"))
    with pytest.raises(BenchError, match="nothing"):
        etcd.succeeded("")


def test_h2loads_log_gives_rate_and_percentiles() -> None:
    """From the first beginning to the last end; requests that failed are not among them."""
    log = ["1000000\t200\t500000\n", "1200000\t200\t800000\n", "1500000\t-1\t9000000\n"]
    driven = etcd.driven_of(etcd.requests_of(log))
    assert driven.per_second == pytest.approx(2.0)
    assert (driven.answered, driven.p50_ms, driven.p99_ms) == (2, 500.0, 800.0)
    assert etcd.driven_of([]).answered == 0


def test_redis_benchmarks_report_is_read() -> None:
    """What is no report is an error."""
    read = redis_load.report(REDIS_BENCHMARK, 1000)
    assert read == redis_load.Report(requests=1000, per_second=16666.67, p50_ms=7.727, p99_ms=19.807)
    for none in ("", "Could not connect\n", REDIS_BENCHMARK.splitlines()[0]):
        with pytest.raises(BenchError, match="nothing that can be read"):
            redis_load.report(none, 1000)


@pytest.mark.parametrize(("wanted", "made"), [(0, 70), (70, 70), (71, 77), (700, 700)])
def test_redis_benchmark_is_told_what_it_can_make(wanted: int, made: int) -> None:
    """Ten connections with seven writes outstanding each: whole turns, and one for each connection."""
    assert redis_load.makeable(wanted, clients=10, pipeline=7) == made


def test_generators_together_are_as_fast_as_the_slowest_lets_them() -> None:
    """1,000 writes in 1 s and 1,000 in 2 s are 1,000 a second, and the worse percentiles stand."""
    fast = redis_load.Report(requests=1000, per_second=1000.0, p50_ms=1.0, p99_ms=9.0)
    slow = redis_load.Report(requests=1000, per_second=500.0, p50_ms=2.0, p99_ms=4.0)
    assert redis_load.driven_of([fast, slow]) == peer.Driven(
        answered=2000, per_second=1000.0, p50_ms=2.0, p99_ms=9.0
    )


# -- figures ---------------------------------------------------------------------------------------


def test_ratios_are_taken_round_by_round() -> None:
    """What ran side by side is compared: here each round says 2, whatever the medians' ratio is."""
    systems: list[dict[str, Any]] = [
        {"name": "craft-kv", "runs": [{"writes_per_second": one} for one in (20.0, 200.0)]},
        {"name": "etcd", "runs": [{"writes_per_second": one} for one in (10.0, 100.0)]},
    ]
    comparison.relate(systems)
    assert systems[0]["over"]["etcd"] == {"median": 2.0, "least": 2.0, "greatest": 2.0, "runs": 2}


def test_a_load_generator_at_its_limit_is_a_doubt() -> None:
    """And one that is not, or is none, is not."""
    systems = [
        {"name": name, "generator_cores": {"median": cores}}
        for name, cores in (("busy", 0.97), ("calm", 0.4), ("inside", None))
    ]
    assert [one.split(":")[0] for one in comparison.doubts(systems)] == ["busy"]


@pytest.mark.parametrize(("held", "wrong"), [(9, True), (10, False), (12, False), (13, True)])
def test_a_server_holds_what_was_answered_and_at_most_what_was_sent(held: int, wrong: bool) -> None:
    """Fewer is a loss, more was never asked for."""
    assert bool(peer.differing({"server 1": held}, range(10, 13))) == wrong


# -- whole runs ------------------------------------------------------------------------------------


@pytest.mark.system
@pytest.mark.parametrize("name", list(PEERS))
def test_a_systems_writes_are_counted(name: str, tmp_path: Path) -> None:
    """Its servers hold what was answered; and version, durability and ratios stand in the table."""
    done, result = compare(installed(name), tmp_path, "--pipeline", "7")
    assert done.returncode == 0, done.stdout + done.stderr
    (one,) = result["systems"]
    assert one["runs"][0]["answered"] > 0
    assert one["version"] != "unknown"
    assert one["cpu_seconds_per_1000_writes"]["median"] is not None
    assert one["p50_ms"]["median"] <= one["p99_ms"]["median"]
    row = next(line for line in done.stdout.splitlines() if line.strip().startswith(f"| {name} "))
    assert one["version"] in row and one["durability"] in row and one["generator"] in row


@pytest.mark.system
@pytest.mark.parametrize("name", ["etcd", "redis", "pysyncobj", "craft-kv"])
def test_writes_that_are_not_held_fail_the_run(name: str, tmp_path: Path) -> None:
    """Those that were counted too many are found: exit code 1, and the result says where."""
    done, result = compare(installed(name), tmp_path, "--plant-mismatch")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "FAILED" in done.stdout
    answered = result["systems"][0]["runs"][0]["answered"]
    assert any(
        f"{name}, round 1: " in one and " writes; callers were answered" in one for one in result["failures"]
    )
    assert answered > 0


@pytest.mark.system
def test_what_is_missing_is_skipped_and_the_others_are_compared(tmp_path: Path) -> None:
    """With its name, on a machine without servers; and with nothing at all there is nothing to compare."""
    nowhere = {**os.environ, "PATH": str(tmp_path)}
    script = (
        "import sys; from bench.compare import peer; peer.SYSTEM_PATHS = ();"
        "from bench.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )

    def run(systems: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            (sys.executable, "-c", script, "compare", "--systems", systems, *TINY),
            cwd=ROOT, env=nowhere, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    done = run("pysyncobj,etcd")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped      etcd: etcd is missing: apt-get install etcd-server" in done.stdout
    done = run("etcd")
    assert done.returncode == 3, "the machine lacks what it takes"
    assert "nothing to compare: etcd: etcd is missing: apt-get install etcd-server" in done.stderr


@pytest.mark.system
@pytest.mark.parametrize(
    ("name", "generator", "ended_by"),
    [
        ("redis", "redis-benchmark", signal.SIGKILL),
        ("etcd", "h2load", signal.SIGINT),
        ("pysyncobj", "python", signal.SIGKILL),
    ],
)
def test_nothing_outlives_the_harness(
    name: str, generator: str, ended_by: signal.Signals, tmp_path: Path
) -> None:
    """By Ctrl-C its directory goes, too; by SIGKILL servers and load generators end when its pipe does."""
    mark = f"CRAFT_TEST_MARK={tmp_path}"
    with subprocess.Popen(
        (sys.executable, "-m", "bench", "compare", "--systems", installed(name), "--seconds", "60",
         "--warmup", "60", "--dir", str(tmp_path)),
        cwd=ROOT, env=dict(os.environ, CRAFT_TEST_MARK=str(tmp_path)), stdout=subprocess.PIPE, text=True,
    ) as harness:  # fmt: skip
        assert harness.stdout is not None
        for line in harness.stdout:
            if "warming up" in line:
                break
        assert until(lambda: generator in marked(mark).values())
        harness.send_signal(ended_by)
        assert harness.wait(timeout=30) == (-ended_by if ended_by == signal.SIGKILL else 128 + ended_by)
    assert until(lambda: not marked(mark)), marked(mark)
    assert ended_by == signal.SIGKILL or list(tmp_path.iterdir()) == []
