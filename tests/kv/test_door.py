"""The Redis port: pipelines, subscribers, sessions, and clients that want too much."""

from __future__ import annotations

import contextlib
import json
import os
import random
import ssl
import threading
import time
from typing import Any

import pytest
import trio
import trio.testing
import trustme

import craft
from examples.kv.commands import TABLE
from examples.kv.keyspace import SWEEP_KEYS_MAX
from examples.kv.replies import Reply, size
from examples.kv.resp import door
from examples.kv.resp.client import RespLimits
from examples.kv.resp.commands import LOCAL
from examples.kv.users import User, Users, hashed
from tests.kv import doors
from tests.kv.doors import Shop, Wire, shops
from tests.kv.redis import packed

OK = b"+OK\r\n"


async def ask_all(wire: Wire, *lines: str) -> list[bytes]:
    """A pipeline of inline commands; a reply each."""
    await wire.stream.send_all("".join(line + "\r\n" for line in lines).encode())
    return [await wire.reply() for _ in lines]


# -- together --------------------------------------------------------------------------------------


async def test_a_pipeline_of_writes_is_one_entry_of_the_log() -> None:
    """However many commands: they are applied at one position."""
    async with shops() as [shop]:
        wire = await shop.wire()
        before = shop.server.position
        assert await ask_all(wire, *(f"SET k{n} {n}" for n in range(64))) == [OK] * 64
        assert shop.server.position == before + 1
        assert await ask_all(wire, "SET a 1", "GET a", "INCR a", "GET a", "NOSUCH") == [
            OK,
            b"$1\r\n1\r\n",
            b":2\r\n",
            b"$1\r\n2\r\n",
            b"-ERR unknown command 'NOSUCH', with args beginning with: \r\n",
        ]


async def test_a_command_of_a_container_has_no_name_of_its_own() -> None:
    """`CONFIG GET`, not `CONFIG|GET`: that is how it is written about, as in Redis."""
    async with shops() as [shop]:
        wire = await shop.wire()
        for name in ("CONFIG|GET", "OBJECT|ENCODING"):
            text = f"-ERR unknown command '{name}', with args beginning with: 'x' 'port' \r\n"
            assert await wire.ask(name, "x", "port") == text.encode()


async def test_replies_keep_their_order_whatever_travels_with_what() -> None:
    """Of one connection, with commands of all kinds between each other."""
    async with shops() as [shop]:
        wire = await shop.wire()
        lines = [line for n in range(50) for line in (f"SET k {n}", "GET k", f"ECHO {n}", "STRLEN k", "PING")]
        found = await ask_all(wire, *lines)
        assert found[2::5] == [b"$%d\r\n%d\r\n" % (len(str(n)), n) for n in range(50)]
        assert found[1::5] == found[2::5]


async def test_many_clients_are_answered_each_its_own() -> None:
    """What they asked in one look has travelled together."""
    async with shops() as [shop]:
        wires = [await shop.wire() for _ in range(40)]
        for number, wire in enumerate(wires):
            await wire.say("SET", f"k{number}", str(number))
        for wire in wires:
            assert await wire.reply() == OK
        for number, wire in enumerate(wires):
            await wire.say("GET", f"k{number}")
        for number, wire in enumerate(wires):
            assert await wire.reply() == b"$%d\r\n%d\r\n" % (len(str(number)), number)


# -- on several servers ----------------------------------------------------------------------------


async def test_a_write_is_seen_on_every_server() -> None:
    """By linearizable reads, at once; by the others once its position is reached."""
    async with shops(3) as (one, two, three):
        a, b, c = await one.wire(), await two.wire(), await three.wire()
        for turn in range(5):
            assert await a.ask("SET", "k", str(turn)) == OK
            assert await b.ask("GET", "k") == b"$1\r\n%d\r\n" % turn
        assert await c.ask("READMODE", "stale") == OK
        position = (await a.ask("CRAFT.POSITION"))[1:-2]
        assert await c.ask("CRAFT.WAIT", position, "0") >= b":" + position
        assert await c.ask("GET", "k") == b"$1\r\n4\r\n"
        assert await c.ask("READMODE", "session") == OK
        assert await c.ask("INCR", "k") == b":5\r\n"
        assert await c.ask("GET", "k") == b"$1\r\n5\r\n"
        refused = await c.ask("READMODE", "eventual")
        assert refused == b"-ERR READMODE is 'eventual'; allowed are linearizable, session, stale\r\n"


