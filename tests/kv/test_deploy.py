"""The files that deploy the store: no container engine is asked, but what they run is what there is."""

from __future__ import annotations

import configparser
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import craft
from examples.kv import __main__ as program
from examples.kv import serving

DEPLOY = Path(program.__file__).parent / "deploy"


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text(encoding="utf-8")))


def entrypoint() -> list[str]:
    """What the image runs, whatever is added to it."""
    found = re.search(
        r"^ENTRYPOINT (\[.*\])$", (DEPLOY / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert found is not None
    words: list[str] = yaml.safe_load(found[1])
    return words


def commands() -> Iterator[tuple[str, list[str]]]:
    """Every command line that one of the files makes, by where it stands."""
    [compose] = documents("compose.yaml")
    for name, service in compose["services"].items():
        yield f"compose, {name}", [*entrypoint(), *service["command"]]
    yield "compose, healthcheck", compose["services"]["first"]["healthcheck"]["test"][1:]
    for pod in ("kv-0", "kv-1"):
        yield f"stateful set, {pod}", in_shell(container()["args"][0], pod)
    unit = (DEPLOY / "craft-kv.service").read_text(encoding="utf-8")
    found = re.search(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    assert found is not None
    yield "systemd", shlex.split(found[1])


def container() -> dict[str, Any]:
    one: dict[str, Any] = documents("statefulset.yaml")[1]["spec"]["template"]["spec"]["containers"][0]
    return one


def in_shell(script: str, pod: str) -> list[str]:
    """What the shell of that pod runs in the end."""
    case, rest = script.split("esac;")
    first, option = re.findall(r"(kv-\d+)\) CREATE=(\S+);;", case)[0]
    rest = rest.replace("$POD", pod).replace("$CREATE", option if pod == first else "")
    words = shlex.split(rest)
    assert words.pop(0) == "exec"
    return words


COMMANDS = dict(commands())


@pytest.mark.parametrize("where", COMMANDS)
def test_every_command_is_one_that_the_program_takes(where: str) -> None:
    """An option that is renamed is renamed here, too."""
    words = COMMANDS[where]
    at = words.index("examples.kv")
    assert words[at - 1] == "-m"
    options = program.parser().parse_args(words[at + 1 :])
    if "kv-1" in where:
        assert options.host == "kv-1.kv"
        assert not options.create
    if "kv-0" in where:
        assert options.create


def test_an_unknown_option_would_be_seen() -> None:
    """The check above can fail."""
    with pytest.raises(SystemExit):
        program.parser().parse_args(["member", "--dir", "/data", "--hots", "kv-0"])


def test_the_image_holds_what_the_files_ask_for() -> None:
    """Ports that are published are those that the server listens on; what is copied is there."""
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    exposed = set(map(int, re.search(r"^EXPOSE (.*)$", text, re.MULTILINE)[1].split()))  # type: ignore[index]
    member = program.parser().parse_args(["member", "--dir", "/data", "--host", "h"])
    listened = {member.redis_port, member.http_port, member.client_port, member.peer_port}
    assert exposed == listened
    service = {one["port"] for one in documents("statefulset.yaml")[0]["spec"]["ports"]}
    assert service == listened
    root = DEPLOY.parents[2]
    for line in re.findall(r"^COPY (.*)$", text, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (root / source).exists(), source


def test_whoever_stops_a_server_waits_for_it_to_hand_over() -> None:
    """Its groups go to others and clients are answered: the engines' own patience is too short."""
    seconds = (
        serving.DRAIN_S
        + craft.Config(cluster="kv", server_id=1, servers={1: "localhost:1"}).close_timeout_ms / 1000
    )
    [compose] = documents("compose.yaml")
    for service in compose["services"].values():
        assert int(service["stop_grace_period"].removesuffix("s")) > seconds
    assert (
        documents("statefulset.yaml")[1]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
        > seconds
    )
    unit = (DEPLOY / "craft-kv.service").read_text(encoding="utf-8")
    found = re.search(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    assert found is not None
    assert int(found[1]) > seconds


def test_nobody_waits_for_another_to_be_ready() -> None:
    """After all were stopped none is ready alone: only a majority of them is, and all have to be started."""
    assert documents("statefulset.yaml")[1]["spec"]["podManagementPolicy"] == "Parallel"
    [compose] = documents("compose.yaml")
    assert compose["services"]["more"]["depends_on"] == ["first"]
    assert compose["services"]["more"]["restart"] == "on-failure"  # it ends where nobody answers yet


def test_systemd_starts_a_server_again_for_ever_and_only_where_it_has_failed() -> None:
    """By default it gives up after five starts in ten seconds; who is removed, or told to stop, has not."""
    unit = configparser.ConfigParser(interpolation=None, strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # as the manual of configparser has it
    unit.read(DEPLOY / "craft-kv.service", encoding="utf-8")
    assert unit["Unit"]["StartLimitIntervalSec"] == "0"
    assert unit["Service"]["Restart"] == "on-failure"


@pytest.mark.parametrize("version", ["1.28", "1.37"])
def test_kubernetes_knows_every_field(version: str) -> None:
    """By its own schema, strictly. The package brings all versions' schemas, too much to ask of everybody."""
    schemas = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
    for document in documents("statefulset.yaml"):
        schemas.validate(document, version, strict=True)
    document["spec"]["servceName"] = document["spec"].pop("serviceName")
    with pytest.raises(schemas.ValidationError, match="servceName"):
        schemas.validate(document, version, strict=True)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("up --dir FILE", "--dir: FILE cannot be used"),
        ("up --dir FILE/x", "--dir: FILE/x cannot be used"),
        ("member --dir FILE --create", "--dir: FILE cannot be used"),
        ("serve --config FILE", "craft: is missing"),
        ("health http://127.0.0.1:abc/health", "nonnumeric port"),
        ("health http://[::1/health", "Invalid IPv6 URL"),
    ],
)
def test_a_wrong_word_is_told_in_one_line(
    words: str, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And not as a failure of the program."""
    file = tmp_path / "file"
    file.touch()
    assert program.main(words.replace("FILE", str(file)).split()) in (1, 2)
    told = capsys.readouterr().err
    assert told.startswith("kv: ")
    assert complaint.replace("FILE", str(file)) in told
    assert told.count("\n") == 1
