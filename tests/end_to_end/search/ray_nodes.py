"""Ray's own cluster for tests, in a process of its own: two nodes of one CPU below a head without.

Prints the cluster's address; then reads process ids, one a line, and kills that process and the
node on which it runs; a `{}` when both are gone. Ends with its input.
"""

from __future__ import annotations

import contextlib
import json
import sys

import psutil
from ray.cluster_utils import Cluster

SMALL = {"object_store_memory": 100 * 1024**2, "include_dashboard": False}
QUICK = {  # a node that does not answer is dead after two seconds
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 2,
}


def say(value: dict[str, str]) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def main() -> None:
    head = {"num_cpus": 0, "_system_config": QUICK, **SMALL}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    for _ in range(2):
        cluster.add_node(num_cpus=1, **SMALL)
    say({"address": cluster.address})
    for line in sys.stdin:
        process = psutil.Process(int(line))
        above = {parent.pid for parent in process.parents()}
        (node,) = (
            node
            for node in cluster.worker_nodes
            if above & {p.process.pid for p in node.all_processes["raylet"]}
        )
        cluster.remove_node(node, allow_graceful=False)
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()  # the node's end is nothing that a stopped process would notice
        say({})
    cluster.shutdown()


if __name__ == "__main__":
    main()