async def test_what_is_published_reaches_the_subscribers_of_every_server_in_one_order() -> None:
    """It goes through the merged log."""
    async with shops(3) as found:
        listeners = [await shop.wire() for shop in found]
        for wire in listeners:
            assert await wire.ask("SUBSCRIBE", "news") == b"*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n"
        speakers = [await shop.wire() for shop in found]
        for number in range(6):
            assert await speakers[number % 3].ask("PUBLISH", "news", str(number)) == b":1\r\n"
        for wire in listeners:
            heard = [await wire.reply() for _ in range(6)]
            assert heard == [b"*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$1\r\n%d\r\n" % n for n in range(6)]


async def test_a_watched_key_may_change_on_another_server() -> None:
    """A transaction is one command of the merged log, and so is what comes before it."""
    async with shops(2) as (one, two):
        a, b = await one.wire(), await two.wire()
        await ask_all(a, "SET k 1", "WATCH k", "MULTI", "SET k 2")
        assert await b.ask("SET", "k", "3") == OK
        assert await a.ask("EXEC") == b"*-1\r\n"
        assert await a.ask("GET", "k") == b"$1\r\n3\r\n"


async def test_one_looks_back_alike_on_every_server() -> None:
    """What a key held at a time: the log says it."""
    async with shops(2) as (one, two):
        a, b = await one.wire(), await two.wire()
        times = []
        for turn in range(4):
            assert await a.ask("SET", "k", str(turn)) == OK
            times.append(one.server.state_machine.now)
            await trio.sleep(0.005)
        for wire in (a, b):
            for turn, time in enumerate(times):
                assert await wire.ask("CRAFT.GETAT", "k", str(time)) == b"$1\r\n%d\r\n" % turn
            assert await wire.ask("CRAFT.GETAT", "k", str(times[0] - 1)) == b"$-1\r\n"
            assert (await wire.ask("CRAFT.GETAT", "k", str(times[0] + 10**9))).startswith(b"-ERR timestamp")


async def test_an_expired_key_is_gone_though_nothing_else_happens() -> None:
    """A read asks the log what time it is, and all servers agree from then on."""
    async with shops(2) as (one, two):
        a, b = await one.wire(), await two.wire()
        assert await a.ask("SET", "k", "1", "PX", "40") == OK
        assert await b.ask("GET", "k") == b"$1\r\n1\r\n"
        await trio.sleep(0.08)
        assert await b.ask("GET", "k") == b"$-1\r\n"
        assert await a.ask("EXISTS", "k") == b":0\r\n"


