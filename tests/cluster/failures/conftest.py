"""One cluster for all tests of this folder, made whole again after each; and nodes of segmentd over it."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.conftest import NONE_HERE
from tests.cluster.engines import find_engine
from tests.cluster.failures.service import Service

Serve = Callable[..., Service]


@pytest.fixture(scope="package")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three masters with two replicas each, to which everything is done."""
    if find_engine() is None:
        pytest.skip(NONE_HERE)
    with Cluster(tmp_path_factory.mktemp("patient")) as cluster:
        yield cluster


@pytest.fixture
def whole(patient: Cluster) -> Iterator[Cluster]:
    """The cluster, whole and empty; whatever a test does to it is undone afterwards."""
    patient.flush()
    yield patient
    print(patient.log_text())
    heal(patient)


def heal(cluster: Cluster) -> None:
    """All servers run, thawed, replicating and with the settings that they began with."""
    for node in cluster.nodes:
        if node.is_frozen:
            node.thaw()
    cluster.start_all()
    for node in cluster.nodes:
        node.resume_replication()
    cluster.wait_whole()


@pytest.fixture
def serve(tmp_path: Path, whole: Cluster) -> Iterator[Serve]:
    """Starts nodes over the cluster; their logs are looked at when the test is over."""
    started: list[Service] = []
    numbers = itertools.count()
    with ExitStack() as stack:

        def start(count: int = 1, store: dict[str, Any] | None = None, **sections: dict[str, Any]) -> Service:
            folder = tmp_path / f"service-{next(numbers)}"
            folder.mkdir()
            service = stack.enter_context(Service(folder, whole, count, store or {}, **sections))
            started.append(service)
            return service

        yield start
    for service in started:
        service.check_logs()
