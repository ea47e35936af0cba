"""`netzip score`: the paper's tables to three decimals, every option, every fault."""

from __future__ import annotations

from pathlib import Path

import pytest

TABLES = {
    "resnet18": """\
technique,top1,latency_ms,macs_g,chats_g,disk_mb,params_m,nonzero_m,cpu_percent,ram_gb,energy_j,power_w
None (FP32),70.3,14,1.81,57.92,44.7,11.2,11.2,49.6,2.48,2.2,117.8
PTQ (INT8),70.1,7,1.81,14.48,11.3,11.2,11.2,49.1,2.52,0.8,111.6
QAT (INT8),69.6,7,1.81,14.48,11.3,11.2,11.2,49.1,2.51,0.8,111.6
GUP_R (FP32),50.8,15,1.81,57.92,44.7,11.2,3.3,49.6,2.51,1.8,121.8
GUP_L1 (FP32),66.6,14,1.81,57.92,44.7,11.2,3.3,49.6,2.46,1.7,122.0
""",
    "yolov5s": """\
technique,map50,latency_ms,macs_g,chats_g,disk_mb,params_m,cpu_percent,ram_gb,energy_j,power_w
None PyTorch (FP32),56.6,3165,8.1,259.2,29.2,7.2,75.6,1.9,13.4,4.2
None TF (FP32),56.5,1270,8.1,259.2,29.2,7.2,89.6,1.13,7.0,5.4
PTQ TFlite (FP16),56.5,2288,8.1,129.6,14.6,7.2,25.1,0.49,8.9,3.8
PTQ TFlite (INT8),54.7,1393,8.1,64.8,7.6,7.2,24.9,0.37,5.3,3.7
""",
}
# MEASURING.md, section 2: P, S, C by CPU use, C by disk, E, OCS on the paper's basis, OCS by disk
PRINTED = {
    "PTQ (INT8)": (0.997, 4.000, 1.010, 3.956, 2.750, 4.744, 7.681),
    "QAT (INT8)": (0.990, 4.000, 1.010, 3.956, 2.750, 4.703, 7.619),
    "GUP_R (FP32)": (0.723, 1.000, 1.000, 1.000, 1.222, -0.040, -0.040),
    "GUP_L1 (FP32)": (0.947, 1.000, 1.000, 1.000, 1.294, 0.229, 0.229),
    "None TF (FP32)": (0.998, 1.000, 0.844, 1.000, 1.914, 0.755, 0.911),
    "PTQ TFlite (FP16)": (0.998, 2.000, 3.012, 2.000, 1.506, 3.510, 2.499),
    "PTQ TFlite (INT8)": (0.966, 4.000, 3.036, 3.842, 2.528, 6.312, 7.091),
}