@pytest.mark.parametrize("outcome", [craft.Unknown, craft.ResultLost, craft.NotReady])
async def test_a_read_without_an_answer_took_no_effect(
    outcome: type[craft.CraftError], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it is not known whether the log was asked for the time."""
    async with shops() as [shop]:
        wire = await shop.wire()
        assert await wire.ask("SET", "k", "v", "PX", "1") == OK
        await trio.sleep(0.005)

        async def fail(_: bytes) -> None:
            raise outcome("it ended")

        monkeypatch.setattr(shop.server, "propose", fail)
        for command in ("GET k", "WATCH k", f"CRAFT.GETAT k {time.time_ns() // 1_000_000 - 1}"):
            assert await wire.ask(*command.split()) == b"-REJECTED no effect, try again: it ended\r\n"


async def test_a_server_that_takes_no_commands_is_read_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one without room on its disk: what is over by a clock, and not yet by the log, is still there."""
    async with shops() as [shop]:
        wire = await shop.wire()
        assert await wire.ask("SET", "k", "v", "PX", "1") == OK
        await trio.sleep(0.005)

        async def refuse(*_: object) -> None:
            raise craft.Overloaded("disk_free_bytes_min")

        with monkeypatch.context() as full:
            full.setattr(shop.server, "propose", refuse)
            assert await ask_all(wire, "GET k", "WATCH k") == [b"$1\r\nv\r\n", OK]
            assert (await wire.ask("SET", "l", "v")).startswith(b"-REJECTED no effect, try again")
        assert await wire.ask("GET", "k") == b"$-1\r\n"


async def test_nobody_hears_that_the_log_was_asked_for_the_time() -> None:
    """Not even who listens to every channel."""
    async with shops() as [shop]:
        ear, wire = await shop.wire(), await shop.wire()
        await ear.ask("PSUBSCRIBE", "*")
        assert await wire.ask("SET", "k", "1", "PX", "5") == OK
        await trio.sleep(0.02)
        assert await wire.ask("GET", "k") == b"$-1\r\n"
        assert await wire.ask("PUBLISH", "c", "hello") == b":1\r\n"
        assert await ear.reply() == b"*4\r\n$8\r\npmessage\r\n$1\r\n*\r\n$1\r\nc\r\n$5\r\nhello\r\n"


async def test_the_log_is_asked_for_the_time_also_while_it_has_much_to_sweep() -> None:
    """No key is taken for gone by a server's own clock because others, gone before, are still held."""
    async with shops() as [shop]:
        wire, machine = await shop.wire(), shop.server.state_machine
        many = [f"SET k{n} 1 PX 20" for n in range(3 * SWEEP_KEYS_MAX)]
        assert set(await ask_all(wire, *many, "SET k 1 PX 60")) == {OK}
        deadline = machine.space.deadlines[b"k"]
        await trio.sleep(0.04)
        assert await wire.ask("EXISTS", "k0") == b":0\r\n"  # sweeps some of them
        await trio.sleep(0.04)
        assert await wire.ask("EXISTS", "k") == b":0\r\n"
        assert machine.now > deadline


async def test_a_server_tells_of_itself() -> None:
    """In JSON, and as INFO does."""
    async with shops() as [shop]:
        wire = await shop.wire()
        status = json.loads((await wire.ask("CRAFT.STATUS")).split(b"\r\n", 1)[1])
        assert status["server_id"] == 1
        info = await wire.ask("INFO")
        sections = ("Server", "Clients", "Memory", "Persistence", "Stats", "Replication", "CPU", "Keyspace")
        assert all(b"# %b\r\n" % name.capitalize().encode() in info for name in sections[:-1])
        await wire.ask("SET", "k", "1")
        assert b"db0:keys=1,expires=0" in await wire.ask("INFO", "keyspace")


# -- anything ------------------------------------------------------------------------------------------

NOT_DRAWN = {b"SHUTDOWN", b"QUIT", b"DEBUG|SLEEP", b"CRAFT.WAIT", b"CLIENT|KILL"}
"""They end connections or wait, as they should."""

WORDS = [
    b"",
    b"0",
    b"1",
    b"-1",
    b"k",
    b"h",
    b"EX",
    b"NX",
    b"GET",
    b"*",
    b"\x00\xff\r\n",
    b"9" * 25,
    b"MATCH",
    b"x" * 300,
]


async def test_any_command_with_any_arguments_is_answered() -> None:
    """Once or, for a subscriber, several times; and the connection goes on, in whichever state it is."""
    rng = random.Random(7)
    names = sorted({*TABLE, *LOCAL} - NOT_DRAWN)
    async with shops() as [shop]:
        wire = await shop.wire()
        for number in range(1500):
            words = [*rng.choice(names).split(b"|"), *rng.choices(WORDS, k=rng.randrange(5))]
            await wire.say(*words)
            await wire.say("RESET" if rng.random() < 0.05 else "PING")
            seen = [await wire.reply()]
            while not any(mark in seen[-1] for mark in (b"PONG", b"pong", b"RESET", b"QUEUED", b"-NOAUTH")):
                seen.append(await wire.reply())
                assert seen[-1], f"the connection ended at {words}"
            if number % 50 == 49:
                while await wire.ask("RESET") != b"+RESET\r\n":
                    pass


async def test_random_bytes_end_in_a_fault_or_in_replies() -> None:
    """And never in a server that answers others no more."""
    rng = random.Random(11)
    async with shops() as [shop]:
        good = await shop.wire()
        for _ in range(150):
            bad = await shop.wire()
            pieces = [
                b"*%d\r\n$3\r\nGET\r\n" % rng.randrange(-2, 4),
                b"$1\r\nk\r\n",
                b"PING\r\n",
                rng.randbytes(9),
            ]
            with contextlib.suppress(trio.BrokenResourceError):
                await bad.stream.send_all(b"".join(rng.choices(pieces, k=rng.randrange(1, 12))))
                await bad.stream.send_eof()  # type: ignore[attr-defined]
                while await bad.stream.receive_some():
                    pass
            assert await good.ask("PING") == b"+PONG\r\n"
        assert len(shop.house.clients) == 1


# -- too much --------------------------------------------------------------------------------------


async def test_a_fault_ends_its_own_connection_only() -> None:
    """What came before it is answered first."""
    async with shops() as [shop]:
        bad, good = await shop.wire(), await shop.wire()
        await bad.stream.send_all(packed([b"PING"]) + b"*1\r\n$999999999999\r\n")
        assert await bad.reply() == b"+PONG\r\n"
        assert await bad.reply() == b"-ERR Protocol error: invalid bulk length\r\n"
        assert await bad.reply() == b""
        assert await good.ask("PING") == b"+PONG\r\n"
        assert len(shop.house.clients) == 1


async def test_a_command_too_large_for_the_log_is_rejected_whole() -> None:
    """And nothing of it takes effect; what is larger than any command ends the connection."""
    async with shops() as [shop]:
        wire = await shop.wire()
        room = shop.house.store.command_bytes_max
        key = b"k" * 200
        reply = await wire.ask(b"SET", key, b"x" * (room - 10))
        assert reply.startswith(b"-REJECTED no effect, too large:")
        assert await wire.ask("DBSIZE") == b":0\r\n"
        assert await wire.ask(b"SET", b"k", b"x" * (room - 40)) == OK
        await wire.stream.send_all(b"*1\r\n$%d\r\n" % (room + 1))
        assert await wire.reply() == b"-ERR Protocol error: invalid bulk length\r\n"


async def test_a_connection_holds_no_more_than_a_command_may_take() -> None:
    """Of a transaction, of watched keys, of channels: what is too much is refused, what was there stays."""
    async with shops() as [shop]:
        wire = await shop.wire()
        large = shop.house.store.command_bytes_max * 2 // 3
        one, two = b"1" * large, b"2" * large
        too_large = b"-REJECTED no effect, too large:"
        assert await wire.ask(b"WATCH", one) == OK
        assert (await wire.ask(b"WATCH", two)).startswith(too_large)
        assert await wire.ask("UNWATCH") == OK
        assert await wire.ask("MULTI") == OK
        assert await wire.ask(b"SET", b"k", one) == b"+QUEUED\r\n"
        for _ in range(3):
            assert (await wire.ask(b"SET", b"k", two)).startswith(too_large)
        [client] = shop.house.clients.values()
        assert client.queue is not None
        assert len(client.queue) == 1
        assert (await wire.ask("EXEC")).startswith(b"-EXECABORT")
        assert await wire.ask("MULTI") == OK
        assert await wire.ask(b"SET", b"k", two) == b"+QUEUED\r\n"
        assert await wire.ask("EXEC") == b"*1\r\n+OK\r\n"
        assert (await wire.ask(b"SUBSCRIBE", one)).startswith(b"*3\r\n$9\r\nsubscribe")
        assert (await wire.ask(b"PSUBSCRIBE", two)).startswith(too_large)
        assert (await wire.ask(b"SUBSCRIBE", one)).startswith(b"*3\r\n$9\r\nsubscribe")


@pytest.mark.parametrize("watched", [["k"], ["k" * 9_000], ["k", *(f"k{n}" for n in range(300))]])
async def test_a_transaction_that_was_queued_fits_into_the_log(watched: list[str]) -> None:
    """With what is watched, however small its commands are: EXEC is no time to learn that it does not."""
    async with shops(engine=small_entries()) as [shop]:
        wire = await shop.wire()
        queued = 0
        assert await ask_all(wire, "WATCH " + " ".join(watched), "MULTI") == [OK, OK]
        while await wire.ask("INCR", "n") == b"+QUEUED\r\n":
            queued += 1
        assert await wire.ask("EXEC") == b"-EXECABORT Transaction discarded because of previous errors.\r\n"
        await ask_all(wire, "WATCH " + " ".join(watched), "MULTI", *["INCR n"] * queued)
        assert (await wire.ask("EXEC")).endswith(b":%d\r\n" % queued)


BOUNDED = RespLimits(replies_bytes_max=100_000)


async def test_what_one_command_answers_is_bounded() -> None:
    """A short request cannot ask for more than memory holds; who asks for less is answered."""
    async with shops(limits=BOUNDED) as [shop]:
        wire = await shop.wire()
        assert await wire.ask("SET", "k", "x" * 30_000) == OK
        too_large = b"-REJECTED no effect, too large: the reply has more than 100000 bytes\r\n"
        assert await wire.ask("MGET", "k", "k", "k", "k") == too_large
        assert len(await wire.ask("MGET", "k", "k", "k")) > 90_000
        await ask_all(wire, "READMODE session")
        assert await wire.ask("MGET", "k", "k", "k", "k") == too_large


@pytest.mark.parametrize("mode", ["linearizable", "session"])
async def test_a_pipeline_may_ask_for_more_than_is_held_of_it(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read a part at a time, as its client takes the replies; another one's has its own parts."""
    async with shops(limits=BOUNDED) as [shop]:
        wires = [await shop.wire() for _ in range(3)]
        found: list[int] = []
        read = shop.house.store.read

        async def noted(*args: Any) -> list[Reply]:
            replies = await read(*args)
            found.append(size(replies))
            return replies

        monkeypatch.setattr(shop.house.store, "read", noted)
        await wires[0].ask("SET", "k", "x" * 30_000)
        for wire in wires:
            assert await wire.ask("READMODE", mode) == OK
            await wire.stream.send_all(packed([b"GET", b"k"]) * 20 + packed([b"STRLEN", b"k"]))
        for wire in wires:
            assert {len(await wire.reply()) for _ in range(20)} == {30_010}
            assert await wire.reply() == b":30000\r\n"
        assert max(found) <= 100_000


async def test_a_transaction_whose_answer_is_too_large_took_effect() -> None:
    """And says so; what concerns the connection ends with it."""
    async with shops(limits=BOUNDED) as [shop]:
        wire, other = await shop.wire(), await shop.wire()
        assert await wire.ask("SET", "k", "x" * 30_000) == OK
        lost = b"-APPLIED it took effect, its answer is lost: the replies have more than 100000 bytes\r\n"
        found = await ask_all(wire, "MULTI", "INCR n", *["GET k"] * 4, "EXEC", "PING")
        assert found[-2:] == [lost, b""]
        assert await other.ask("GET", "n") == b"$1\r\n1\r\n"
        found = await ask_all(other, "MULTI", *["ECHO " + "x" * 30_000] * 4, "EXEC")
        assert found[-1] == lost


async def test_a_pipeline_is_not_cut_because_others_come_with_it() -> None:
    """Together they may fill several entries; each is whole in one of them, with nothing in between."""
    async with shops(engine=small_entries()) as [shop]:
        wires = [await shop.wire() for _ in range(5)]
        for at, wire in enumerate(wires):  # all at once, before the port looks
            sent = b"".join(packed([b"SET", b"k%d:%d" % (at, n), b"x" * 2_000]) for n in range(3))
            assert isinstance(wire.stream, trio.SocketStream)
            os.write(wire.stream.socket.fileno(), sent)
        for wire in wires:
            assert [await wire.reply() for _ in range(3)] == [OK] * 3
        machine = shop.server.state_machine
        for at in range(len(wires)):
            assert len({machine.version(b"k%d:%d" % (at, n), 0) for n in range(3)}) == 1


async def test_a_subscription_to_too_many_channels_is_one_to_none() -> None:
    """What is refused has changed nothing: the client may go on with ordinary commands."""
    async with shops(limits=RespLimits(subscriptions_max=2)) as [shop]:
        wire = await shop.wire()
        for word in ("SUBSCRIBE", "PSUBSCRIBE"):
            assert await wire.ask(word, "a", "b", "c") == b"-ERR more than subscriptions_max = 2\r\n"
        assert await wire.ask("GET", "k") == b"$-1\r\n"
        await wire.say("SUBSCRIBE", "a", "b", "a")
        counts = [(await wire.reply()).splitlines()[-1] for _ in range(3)]
        assert counts == [b":1", b":2", b":2"]


async def test_writes_that_fill_several_entries_are_all_answered() -> None:
    """A pipeline may be larger than an entry."""
    async with shops(engine=small_entries()) as [shop]:
        wire = await shop.wire()
        commands = [packed([b"SET", b"k%d" % n, b"x" * 3000]) for n in range(20)]
        await wire.stream.send_all(b"".join(commands))
        assert [await wire.reply() for _ in commands] == [OK] * 20
        assert await wire.ask("DBSIZE") == b":20\r\n"


def small_entries() -> craft.EngineLimits:
    return craft.EngineLimits(entry_bytes_max=16 * 1024)


async def test_there_may_be_so_many_clients() -> None:
    """The next one is told so."""
    async with shops(limits=RespLimits(clients_max=2)) as [shop]:
        first = await shop.wire()
        second = await shop.wire()
        assert await first.ask("PING") == await second.ask("PING") == b"+PONG\r\n"
        third = await shop.wire()
        assert await third.reply() == b"-ERR max number of clients reached\r\n"
        assert await third.reply() == b""
        await second.ask("QUIT")
        fourth = await shop.wire()
        assert await fourth.ask("PING") == b"+PONG\r\n"
        assert shop.house.refused == 1


async def test_who_does_not_read_is_not_read_either() -> None:
    """A client that asks for megabytes and takes none of it holds up nobody but itself."""
    async with shops() as [shop]:
        slow, quick = await shop.wire(), await shop.wire()
        assert await quick.ask(b"SET", b"k", b"x" * 500_000) == OK
        await slow.stream.send_all(packed([b"GET", b"k"]) * 100)
        for _ in range(20):
            assert await quick.ask("PING") == b"+PONG\r\n"
        held = max(client.send(b"") for client in shop.house.clients.values())
        assert held < 100 * 500_000 / 4
        for _ in range(100):
            assert len(await slow.reply()) > 500_000


async def test_a_subscriber_that_does_not_read_is_disconnected() -> None:
    """Its messages may fill so much memory and no more."""
    async with shops(limits=RespLimits(output_bytes_max=100_000)) as [shop]:
        deaf, speaker = await shop.wire(), await shop.wire()
        await deaf.ask("SUBSCRIBE", "c")
        for _ in range(1000):
            if await speaker.ask(b"PUBLISH", b"c", b"x" * 100_000) == b":0\r\n":
                break
        assert await speaker.ask("PUBSUB", "CHANNELS") == b"*0\r\n"
        assert len(shop.house.clients) == 1


async def test_a_deaf_subscriber_of_patterns_takes_nobody_with_it() -> None:
    """It is disconnected in the middle of a message that others of other patterns hear too."""
    async with shops(limits=RespLimits(output_bytes_max=100_000)) as [shop]:
        deaf, other, speaker = await shop.wire(), await shop.wire(), await shop.wire()
        await deaf.ask("PSUBSCRIBE", "c*")
        await other.ask("PSUBSCRIBE", "?")
        while len(shop.house.clients) == 3:
            assert await speaker.ask(b"PUBLISH", b"c", b"x" * 50_000) == b":2\r\n"
            assert b"pmessage" in await other.reply()
        assert await speaker.ask("PUBSUB", "NUMPAT") == b":1\r\n"


async def test_who_comes_after_a_deaf_client_is_not_taken_for_it() -> None:
    """Its socket has the number of the one that was closed while somebody waited for it to take more."""
    async with shops() as [shop]:
        deaf, root = await shop.wire(), await shop.wire()
        assert await root.ask(b"SET", b"k", b"x" * 500_000) == OK
        for _ in range(3):
            number = (await deaf.ask("CLIENT", "ID"))[1:-2]
            await deaf.stream.send_all(packed([b"GET", b"k"]) * 40)
            while not shop.house.clients[int(number)].send(b""):
                await root.ask("PING")
            assert await root.ask("CLIENT", "KILL", "ID", number) == b":1\r\n"
            deaf = await shop.wire()
        await deaf.stream.send_all(packed([b"GET", b"k"]) * 40)
        for _ in range(40):
            assert len(await deaf.reply()) > 500_000


async def test_who_waits_for_an_answer_or_takes_it_is_not_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it takes; the time begins when that is over."""
    monkeypatch.setattr(door, "LOOK_INTERVAL_S", 0.01)
    async with shops(limits=RespLimits(idle_timeout_s=10)) as [shop]:
        wire, now = await shop.wire(), 0.0
        shop.house.clock = lambda: now
        assert await wire.ask(b"SET", b"k", b"x" * 500_000) == OK
        [client] = shop.house.clients.values()
        await wire.say("DEBUG", "SLEEP", "0.1")
        while client.last_command != b"DEBUG":
            await trio.testing.wait_all_tasks_blocked()
        now = 100.0
        assert await wire.reply() == OK
        await trio.sleep(0.05)
        await wire.stream.send_all(packed([b"GET", b"k"]) * 40)
        while shop.house.clients and not client.send(b""):
            await trio.testing.wait_all_tasks_blocked()
        now = 200.0
        await trio.sleep(0.05)
        for _ in range(40):
            assert len(await wire.reply()) > 500_000
        await trio.sleep(0.05)
        assert await wire.ask("PING") == b"+PONG\r\n"
        now = 300.0
        assert await wire.reply() == b""


async def test_a_client_may_be_ended_by_another() -> None:
    """By its id; who asks stays."""
    async with shops() as [shop]:
        one, two = await shop.wire(), await shop.wire()
        number = (await one.ask("CLIENT", "ID"))[1:-2]
        assert await two.ask("CLIENT", "KILL", "ID", number) == b":1\r\n"
        assert await one.reply() == b""
        assert await two.ask("CLIENT", "KILL", "TYPE", "normal") == b":0\r\n"
        assert await two.ask("PING") == b"+PONG\r\n"


# -- who may ---------------------------------------------------------------------------------------

ALICE = User("alice", hashed("secret"), reads=(b"",), writes=(b"app:",))
ROOT = User("root", hashed("toor"), writes=(b"",), admin=True)
NOPERM = b"-NOPERM this user has no permissions to "


async def test_without_a_password_one_may_log_in_and_nothing_else() -> None:
    """In Redis's words."""
    async with shops(users=[ALICE]) as [shop]:
        wire = await shop.wire()
        assert await wire.ask("GET", "k") == b"-NOAUTH Authentication required.\r\n"
        assert await wire.ask("PING") == b"-NOAUTH Authentication required.\r\n"
        assert (await wire.ask("HELLO", "3")).startswith(b"-NOAUTH HELLO must be called")
        wrong = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"
        assert await wire.ask("AUTH", "alice", "wrong") == wrong
        assert await wire.ask("AUTH", "nobody", "secret") == wrong
        assert await wire.ask("AUTH", "alice", "secret") == OK
        assert await wire.ask("GET", "k") == b"$-1\r\n"
        assert await wire.ask("RESET") == b"+RESET\r\n"
        assert await wire.ask("GET", "k") == b"-NOAUTH Authentication required.\r\n"


async def test_a_large_command_may_follow_a_password_at_once() -> None:
    """Whether one may send it is decided when its turn comes, as in Redis."""
    async with shops(users=[ROOT]) as [shop]:
        for size in (20_000, 500_000):
            wire = await shop.wire()
            for args in ([b"AUTH", b"root", b"toor"], [b"SET", b"k", b"x" * size], [b"DEL", *[b"k"] * 20]):
                await wire.say(*args)
            assert [await wire.reply() for _ in range(3)] == [OK, OK, b":1\r\n"]
            assert await wire.ask("PING") == b"+PONG\r\n"
        wire = await shop.wire()
        await wire.stream.send_all(packed([b"AUTH", b"root", b"x"]) + packed([b"SET", b"k", b"x" * 20_000]))
        assert (await wire.reply()).startswith(b"-WRONGPASS")
        assert await wire.reply() == b"-ERR Protocol error: unauthenticated bulk length\r\n"
        assert await wire.reply() == b""


async def test_passwords_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever guesses must not keep others from coming in; the same password is checked once for all."""
    go = threading.Event()

    class SlowUsers(Users):
        def verify(self, name: str, password: bytes) -> User | None:
            go.wait()
            return super().verify(name, password)

    monkeypatch.setattr(doors, "Users", SlowUsers)
    async with shops(users=[ALICE], limits=RespLimits(passwords_max=8)) as [shop]:
        guessing, right = [await shop.wire() for _ in range(10)], [await shop.wire() for _ in range(5)]
        for number, wire in enumerate([*right, *guessing]):
            await wire.say("AUTH", "alice", "secret" if wire in right else f"guess{number}")
            while shop.house.commands <= number:
                await trio.testing.wait_all_tasks_blocked()
        refused = b"-REJECTED no effect, try again: of passwords_max = 8 passwords too many wait\r\n"
        try:
            for wire in guessing[3:]:
                assert await wire.reply() == refused
        finally:
            go.set()
        for wire in guessing[:3]:
            assert (await wire.reply()).startswith(b"-WRONGPASS")
        for wire in right:
            assert await wire.reply() == OK
        assert await guessing[-1].ask("HELLO", "3", "AUTH", b"\xff", b"\xff") != refused
        assert shop.house.passwords.checks == 5


async def test_a_user_has_rights_over_some_keys() -> None:
    """Reading all, writing some; what tells of others, or ends them, is an admin's."""
    async with shops(users=[ALICE, ROOT]) as [shop]:
        alice, root = await shop.wire(), await shop.wire()
        assert (await alice.ask("HELLO", "3", "AUTH", "alice", "secret")).startswith(b"%")
        assert await root.ask("AUTH", "root", "toor") == OK
        key = NOPERM + b"access one of the keys used as arguments\r\n"
        assert await alice.ask("SET", "app:k", "1") == OK
        assert await alice.ask("SET", "k", "1") == key
        assert await alice.ask("MSET", "app:k", "2", "k", "2") == key
        assert await alice.ask("MGET", "app:k", "k") == b"*2\r\n$1\r\n1\r\n_\r\n"
        assert await alice.ask("KEYS", "*") == b"*1\r\n$5\r\napp:k\r\n"
        assert await alice.ask("FLUSHALL") == NOPERM + b"run the 'flushall' command\r\n"
        assert (await alice.ask("CONFIG", "SET", "timeout", "1")).startswith(NOPERM)
        assert (await alice.ask("CONFIG", "RESETSTAT")).startswith(NOPERM)
        assert (await alice.ask("SHUTDOWN")).startswith(NOPERM)
        assert b"user=root" not in await alice.ask("CLIENT", "LIST")
        assert b"user=alice" in await root.ask("CLIENT", "LIST")
        assert [await alice.ask(*line.split()) for line in ("MULTI", "SET k 1", "EXEC")] == [
            OK,
            key,
            b"-EXECABORT Transaction discarded because of previous errors.\r\n",
        ]
        assert await root.ask("FLUSHALL") == OK


async def test_a_key_that_may_not_be_read_is_neither_watched_nor_looked_back_on() -> None:
    """An admin may do more to the server, and sees no more of the keys."""
    operator = User("operator", hashed("secret"), reads=(b"app:",), admin=True)
    async with shops(users=[operator, ROOT]) as [shop]:
        wire, root = await shop.wire(), await shop.wire()
        assert await root.ask("AUTH", "root", "toor") == OK
        assert await wire.ask("AUTH", "operator", "secret") == OK
        assert await root.ask("MSET", "app:k", "1", "k", "1") == OK
        key = NOPERM + b"access one of the keys used as arguments\r\n"
        now = str(time.time_ns() // 1_000_000)
        assert await wire.ask("GET", "k") == key
        assert await wire.ask("WATCH", "app:k", "k") == key
        assert await wire.ask("CRAFT.GETAT", "k", now) == key
        assert await wire.ask("WATCH", "app:k") == OK
        assert not (await wire.ask("CRAFT.GETAT", "app:k", now)).startswith(NOPERM)


async def test_names_of_users_are_utf_8() -> None:
    """As in the settings, and over HTTP."""
    zoe = User("zoë Ж", hashed("secret"), writes=(b"",), admin=True)
    async with shops(users=[zoe]) as [shop]:
        wire = await shop.wire()
        assert (await wire.ask(b"AUTH", b"zo\xeb", b"secret")).startswith(b"-WRONGPASS")
        assert await wire.ask("AUTH", "zoë Ж", "secret") == OK
        assert "user=zoë Ж".encode() in await wire.ask("CLIENT", "LIST")
        assert await wire.ask("CLIENT", "KILL", "USER", "zoë Ж") == b":0\r\n"


async def test_nobody_writes_lines_into_the_list_of_clients() -> None:
    """What is no command is not shown there."""
    async with shops() as [shop]:
        one, two = await shop.wire(), await shop.wire()
        assert (await one.ask(b"x\nid=99 addr=192.0.2.1:1 name=nobody")).startswith(b"-ERR unknown command")
        found = await two.ask("CLIENT", "LIST")
        assert b"id=99" not in found
        assert b"cmd=client" in found


async def test_the_port_speaks_tls() -> None:
    """And nothing else then; who comes without is disconnected, and disturbs nobody."""
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    async with shops(tls=context) as [shop]:
        trusting = ssl.create_default_context()
        authority.configure_trust(trusting)
        stream = await trio.open_ssl_over_tcp_stream("localhost", port_of(shop), ssl_context=trusting)
        wire = Wire(stream)
        value = bytes(range(256)) * 1000
        assert await wire.ask(b"SET", b"k", value) == OK
        assert await wire.ask("GET", "k") == b"$256000\r\n" + value + b"\r\n"
        plain = await shop.wire()
        while len(shop.house.clients) < 2:
            await wire.ask("PING")
        assert (await wire.ask("CLIENT", "LIST")).count(b"laddr=") == 2
        assert len(shop.house.clients) == 2  # to be listed ends no handshake
        await plain.stream.send_all(b"PING\r\n")
        while await plain.stream.receive_some():
            pass
        assert await wire.ask("PING") == b"+PONG\r\n"
        await trio.aclose_forcefully(stream)


def port_of(shop: Shop) -> int:
    return shop.house.port


async def test_who_stops_answers_what_was_asked() -> None:
    """And takes no more: what was written is answered, though the server is about to end."""
    async with shops() as [shop]:
        busy, idle = await shop.wire(), await shop.wire()
        assert await idle.ask("PING") == b"+PONG\r\n"
        pipeline = [packed([b"DEBUG", b"SLEEP", b"0.02"]), packed([b"SET", b"k", b"v"])] * 10
        await busy.stream.send_all(b"".join(pipeline))
        assert await busy.reply() == OK  # it was read
        await shop.door.drain()
        assert await idle.reply() == b""
        answered = 0
        while (reply := await busy.reply()) == OK:
            answered += 1
        assert reply == b""
        assert answered == len(pipeline) - 1
        with pytest.raises(OSError, match="all attempts to connect"):
            await shop.wire()


async def test_who_leaves_while_waiting_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or is ended: what it waits for may never come."""
    monkeypatch.setattr(door, "LOOK_INTERVAL_S", 0.01)
    async with shops() as [shop]:
        leaver, ended, root = await shop.wire(), await shop.wire(), await shop.wire()
        number = (await ended.ask("CLIENT", "ID"))[1:-2]
        for wire in (leaver, ended):
            await wire.say("CRAFT.WAIT", str(10**15), "0")
            await wire.say("PING")
        while sum(client.waiting is not None for client in shop.house.clients.values()) < 2:
            await root.ask("PING")
        clients = list(shop.house.clients.values())
        await trio.aclose_forcefully(leaver.stream)
        assert await root.ask("CLIENT", "KILL", "ID", number) == b":1\r\n"
        with trio.fail_after(5):
            while len(shop.house.clients) > 1 or any(client.waiting for client in clients):
                await root.ask("PING")


@pytest.mark.parametrize("command", ["SUBSCRIBE a", "CLIENT SETNAME x", "WATCH k", "MULTI"])
async def test_a_connection_that_breaks_leaves_nothing_behind(command: str) -> None:
    """Whatever state it was in."""
    async with shops() as [shop]:
        wire = await shop.wire()
        await ask_all(wire, command)
        await trio.aclose_forcefully(wire.stream)
        other = await shop.wire()
        while len(shop.house.clients) > 1:
            await other.ask("PING")
        assert not shop.house.store.hub.channels
