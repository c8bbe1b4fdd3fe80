"""The exchange: bytes as counted are bytes by the formula."""

import pandas as pd
import pytest
from click.testing import CliRunner

from repro.cli import main


def test_bench_exchange_counts_what_is_sent(tmp_path):
    out = tmp_path / "exchange.csv"
    options = ["--ranks", "2", "3", "--local-batch", "64", "--dim", "16", "--device", "cpu", "--threads", "1"]
    options += ["--rounds", "1", "--repeats", "1", "--matmul", "128"]
    done = CliRunner().invoke(main, ["bench", "exchange", *options, "--out", str(out)])
    assert done.exit_code == 0, done.output
    table = pd.read_csv(out)
    assert len(table) == 6 and (table["status"] == "ok").all() and table["reason"].isna().all()
    assert (table["bytes_counted_exchange"] == table["bytes_sent"]).all()
    assert (table["bytes_counted_loss"] - table["bytes_sent"]).between(0, 4096).all()  # shapes may be compared first
    assert (table["exchange_seconds"] > 0).all() and (table["loss_seconds"] > 0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--ranks", "1"], "one rank has no exchange"), (["--exchange", "rings"], "the nearest is 'ring'")],
)
def test_bench_exchange_names_what_is_wrong(options, message):
    done = CliRunner().invoke(main, ["bench", "exchange", "--device", "cpu", *options])
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())
