"""The exchange: bytes as counted are bytes by the formula, and the model finds latency and bandwidth again."""

import pandas as pd
import pytest
from click.testing import CliRunner

from repro.bench import network
from repro.cli import main

LINK = network.Link(latency_seconds=5e-6, bytes_per_second=25e9)


def measured(link: network.Link, exchange: str, ranks: list[int], off: float = 1.0) -> pd.DataFrame:
    rows = []
    for n in ranks:
        for b in (64, 512, 4096):
            steps, sent = network.count_steps(exchange, n), network.count_bytes(n, b, 768, 4)
            seconds = link.seconds(steps, sent) * (off if n == max(ranks) else 1)
            rows.append({"exchange": exchange, "ranks": n, "local_batch": b, "status": "ok"})
            rows[-1] |= {"steps": steps, "bytes_sent": sent, "exchange_seconds": seconds}
    return pd.DataFrame(rows)


@pytest.mark.parametrize("exchange", network.EXCHANGES)
def test_the_fit_finds_latency_and_bandwidth_again(exchange):
    found = network.fit_and_check(measured(LINK, exchange, [2, 4, 8]), exchange)
    assert found["link"].latency_seconds == pytest.approx(5e-6, rel=1e-6)
    assert found["link"].bytes_per_second == pytest.approx(25e9, rel=1e-6)
    assert found["held_out_error_most"] == pytest.approx(0, abs=1e-6)


def test_its_error_is_that_on_the_most_ranks_which_it_was_not_fitted_to():
    found = network.fit_and_check(measured(LINK, "ring", [2, 4, 8], off=2.0), "ring")
    assert (found["points_fitted"], found["points_held_out"], found["held_out"]) == (6, 3, "8 ranks")
    assert found["held_out_error_median"] == pytest.approx(0.5)


def test_too_few_measurements_make_no_model():
    assert network.fit_and_check(measured(LINK, "ring", [2]).head(2), "ring") is None


def test_a_ring_hides_its_exchange_behind_the_products_and_a_gather_does_not():
    ring, gather = (network.foretell(LINK, name, 1024, 768, 4, rate=10e12) for name in ("ring", "gather"))
    assert ring["devices"].tolist() == [8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096]
    both = ring["exchange_seconds"] + ring["compute_seconds"]
    assert (ring["loss_seconds"] < both).all()
    assert (ring["loss_seconds"] > ring[["exchange_seconds", "compute_seconds"]].max(axis=1)).all()  # the last one home
    assert (gather["loss_seconds"] == gather["exchange_seconds"] + gather["compute_seconds"]).all()


def test_bench_exchange_counts_what_is_sent_and_foretells_by_a_network_of_yours(tmp_path):
    out = tmp_path / "exchange.csv"
    options = ["--ranks", "2", "3", "--local-batch", "64", "--dim", "16", "--device", "cpu", "--threads", "1"]
    options += [
        "--rounds",
        "1",
        "--repeats",
        "1",
        "--matmul",
        "128",
        "--latency",
        "5e-6",
        "--bandwidth",
        "25",
        "--tflops",
        "100",
    ]
    done = CliRunner().invoke(main, ["bench", "exchange", *options, "--out", str(out)])
    assert done.exit_code == 0, done.output
    table = pd.read_csv(out)
    assert len(table) == 6 and (table["status"] == "ok").all() and table["reason"].isna().all()
    assert (table["bytes_counted_exchange"] == table["bytes_sent"]).all()
    assert (table["bytes_counted_loss"] - table["bytes_sent"]).between(0, 4096).all()  # shapes may be compared first
    assert (table["exchange_seconds"] > 0).all() and (table["loss_seconds"] > 0).all()
    assert len(pd.read_csv(tmp_path / "exchange-model.csv")) == 3 * 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ranks", "1"], "one rank has no exchange"),
        (["--exchange", "rings"], "the nearest is 'ring'"),
        (["--latency", "1e-6"], "expected both or neither"),
    ],
)
def test_bench_exchange_names_what_is_wrong(options, message):
    done = CliRunner().invoke(main, ["bench", "exchange", "--device", "cpu", *options])
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())
