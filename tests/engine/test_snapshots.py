"""Snapshots at a merged position: taken, kept, compacted behind, sent to who lags, installed (PROTOCOL 7)."""

from __future__ import annotations

from dataclasses import replace

from craft.engine.state import Sending
from craft.limits import EngineLimits
from craft.messages import Frame, SnapshotFetch
from craft.raft.progress import ProgressState
from tests.driver import MS, SECOND, Cluster

SMALL = replace(
    EngineLimits(),
    snapshot_log_bytes=20_000,
    log_trailing_bytes=0,
    log_held_bytes_max=0,
    snapshot_chunk_bytes=1000,
    log_memory_bytes_max=0,
    snapshot_stall_ms=2000,
)
"""A log is compacted after a few hundred commands."""


def write(cluster: Cluster, i: int, count: int, name: str = "c") -> None:
    """One command after another, through one server."""
    for number in range(count):
        cluster.write_and_wait(i, f"{name} {number} ".encode() + b"." * 100)


def starts(cluster: Cluster, i: int) -> list[int]:
    return [cluster.raft(i, group).log.start.place.index for group in range(cluster.groups)]


def test_snapshots_are_taken_by_bytes_and_logs_compacted_behind_the_older() -> None:
    """Two are kept, and the logs begin behind the older one's cuts: on disk too."""
    cluster = Cluster(limits=SMALL)
    cluster.settle()
    for i in cluster.ids:
        write(cluster, i, 250, f"s{i}")
    cluster.quiesce()
    cluster.run(SECOND)
    for i in cluster.ids:
        kept = cluster.servers[i].engine.state.snapshots.kept
        assert len(kept) == 2
        older = kept[0].head
        assert all(
            0 < start <= cut.place.index for start, cut in zip(starts(cluster, i), older.cuts, strict=True)
        )
        assert [found.start.place.index for found in cluster.disks[i].recover().groups] == starts(cluster, i)
    cluster.check_answers()


def test_a_snapshot_is_of_one_moment() -> None:
    """Its position, timestamp and digest are those of the merged log there, whoever took it."""
    cluster = Cluster(limits=SMALL, apply=(0, 3 * MS))
    cluster.settle()
    for number in range(300):
        cluster.propose(number % 3, f"c {number} ".encode() + b"." * 100)
        cluster.run(2 * MS)
    cluster.quiesce()
    found = 0
    for i in cluster.ids:
        for info in cluster.servers[i].engine.state.snapshots.kept:
            head = info.head
            for other in cluster.servers.values():
                recent = {one[0]: one for one in other.engine.state.recent}
                if head.position in recent:
                    assert (recent[head.position][5], recent[head.position][1]) == (
                        head.digest,
                        head.timestamp,
                    )
                    found += 1
    assert found


def test_a_restart_begins_at_the_snapshot() -> None:
    """What is in it is not applied again, what came after it is, and requests go on."""
    cluster = Cluster(limits=SMALL)
    cluster.settle()
    write(cluster, 0, 400)
    cluster.quiesce()
    before = cluster.commands(1)
    cluster.restart(1)
    engine = cluster.servers[1].engine.state
    assert (
        0 < engine.snapshots.kept[-1].head.position == engine.applied_position < cluster.servers[0].position
    )
    cluster.run_until(lambda: cluster.servers[1].position >= cluster.servers[0].position)
    assert cluster.commands(1) == before
    cluster.settle()
    write(cluster, 1, 10, "again")
    cluster.quiesce()
    cluster.check_answers()


def lagging(limits: EngineLimits = SMALL, **settings: object) -> Cluster:
    """Server 2 was away for so long that the others have compacted what it needs next."""
    cluster = Cluster(limits=limits, **settings)  # type: ignore[arg-type]
    cluster.settle()
    write(cluster, 0, 10)
    cluster.crash(2)
    cluster.run(2 * SECOND)
    write(cluster, 0, 500, "while away")
    write(cluster, 1, 100, "while away too")
    assert min(starts(cluster, 0)) > 20
    return cluster


