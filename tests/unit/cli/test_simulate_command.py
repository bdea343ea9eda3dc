"""``martlet simulate``."""

HEADER = "HashFunction,HashApp,"


def trace(folder, minutes=60, period=15):
    names = ",".join(f"minute_{n + 1}" for n in range(minutes))
    counts = ",".join("1" if n % period == 0 else "0" for n in range(minutes))
    (folder / "a_inv.csv").write_text(f"{HEADER}{names}\nf,a,{counts}\n")
    (folder / "a_run.csv").write_text("HashFunction,Average\nf,100\n")
    (folder / "a_mem.csv").write_text("HashApp,AverageAllocatedMb\na,100\n")
    return folder


def test_each_policy_has_a_row_with_cold_starts_and_waste(martlet, tmp_path):
    result = martlet("simulate", "--trace", trace(tmp_path), "--json")
    assert result.code == 0
    rows = {row["policy"]: row for row in result.json}
    assert rows["fixed, 10 min"]["cold_starts"] == 4
    assert rows["fixed, 10 min"]["wasted_share"] == 1
    assert rows["fixed, 20 min"]["cold_starts"] == 1
    assert rows["fixed, 20 min"]["wasted_gb_hours"] > rows["fixed, 10 min"]["wasted_gb_hours"]
    assert rows["learned"]["invocations"] == 4


def test_people_get_a_table(martlet, tmp_path):
    result = martlet("simulate", "--trace", trace(tmp_path))
    lines = result.out.splitlines()
    assert lines[0].split()[0] == "POLICY"
    learned = next(line for line in lines if line.startswith("learned"))
    assert "GB·h" in learned


def test_a_fault_in_the_trace_is_a_wrong_usage_and_named(martlet, tmp_path):
    trace(tmp_path)
    (tmp_path / "a_run.csv").write_text("HashFunction,Average\nf,soon\n")
    result = martlet("simulate", "--trace", tmp_path)
    assert result.code == 2
    assert "a_run.csv:2: column Average: 'soon' is not a number" in result.err
