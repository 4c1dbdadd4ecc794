"""The contestants: segmentd on its roads, and the peers, all behind the same few methods.

Owns how each one is configured, started, loaded and stopped. Never measures.

Invariants:
1. `start` may be called again after `stop`, on the same folder and so on the same data.
2. Every contestant is durable before it answers an event.
"""

import abc
import contextlib
import hashlib
import http.client
import json
import secrets
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from bench.processes import BenchError, Child, Endpoint, descendants, send_signal, wait_until_ready
from bench.world import AUDIENCE_IDS, SEGMENT_IDS
from segmentd.settings.model import GraphQLSettings, ServerSettings

KEY_CHARACTERS = 24


class Contestant(abc.ABC):
    """One server under test, in a folder of its own, on given cores."""

    name: str
    describes: str

    def __init__(self) -> None:
        self._children: list[Child] = []
        self._endpoint: Endpoint | None = None
        self.key = secrets.token_urlsafe(KEY_CHARACTERS)
        self.private_key = secrets.token_urlsafe(KEY_CHARACTERS)

    @property
    def endpoint(self) -> Endpoint:
        if self._endpoint is None:
            raise BenchError(f"{self.name} is not started")
        return self._endpoint

    def start(self, folder: Path, cpus: Sequence[int]) -> None:
        """Start and wait until it is ready. folder: kept between starts."""
        folder.mkdir(parents=True, exist_ok=True)
        server = self._spawn(folder, cpus)
        url = server.wait_for_url()
        wait_until_ready(url, server)
        self._endpoint = Endpoint(url, self.key, self.private_key)

    def stop(self) -> None:
        """Stop in the order opposite to starting."""
        for child in reversed(self._children):
            child.stop()
        self._children.clear()
        self._endpoint = None

    @abc.abstractmethod
    def load(self, memberships: int, send: Callable[[], None]) -> None:
        """After the first start on an empty folder: define the segments and bring the memberships of `bench.world` in.

        send: sends them as events through the front door; a contestant may have a faster way to the same state.
        """

    def pids(self) -> list[int]:
        """All its processes, those below them too."""
        for child in self._children:
            child.require_alive()
        return [pid for child in self._children for pid in descendants(child.pid)]

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Take it off its core while another one is measured."""
        pids = self.pids()
        send_signal(pids, signal.SIGSTOP)
        try:
            yield
        finally:
            send_signal(pids, signal.SIGCONT)

    @abc.abstractmethod
    def _spawn(self, folder: Path, cpus: Sequence[int]) -> Child:
        """Start the processes, note them in `_children`, return the one that listens."""

    def _child(self, command: Sequence[str | Path], log: Path, cpus: Sequence[int]) -> Child:
        child = Child(command, log, cpus)
        self._children.append(child)
        return child


class Segmentd(Contestant):
    """segmentd itself.

    overrides: lines of TOML by section, to choose a road. program: the module that runs it, with its first arguments;
    `bench.ticks` and `bench.waits` look on.
    """

    def __init__(
        self,
        name: str,
        describes: str,
        overrides: Mapping[str, Mapping[str, object]],
        program: Sequence[str | Path] = ("segmentd",),
    ) -> None:
        super().__init__()
        self.name = name
        self.describes = describes
        self._overrides = overrides
        self._program = program

    def load(self, memberships: int, send: Callable[[], None]) -> None:  # noqa: ARG002 - events know how many
        self._define_segments()
        send()

    def _define_segments(self) -> None:
        for segment, audience in zip(SEGMENT_IDS, AUDIENCE_IDS, strict=True):
            definition = {"description": "bench", "definition": {"external": {"external_audience_id": audience}}}
            connection = http.client.HTTPConnection(self.endpoint.host, timeout=30)
            with contextlib.closing(connection):
                headers = {"x-api-key": self.private_key, "content-type": "application/json"}
                connection.request("PUT", f"/v3/segments/{segment}", json.dumps(definition), headers)
                answer = connection.getresponse()
                if answer.status not in (200, 201):
                    raise BenchError(f"{self.name}: segment {segment}: {answer.status} {answer.read()[:400]!r}")

    def _spawn(self, folder: Path, cpus: Sequence[int]) -> Child:
        config = folder / "config.toml"
        config.write_text(self._configuration())
        command: list[str | Path] = [sys.executable, "-m", *self._program, "serve"]
        command += ["--config", config, "--data", folder / "data"]
        return self._child([*command, "--listen", "127.0.0.1:0"], folder / "segmentd.log", cpus)

    def _configuration(self) -> str:
        sections: dict[str, dict[str, object]] = {"passthrough": {"enabled": True}, "log": {"level": "warning"}}
        for right, secret in (("public", self.key), ("private", self.private_key)):
            salt = secrets.token_bytes(16)
            digest = hashlib.sha256(salt + secret.encode()).hexdigest()
            sections[f"keys.bench-{right}"] = {"right": right, "salt": salt.hex(), "sha256": digest}
        for section, values in self._overrides.items():
            sections.setdefault(section, {}).update(values)
        return "\n".join(
            f"[{section}]\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())
            for section, values in sections.items()
        )


class Peer(Contestant):
    """A FastAPI application of `bench/peers` with a Redis of its own."""

    def __init__(self, name: str, module: str, describes: str) -> None:
        super().__init__()
        self.name = name
        self.describes = describes
        self._module = module
        self._socket = ""

    def load(self, memberships: int, send: Callable[[], None]) -> None:  # noqa: ARG002 - it has a faster way
        from bench.peers import loading  # noqa: PLC0415 - so that segmentd alone needs no Redis client

        loading.load(self._socket, memberships)
        loading.rewrite_log(self._socket)

    def _spawn(self, folder: Path, cpus: Sequence[int]) -> Child:
        self._socket = str(folder / "redis.sock")
        settings = {
            "redis_socket": self._socket,
            "api_key": self.key,
            "audience_of_segment": dict(zip(SEGMENT_IDS, AUDIENCE_IDS, strict=True)),
        }
        (folder / "peer.json").write_text(json.dumps(settings))
        self._child([*REDIS_SERVER, "--dir", folder, "--unixsocket", self._socket], folder / "redis.log", cpus)
        serve: list[str | Path] = [sys.executable, "-m", f"bench.peers.{self._module}", folder / "peer.json"]
        return self._child(serve, folder / "peer.log", cpus)


# Equal durability: Redis answers a write when its log is fsynced. No snapshots, no TCP port.
REDIS_SERVER: Final[Sequence[str]] = [
    shutil.which("redis-server") or "redis-server",
    *("--port", "0", "--save", "", "--appendonly", "yes", "--appendfsync", "always"),
]


def choose(names: Sequence[str]) -> list[Contestant]:
    """The contestants by name, all of them for no names; segmentd first. Raises BenchError for an unknown name."""
    makers: dict[str, Callable[[], Contestant]] = {"segmentd": lambda: Segmentd("segmentd", "as it is delivered", {})}
    if slow_road := main_road_overrides():
        makers["main-road"] = lambda: Segmentd("main-road", "segmentd without its fast roads", slow_road)
    makers |= {
        "well-done": lambda: Peer("well-done", "well_done", "FastAPI, redis-py, msgspec, Lua, cached graphql-core"),
        "plain": lambda: Peer("plain", "plain", "FastAPI, redis-py, pydantic, pipelined HSET, ariadne"),
    }
    unknown = [name for name in names if name not in makers]
    if unknown:
        raise BenchError(f"unknown contestants {', '.join(unknown)}; there are {', '.join(makers)}")
    return [make() for name, make in makers.items() if not names or name in names]


def main_road_overrides() -> dict[str, dict[str, bool]]:
    """The settings that switch the fast roads off; empty as long as segmentd has only its main road."""
    fast = {"server": (ServerSettings, "lane"), "graphql": (GraphQLSettings, "plans")}
    return {section: {name: False} for section, (struct, name) in fast.items() if name in struct.__struct_fields__}