class TestScore:
    @pytest.fixture(autouse=True)
    def tables(self, place):
        for name, text in TABLES.items():
            (place / f"{name}.csv").write_text(text)

    @pytest.mark.parametrize("table", TABLES)
    @pytest.mark.parametrize("size", ["cpu", "disk"])
    def test_the_papers_tables_on_both_bases(self, netzip, table, size):
        found = netzip("score", f"{table}.csv", "--size", size, "--json").object
        assert found["basis"]["size"] == size
        assert found["basis"]["terms"] == "P,S,C,E"
        first, *rows = found["rows"]
        one = {"P": 1.0, "S": 1.0, "C": 1.0, "E": 1.0, "ocs": 0.0}
        assert first == {"technique": TABLES[table].splitlines()[1].split(",")[0]} | one
        assert len(rows) == TABLES[table].count("\n") - 2
        for row in rows:
            P, S, by_cpu, by_disk, E, ocs_cpu, ocs_disk = PRINTED[row["technique"]]
            C, ocs = (by_cpu, ocs_cpu) if size == "cpu" else (by_disk, ocs_disk)
            wanted = {"P": P, "S": S, "C": C, "E": E, "ocs": ocs}
            assert {key: round(row[key], 3) for key in wanted} == wanted

    def test_for_people(self, netzip):
        text = netzip("score", "resnet18.csv", "--size", "cpu").out
        (line,) = (x for x in text.splitlines() if "PTQ (INT8)" in x)
        assert "4.744" in line
        assert "size=cpu" in text

    def test_without_energy_the_term_is_null_and_said(self, netzip):
        bare = "technique,top1,chats_g,disk_mb\nnone,50,4,2\nhalved,50,2,1\n"
        Path("bare.csv").write_text(bare)
        found = netzip("score", "bare.csv", "--json").object
        assert found["basis"]["terms"] == "P,S,C"
        assert [row["E"] for row in found["rows"]] == [None, None]
        assert [row["ocs"] for row in found["rows"]] == [0.0, 2.0]

    def test_options_change_the_score(self, netzip):
        def scored(*options: str) -> float:
            found = netzip("score", "resnet18.csv", "--json", *options).object
            return next(r["ocs"] for r in found["rows"] if r["technique"] == "PTQ (INT8)")

        P, S, C, E = 70.1 / 70.3, 57.92 / 14.48, 44.7 / 11.3, 2.2 / 0.8
        assert scored("--weights", "P=0,S=2,C=0,E=0") == pytest.approx(P * 2 * (S - 1))
        assert scored("--zeta", "2") == pytest.approx(P * (P - 1 + 2 * S - 1 + C - 1 + E - 1))
        assert scored("--speed", "latency", "--weights", "P=0,S=1,C=0,E=0") == pytest.approx(P)
        first = ("--baseline", "QAT (INT8)", "--weights", "P=0,S=0,C=0,E=1")
        assert scored(*first) == pytest.approx(0.0)

    def test_a_header_of_ones_own(self, netzip):
        Path("own.csv").write_text("technique,acc,chats_g,disk_mb\nnone,50,4,2\nhalved,50,2,1\n")
        found = netzip("score", "own.csv", "--column", "acc=top1", "--json").object
        assert [row["ocs"] for row in found["rows"]] == [0.0, 2.0]

    def test_log_writes_the_rows_as_runs(self, netzip, store):
        ended = netzip("score", "resnet18.csv", "--log", "--experiment", "tables", "--json")
        found = {r.info.run_name: r for r in store.all_runs()}
        assert set(found) == {"resnet18"} | {r["technique"] for r in ended.object["rows"]}
        for row in ended.object["rows"]:
            assert found[row["technique"]].data.metrics["score/ocs"] == row["ocs"]
        assert {r.info.status for r in found.values()} == {"FINISHED"}

    @pytest.mark.parametrize(
        ("change", "options", "says"),
        [
            (("14.48", "nan"), [], ["row 'PTQ (INT8)', column 'chats_g': 'nan'", "finite"]),
            (("70.1", "inf"), [], ["row 'PTQ (INT8)', column 'top1': 'inf'"]),
            (("70.1", "seventy"), [], ["column 'top1': 'seventy'"]),
            (("None (FP32),70.3", "None (FP32),0"), [], ["None (FP32)", "top1", "0"]),
            ((",11.3,", ",0,"), [], ["PTQ (INT8)", "disk_bytes"]),
            (("QAT (INT8)", "PTQ (INT8)"), [], ["'PTQ (INT8)': stands there 2 times"]),
            (("disk_mb", "megabytes"), [], ["column 'disk_mb': is missing"]),
            (("", ""), ["--baseline", "None"], ["baseline 'None': no such row"]),
            (("", ""), ["--speed", "warp"], ["'warp'", "chats"]),
            (("", ""), ["--size", "dusk"], ["'dusk'", "mean 'disk'?"]),
            (("", ""), ["--weights", "P=x"], ["P"]),
            (("", ""), ["--weights", "P=1,Q=1"], ["Q"]),
            (("", ""), ["--zeta", "-1"], ["zeta"]),
            (("", ""), ["--column", "acc"], ["--column: 'acc'", "HEADER=MEANING"]),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list | tuple) else "",
    )
    def test_what_cannot_be_scored(self, netzip, store, change, options, says):
        old, new = change
        Path("odd.csv").write_text(TABLES["resnet18"].replace(old, new, 1))
        ended = netzip("score", "odd.csv", "--log", *options)
        assert (ended.status, ended.out) == (2, "")
        for part in says:
            assert part in ended.err
        assert store.all_runs() == []

    def test_a_file_that_is_not_there(self, netzip):
        ended = netzip("score", "none.csv")
        assert (ended.status, ended.out) == (2, "")
        assert "none.csv" in ended.err
