"""Every metric key that is logged, and what it says: unit, direction, origin."""

from __future__ import annotations

import re

__all__ = ["KEYS", "describe"]

_INTERVAL = "lower and upper end of its 95 % interval: _low, _high"

KEYS = {
    "accuracy/top1": "fraction right, the deployable on test; more is better",
    "accuracy/top5": "fraction with the label among the five highest; more is better",
    "accuracy/precision_macro": "mean over classes of precision; more is better",
    "accuracy/recall_macro": "mean over classes of recall; more is better",
    "accuracy/f1_macro": "mean over classes of F1; more is better",
    "accuracy/ece": "expected calibration error, 15 bins (Guo et al. 2017); less is better",
    "accuracy/drop_points": f"100 x (baseline - candidate), paired; less is better; {_INTERVAL}",
    "accuracy/mcnemar_p": "McNemar's exact p: chance of such a difference if there were none",
    "speed/latency_ms": f"median over interleaved rounds, batch 1; less is better; {_INTERVAL}",
    "speed/latency_ms_p95": "95th percentile over all calls, ms; less is better",
    "speed/rounds": "interleaved rounds that were timed",
    "speed/aa_ratio": f"the baseline against itself in two sessions, must contain 1; {_INTERVAL}",
    "speed/throughput_b<N>": "samples per second at batch N; more is better",
    "speed/macs": "multiply-accumulates of one sample, off the graph; less is better",
    "speed/macs_thop": "the same of the float network by thop (with BatchNorm and pooling)",
    "speed/ops": "operations of one sample, 2 x MACs; less is better",
    "speed/chats": "sum over layers of operations x bit width (paper, eq. 5); less is better",
    "speed/mean_bits": "CHATS / operations",
    "speed/layers": "layers that the runtime executes",
    "speed/int8_layers": "of these, in integer arithmetic",
    "size/disk_bytes": "the file that ships; less is better",
    "size/zip_bytes": "the same under deflate level 9; less is better",
    "size/parameters": "weights and biases in the graph, as the numbers they stand for",
    "size/nonzero": "of these, not zero; less is better",
    "size/sparsity": "1 - nonzero / parameters",
    "size/load_ms": "a fresh process opens the file; less is better",
    "size/first_inference_ms": "its first inference after that; less is better",
    "size/ram_bytes": "peak resident set of a fresh process that loads and runs, less before",
    "size/cpu_percent": "user + system time / wall time / cores, over the latency window",
    "ratio/P": "accuracy candidate / baseline; more is better; 1 = same",
    "ratio/S": "speed baseline / candidate on the basis (CHATS by default); more is better",
    "ratio/C": "size baseline / candidate on the basis (disk by default); more is better",
    "ratio/E": "energy baseline / candidate, where there is a meter; more is better",
    "ratio/pcr": "parameters baseline / candidate",
    "ratio/its": f"latency, median per-round baseline / candidate; more is better; {_INTERVAL}",
    "ratio/esr": "energy baseline / candidate",
    "ratio/al": "relative loss of accuracy; less is better; 0 = same",
    "ratio/zip": "zipped size baseline / candidate",
    "score/ocs": "P x (l1 (P-1) + l2 (S-1) + l3 (C-1) + l4 (E-1)); more is better; 0 = baseline",
    "score/feasible": "1 within every limit that the command knows, else 0",
    "score/violation": "sum of excess / limit over the limits that are broken; 0 = feasible",
    "fidelity/agreement": "fraction of samples with the baseline's answer; 1 = same",
    "fidelity/positive_flips": "fraction wrong in the baseline and right now",
    "fidelity/negative_flips": "fraction right in the baseline and wrong now",
    "fidelity/js_divergence": "mean Jensen-Shannon divergence of the outputs, nats; 0 = same",
    "fidelity/confidence_change": "mean absolute change of the top-1 confidence",
    "fidelity/confidence_change_disagreeing": "the same over samples with another answer",
    "fidelity/worst_class_drop_points": "largest fall of one class's recall, points",
    "fidelity/export_max_abs_diff": "largest |onnx - torch| of the float export on random images",
    "compress/seconds": "wall time of the chain's techniques; from the cache: that of their making",
    "training/loss": "mean training loss of an epoch, by epoch",
    "training/validation": "accuracy of the float network on validation, by epoch: it chooses one",
    "validation/...": "accuracy, fidelity, ratio/P, ratio/al, score on validation: they select",
    "search/best_ocs": "on a search's parent: the best feasible OCS so far, by trial",
    "search/ended": "on a search's parent: how many trials have ended, by trial",
    "search/feasible": "of these, judged and within the constraint",
    "search/infeasible": "of these, judged and outside the constraint",
    "search/same": "of these, chains that had been tried",
    "search/skipped": "of these, by the bound",
    "search/stopped": "of these, early, out of the constraint's reach",
    "search/failed": "of these, with an error",
    "search/seconds": "on a search's parent: wall time in which a trial was at work, s",
    "best/...": "on the parent: the same figure of the best candidate",
}


def describe(key: str) -> str | None:
    """What a logged key says, or None for a key that is not ours."""
    bare = key.removeprefix("best/").removeprefix("validation/")
    if re.fullmatch(r"speed/throughput_b\d+", bare):
        return KEYS["speed/throughput_b<N>"]
    if bare in KEYS:
        return KEYS[bare]
    whole = KEYS.get(re.sub("_(low|high)$", "", bare), "")
    return whole if _INTERVAL in whole else None