def test_who_was_away_for_long_catches_up_by_a_snapshot() -> None:
    """All groups at once; entries follow without a gap, and it takes writes again."""
    cluster = lagging()
    cluster.start(2)
    cluster.run_until(lambda: cluster.servers[2].position >= cluster.servers[0].position)
    assert cluster.servers[2].engine.state.snapshots.installed == 1
    cluster.settle_evenly()
    write(cluster, 2, 10, "back")
    cluster.quiesce()
    cluster.check_answers()
    assert not any(
        progress.state is ProgressState.SNAPSHOT
        for i in cluster.ids
        for group in range(3)
        for progress in cluster.raft(i, group).progress.values()
    )


def test_none_is_captured_while_a_peers_is_on_its_way() -> None:
    """Of two at one position a start must find the one behind which the logs go on: the later."""
    cluster = lagging()
    server = cluster.start(2)
    snapshots = server.engine.state.snapshots
    cluster.run_until(lambda: snapshots.receiving is not None)
    server.engine.snapshots.take()
    while snapshots.receiving is not None or snapshots.received is not None:
        assert not snapshots.capturing
        cluster.run(1 * MS)
    cluster.run_until(lambda: snapshots.taken == 1)
    cuts = snapshots.kept[-1].head.cuts
    assert all(start <= cut.place.index for start, cut in zip(starts(cluster, 2), cuts, strict=True))


def test_a_transfer_survives_lost_and_repeated_frames() -> None:
    """Every piece is checked against what was asked for, and asked for again where it was lost."""
    cluster = lagging()
    cluster.loss, cluster.repeat = 0.1, 0.2
    cluster.start(2)
    cluster.run_until(lambda: cluster.servers[2].position >= cluster.servers[0].position, 60 * SECOND)
    cluster.loss = cluster.repeat = 0.0
    cluster.settle()
    cluster.quiesce()
    cluster.check_answers()


def test_pieces_on_their_way_to_the_disk_outlive_a_connection() -> None:
    """Soak seed 16837: asked for again, they were written twice, and ended the server."""
    cluster = lagging()
    cluster.start(2)
    snapshots = cluster.servers[2].engine.state.snapshots

    def is_being_written() -> bool:
        receiving = snapshots.receiving
        return receiving is not None and receiving.arrived > receiving.written > 2000

    cluster.run_until(is_being_written)
    assert snapshots.receiving is not None
    peer = snapshots.receiving.peer
    cluster.unlink(2, peer)
    cluster.link(2, peer)
    cluster.run_until(lambda: cluster.servers[2].position >= cluster.servers[0].position)
    assert not cluster.ended
    cluster.settle()
    cluster.check_answers()


def test_a_receiver_that_restarts_half_way_goes_on_where_it_was() -> None:
    """Whole blocks that have arrived are not sent again."""
    cluster = lagging()
    cluster.start(2)
    engine = cluster.servers[2].engine.state
    cluster.run_until(
        lambda: engine.snapshots.receiving is not None and engine.snapshots.receiving.written > 5000
    )
    cluster.restart(2)
    fetched: list[int] = []

    def watch(sender: int, _receiver: int, frame: Frame) -> Frame:
        fetched.extend(m.offset for m in frame.messages if isinstance(m, SnapshotFetch) and sender == 2)
        return frame

    cluster.intercept = watch
    cluster.run_until(lambda: cluster.servers[2].position >= cluster.servers[0].position)
    assert fetched and min(fetched) > 0
    cluster.settle()
    cluster.check_answers()


def test_writes_go_on_while_a_snapshot_travels() -> None:
    """It is slow, and nobody waits for it."""
    slow = replace(SMALL, snapshot_bytes_per_second_max=20_000)
    cluster = lagging(slow)
    cluster.start(2)
    cluster.run_until(lambda: cluster.servers[2].engine.state.snapshots.receiving is not None)
    for number in range(50):
        assert cluster.write_and_wait(0, f"meanwhile {number}".encode()) < 200 * MS
    assert cluster.servers[2].engine.state.snapshots.receiving is not None
    cluster.run_until(lambda: cluster.servers[2].position >= cluster.servers[0].position, 120 * SECOND)
    cluster.settle()
    cluster.check_answers()


