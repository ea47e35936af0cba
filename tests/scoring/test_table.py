from __future__ import annotations

import pytest

from netzip_mlflow.errors import InputError
from netzip_mlflow.scoring import Basis, read_table, score_table

# The paper's two tables and the OCS that follow from them (MEASURING.md, section 2)
RESNET18 = """\
technique,top1,latency_ms,macs_g,chats_g,disk_mb,params_m,nonzero_m,cpu_percent,ram_gb,energy_j,power_w
None (FP32),70.3,14,1.81,57.92,44.7,11.2,11.2,49.6,2.48,2.2,117.8
PTQ (INT8),70.1,7,1.81,14.48,11.3,11.2,11.2,49.1,2.52,0.8,111.6
QAT (INT8),69.6,7,1.81,14.48,11.3,11.2,11.2,49.1,2.51,0.8,111.6
GUP_R (FP32),50.8,15,1.81,57.92,44.7,11.2,3.3,49.6,2.51,1.8,121.8
GUP_L1 (FP32),66.6,14,1.81,57.92,44.7,11.2,3.3,49.6,2.46,1.7,122.0
"""
YOLOV5S = """\
technique,map50,latency_ms,macs_g,chats_g,disk_mb,params_m,cpu_percent,ram_gb,energy_j,power_w
None PyTorch (FP32),56.6,3165,8.1,259.2,29.2,7.2,75.6,1.9,13.4,4.2
None TF (FP32),56.5,1270,8.1,259.2,29.2,7.2,89.6,1.13,7.0,5.4
PTQ TFlite (FP16),56.5,2288,8.1,129.6,14.6,7.2,25.1,0.49,8.9,3.8
PTQ TFlite (INT8),54.7,1393,8.1,64.8,7.6,7.2,24.9,0.37,5.3,3.7
"""
# row: P, S, C on CPU utilisation, C on disk, E, OCS on the paper's basis, OCS on CHATS + disk
EXPECTED = {
    "PTQ (INT8)": (0.997, 4.000, 1.010, 3.956, 2.750, 4.744, 7.681),
    "QAT (INT8)": (0.990, 4.000, 1.010, 3.956, 2.750, 4.703, 7.619),
    "GUP_R (FP32)": (0.723, 1.000, 1.000, 1.000, 1.222, -0.040, -0.040),
    "GUP_L1 (FP32)": (0.947, 1.000, 1.000, 1.000, 1.294, 0.229, 0.229),
    "None TF (FP32)": (0.998, 1.000, 0.844, 1.000, 1.914, 0.755, 0.911),
    "PTQ TFlite (FP16)": (0.998, 2.000, 3.012, 2.000, 1.506, 3.510, 2.499),
    "PTQ TFlite (INT8)": (0.966, 4.000, 3.036, 3.842, 2.528, 6.312, 7.091),
}
SMALL = "technique,top1,chats_g,disk_mb\nfp32,88.2,2.6,1.08\nint8,88.0,0.65,0.27\n"


@pytest.fixture
def write(tmp_path):
    def write(text, encoding="utf-8"):
        path = tmp_path / "table.csv"
        path.write_text(text, encoding=encoding)
        return path

    return write


@pytest.mark.parametrize(("text", "accuracy"), [(RESNET18, "top1"), (YOLOV5S, "map50")])
def test_the_papers_tables(write, text, accuracy):
    path = write(text)
    for size, c, ocs in (("cpu", 2, 5), ("disk", 3, 6)):
        basis = Basis(accuracy=accuracy, size=size)
        first, *others = score_table(read_table(path, basis), basis)
        assert first.score.ocs == 0
        for found in others:
            want = EXPECTED[found.row.name]
            s = found.score
            assert s.terms == "P,S,C,E"
            got = [round(v, 3) for v in (s.P, s.S, s.C, s.E, s.ocs)]
            assert got == [want[0], want[1], want[c], want[4], want[ocs]]


def test_units_are_those_of_the_metric_keys(write):
    rows = read_table(write(RESNET18), Basis())
    assert rows[1].metrics == {
        "accuracy/top1": pytest.approx(0.701),
        "speed/latency_ms": 7,
        "speed/macs": pytest.approx(1.81e9),
        "speed/chats": pytest.approx(14.48e9),
        "size/disk_bytes": pytest.approx(11.3e6),
        "size/parameters": pytest.approx(11.2e6),
        "size/nonzero": pytest.approx(11.2e6),
        "size/cpu_percent": 49.1,
        "size/ram_bytes": pytest.approx(2.52e9),
        "energy/joules": 0.8,
        "energy/watts": 111.6,
    }


def test_energy_that_is_not_power_times_time_is_flagged(write):
    rows = read_table(write(RESNET18), Basis())
    assert rows[0].flags == ("energy 2.2 J differs from power x latency = 1.65 J by over 10 %",)
    assert rows[1].flags == ()


