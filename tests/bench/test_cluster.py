"""The arithmetic of the bench of a cluster: costs are shared out by what was done, and the paper adds up."""

from bench.clusterload import Gap, Trickle
from bench.clustertables import Bytes, Costs, cost, failover, paper
from bench.processes import Endpoint


def test_a_cost_is_processor_time_by_what_was_done() -> None:
    values = {(1, "w", "done"): [1_000.0, 4_000.0, 2_000.0], (1, "w", "node_seconds"): [0.5, 0.1, 0.2]}
    assert cost(values, 1, "w", "node") == 0.2 / 2_000
    assert cost(values, 2, "w", "node") == 0.0


def test_the_paper_takes_what_is_scarcer_memory_or_processor_time() -> None:
    costs = Costs(n_e=14e-6, n_q=70e-6, p_e=1.4e-6, p_q=0.7e-6, r_e=2e-6)
    text = "\n".join(paper(costs, [Bytes(5, 160.0, 80.0)]))
    # (500,000 x 14 µs + 1,000,000 x 70 µs) / 0.7 = 110; (0.7 + 0.7) / 0.7 = 2.
    assert "**110 nodes**" in text
    assert "at 70% busy 2 primaries" in text
    # 160 GB x 1.5 / 32 GiB = 6.98.
    assert "by memory 7 primaries of 32 GiB. So **7 primaries and 14 replicas**" in text


def test_a_gap_ends_with_the_last_answer_that_was_held_up() -> None:
    trickle = Trickle(Endpoint("http://127.0.0.1:1", "public", "private"))
    trickle._seen["events"] = [  # as its threads would note them
        (0.0, 0.1, True),
        (9.9, 13.5, True),
        (10.5, 13.6, False),
        (13.7, 13.8, True),
    ]
    gap = trickle.gap("events", fault_at=10.0)
    assert gap == Gap(sent=4, refused=1, longest_seconds=13.5 - 9.9, until_all_seconds=13.6 - 10.0)
    assert "| events | 4 | 1 | 3.60 | 3.60 |" in list(failover({"events": gap}, 1500))
