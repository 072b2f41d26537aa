"""A network of its own for the servers of one experiment: each behind a link with a limited rate.

A *switch* (a bridge) and each server have a network namespace of their own, and a pair of virtual interfaces
in between. What a server sends leaves through a token bucket; what it receives is not limited. The machine's
own network is not touched: no address, link or name of it is used.

Invariant
- Namespaces have no names: each is held by a process that ends with its standard input, which is the
  harness's. When the harness dies, by SIGKILL too, the holders end, its servers end, and the kernel removes
  the namespaces with all that is in them.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from typing import IO

from bench.processes import BenchError, Host

TOOLS = ("ip", "tc", "unshare", "nsenter")

INTERFACE = "wire"
"""A server's end of its link."""

ADDRESS = "10.77.0.{}"
PREFIX_BITS = 24

BURST_S = 0.01
"""What a bucket holds, as a time at its rate: what may leave at once after a pause."""

BURST_BYTES_MIN = 16 * 1024
"""Ten frames. The kernel cuts what is larger than the bucket into frames before it queues them."""

QUEUE_BYTES = 4 * 1024 * 1024
"""What may wait behind the bucket: more than TCP keeps below a socket, so that nothing is dropped."""

HOLD = "echo held && exec cat"
"""A line once the namespace exists; then wait for the end of standard input."""


def missing() -> str | None:
    """What keeps this machine from emulating a network, and what to do about it; None where nothing does."""
    lacking = [tool for tool in TOOLS if shutil.which(tool) is None]
    if lacking:
        return f"{', '.join(lacking)} not found: install iproute2 and util-linux"
    tried = subprocess.run(("unshare", "--net", "true"), capture_output=True, text=True, check=False)
    if tried.returncode:
        return f"no network namespace can be made ({tried.stderr.strip()}): run as root (CAP_SYS_ADMIN)"
    return None


@contextlib.contextmanager
def network(servers: int, rate: int) -> Iterator[list[Host]]:
    """Hosts on one switch, each with an egress of `rate` bytes a second, while the block runs."""
    with contextlib.ExitStack() as held:
        switch = held.enter_context(_held())
        _run(switch, "ip", "link add switch type bridge", "link set switch up")
        hosts = []
        for number in range(1, servers + 1):
            server = held.enter_context(_held())
            _connect(switch, server, number)
            _run(server, "tc", *shaping(rate))
            address = ADDRESS.format(number)
            hosts.append(Host(address=address, prefix=tuple(entering(server)), closed_network=True))
        yield hosts


def shaping(rate: int) -> list[str]:
    """The commands of `tc` that limit a server's egress to `rate` bytes a second."""
    burst = max(BURST_BYTES_MIN, round(rate * BURST_S))
    # In the words of tc, "bps" are bytes a second, and a plain number of `burst` and `limit` is bytes.
    return [f"qdisc add dev {INTERFACE} root tbf rate {rate}bps burst {burst} limit {QUEUE_BYTES}"]


def entering(holder: int) -> list[str]:
    """What to put before a command so that it runs in a holder's namespace, as the same process."""
    return ["nsenter", f"--net=/proc/{holder}/ns/net", "--"]


def _connect(switch: int, server: int, number: int) -> None:
    port = f"port{number}"
    _run(
        switch,
        "ip",
        f"link add {port} type veth peer name {INTERFACE} netns {server}",
        f"link set {port} master switch",
        f"link set {port} up",
    )
    _run(
        server,
        "ip",
        "link set lo up",
        f"address add {ADDRESS.format(number)}/{PREFIX_BITS} dev {INTERFACE}",
        f"link set {INTERFACE} up",
    )


@contextlib.contextmanager
def _held() -> Iterator[int]:
    """A new network namespace while the block runs, as the id of the process that holds it."""
    holder = subprocess.Popen(
        ("unshare", "--net", "sh", "-c", HOLD),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # Ctrl-C is for the harness alone
    )
    with holder:  # which closes its standard input, and waits until it has ended
        output: IO[str] | None = holder.stdout
        assert output is not None
        said = output.readline().strip()
        if said != "held":
            raise BenchError(f"no network namespace can be made: {said or 'no answer'}")
        yield holder.pid


def _run(holder: int, tool: str, *commands: str) -> None:
    """Commands of one tool in a holder's namespace. Raises BenchError with what the tool said."""
    done = subprocess.run(
        [*entering(holder), tool, "-batch", "-"],
        input="\n".join(commands) + "\n",
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise BenchError(f"{tool} failed at {'; '.join(commands)}: {said}")