def test_the_sender_dies_half_way() -> None:
    """Another server's snapshot is taken instead."""
    cluster = lagging(replace(SMALL, snapshot_bytes_per_second_max=40_000))
    cluster.start(2)
    cluster.run_until(lambda: cluster.servers[2].engine.state.snapshots.receiving is not None)
    receiving = cluster.servers[2].engine.state.snapshots.receiving
    assert receiving is not None
    cluster.run(300 * MS)
    cluster.crash(receiving.peer)
    cluster.run_until(lambda: cluster.servers[2].engine.state.snapshots.installed == 1, 120 * SECOND)
    cluster.start(receiving.peer)
    cluster.settle()
    cluster.quiesce()
    cluster.check_answers()


def forget_snapshots(cluster: Cluster, i: int) -> None:
    """All of its snapshots turn out to be damaged."""
    files = cluster.disks[i].snapshots._files
    for name in files.names():
        files.truncate(name, files.size(name) - 1)
    cluster.disks[i] = cluster.disks[i].reopen()


def test_without_a_usable_snapshot_a_server_votes_and_applies_nothing_until_it_gets_one() -> None:
    """Its logs begin behind what it cannot know: nothing is applied to an empty state."""
    cluster = lagging()
    cluster.start(2)
    cluster.run_until(lambda: cluster.servers[2].position >= cluster.servers[0].position)
    cluster.crash(0)
    forget_snapshots(cluster, 0)
    server = cluster.start(0)
    assert server.engine.state.snapshots.unfounded
    token = cluster.read(0)
    cluster.run_until(lambda: server.engine.state.snapshots.installed == 1)
    cluster.settle()
    assert cluster.commands(0) == cluster.commands(1)
    cluster.run_until(lambda: token in server.served)
    cluster.check_answers()


def test_the_origin_settles_its_requests_by_the_session_in_the_snapshot() -> None:
    """They took effect, once; what they came to, nobody can tell it any more."""
    cluster = Cluster(limits=replace(SMALL, proposal_retry_ms=60_000), groups=2)
    cluster.settle()
    write(cluster, 2, 10)
    cluster.run(SECOND)
    token = cluster.propose(2, b"the last word")
    cluster.run(1 * MS)
    cluster.cut(2, 0)
    cluster.cut(2, 1)
    write(cluster, 0, 500, "meanwhile")
    assert b"the last word" in cluster.commands(0)
    cluster.heal()
    cluster.run_until(lambda: cluster.servers[2].engine.state.snapshots.installed == 1)
    assert cluster.servers[2].settled == [token]
    cluster.settle()
    cluster.quiesce()
    cluster.check_answers()


def test_a_snapshot_on_its_way_is_not_pushed_out_by_age() -> None:
    """Soak seed 36821: two younger ones took its place before it had come, again and again, for ever."""
    limits = replace(SMALL, snapshot_interval_ms=100, log_held_bytes_max=1_000_000)
    cluster = Cluster(limits=limits)
    cluster.settle()
    write(cluster, 0, 5)
    cluster.run(SECOND)
    s = cluster.servers[0].engine.state.snapshots
    [*_, sent] = s.kept
    s.sending[1] = Sending(sent.id, None, cluster.servers[0].engine.state.now.monotonic_ns)
    for turn in range(5):
        write(cluster, 0, 3, f"turn {turn}")
        s.sending[1].moved_at = cluster.servers[0].engine.state.now.monotonic_ns
        cluster.run(200 * MS)
    assert sent in s.kept
    del s.sending[1]
    write(cluster, 0, 3, "then")
    cluster.run(SECOND)
    write(cluster, 0, 3, "later")
    cluster.run(SECOND)
    assert sent not in s.kept