def test_percent_and_fractions_give_the_same(write):
    basis = Basis()
    percent = score_table(read_table(write(SMALL), basis), basis)
    text = SMALL.replace("88.2", "0.882").replace("88.0", "0.88")
    fractions = score_table(read_table(write(text), basis), basis)
    assert percent[1].score.ocs == pytest.approx(fractions[1].score.ocs)
    for found in (percent, fractions):
        assert found[1].ratios["accuracy/drop_points"] == pytest.approx(0.2)
        assert found[1].metrics()["accuracy/top1"] == pytest.approx(0.88)


def test_the_baseline_comes_first(write):
    rows = read_table(write(RESNET18), Basis(), baseline="QAT (INT8)")
    assert [r.name for r in rows[:3]] == ["QAT (INT8)", "None (FP32)", "PTQ (INT8)"]


def test_columns_get_their_meaning_from_an_option(write):
    text = SMALL.replace("technique", "Model").replace("top1", "acc").replace("disk_mb", "MB")
    columns = {"Model": "technique", "acc": "top1", "MB": "disk_mb"}
    rows = read_table(write(text), Basis(), columns=columns)
    assert rows == read_table(write(SMALL), Basis())


def test_metric_keys_are_headers_too(write):
    text = (
        "name,accuracy/top1,accuracy/drop_points,speed/chats,size/disk_bytes,notes\n"
        "fp32,0.882,0,100,8,x\nint8,0.85,3.2,25,2,y\n"
    )
    basis = Basis()
    scored = score_table(read_table(write(text), basis), basis)
    assert scored[1].score.S == 4
    assert scored[1].row.metrics["accuracy/drop_points"] == 3.2


def test_a_byte_order_mark_and_blank_lines_are_no_data(write):
    rows = read_table(write(SMALL.replace("fp32", "\n\nfp32"), encoding="utf-8-sig"), Basis())
    assert [r.name for r in rows] == ["fp32", "int8"]


def test_an_empty_cell_is_an_absent_figure(write):
    text = RESNET18.replace("111.6", "").replace("2.52,0.8", "2.52,")
    basis = Basis()
    scored = score_table(read_table(write(text), basis), basis)
    assert scored[1].score.terms == "P,S,C"
    assert scored[2].score.terms == "P,S,C,E"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("88.0", "nan"), ["row 'int8', column 'top1'", "'nan'"]),
        (("0.27", "inf"), ["row 'int8', column 'disk_mb'", "'inf'"]),
        (("0.65", "fast"), ["row 'int8', column 'chats_g'", "'fast'"]),
        (("0.65", ""), ["row 'int8', column 'chats_g'", "is empty"]),
        (("88.0", "188"), ["row 'int8', column 'top1'", "0 to 100"]),
        (("int8", "fp32"), ["row 'fp32'", "2 times"]),
        (("int8", ""), ["line 3", "has no name"]),
        (("chats_g", "chat_g"), ["column 'chats_g'", "did you mean 'chat_g'?"]),
        (("technique", "what"), ["column 'technique'", "--column HEADER=technique"]),
        (("disk_mb", "top1"), ["header 'top1'", "twice"]),
        (("disk_mb", "accuracy/top1"), ["columns top1, accuracy/top1", "mean the same"]),
        (("0.27", "0.27,5"), ["line 3", "has 5 cells", "4, as the header has"]),
        (("int8,88.0,0.65,0.27\n", ""), ["has 1 rows below its header"]),
    ],
)
def test_faults_name_row_and_column(write, change, told):
    with pytest.raises(InputError) as caught:
        read_table(write(SMALL.replace(*change)), Basis())
    assert all(t in str(caught.value) for t in ["table.csv", *told])


def test_all_faults_at_once(write):
    text = SMALL.replace("88.0", "x").replace("0.27", "y").replace("1.08", "")
    with pytest.raises(InputError) as caught:
        read_table(write(text), Basis())
    assert len(caught.value.problems) == 3


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"baseline": "fp23"}, "did you mean 'fp32'?"),
        ({"columns": {"acc": "top1"}}, "no such column"),
        ({"columns": {"top1": "topp1"}}, "did you mean 'top1'?"),
    ],
)
def test_bad_options(write, options, told):
    with pytest.raises(InputError) as caught:
        read_table(write(SMALL), Basis(), **options)
    assert told in str(caught.value)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_table(tmp_path / "none.csv", Basis())
    binary = tmp_path / "binary.csv"
    binary.write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(InputError, match="cannot be read as CSV"):
        read_table(binary, Basis())


def test_zero_denominators_of_all_rows_at_once(write):
    text = SMALL.replace("0.27", "0") + "int4,0,0,0.1\n"
    rows = read_table(write(text), Basis())
    with pytest.raises(InputError) as caught:
        score_table(rows, Basis())
    told = str(caught.value)
    assert "row 'int8', column 'size/disk_bytes'" in told
    assert "row 'int4', column 'speed/chats'" in told
