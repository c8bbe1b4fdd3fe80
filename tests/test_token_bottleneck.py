"""The bottlenecked token embedding: small while it is trained, and a plain table for everyone else."""

import json

import open_clip
import pytest
import torch
from torch import nn

from repro.config.errors import InputError, Interrupted
from repro.models import build
from repro.models.build import BottleneckedEmbedding, bottleneck_tokens, stock_weights
from repro.models.model_config import check_bottleneck, read_config
from repro.runs.directory import RunDirectory
from tests.train.runs import StopAfter, assert_same_bits, trained

K = 8


@pytest.fixture(scope="module", params=["CLIP", "CustomTextCLIP"])
def folder(request, tmp_path_factory):
    """A local-dir of the laptop model, as both of open_clip's classes."""
    config, source = read_config("laptop")
    config["model_cfg"]["custom_text"] = request.param == "CustomTextCLIP"
    vocabulary = config["model_cfg"]["text_cfg"]["tokenizer_kwargs"]["bpe_path"]
    config["model_cfg"]["text_cfg"]["tokenizer_kwargs"]["bpe_path"] = str(source / vocabulary)
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "model.json").write_text(json.dumps(config))
    build.export(str(folder / "model.json"), folder / "checkpoints", init_logit_bias=-10.0)
    return folder / "checkpoints"


def test_stock_open_clip_gives_the_embeddings_of_the_bottlenecked_model(folder):
    torch.manual_seed(0)
    towers = build.load(folder)
    bottleneck_tokens(towers.model, K)
    torch.save(stock_weights(towers.model), folder / build.WEIGHTS_NAME)
    stock = open_clip.create_model(f"local-dir:{folder}").eval()
    tokens = towers.tokenize(["a red circle", "two small striped blue stars on white"])
    with torch.no_grad():
        ours, theirs = towers.model.eval().encode_text(tokens), stock.encode_text(tokens)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    assert stock.state_dict().keys() == stock_weights(towers.model).keys()


def test_it_holds_a_table_of_k_columns_and_k_times_width(folder):
    model = build.load(folder).model
    full = sum(p.numel() for p in model.parameters())
    bottleneck_tokens(model, K)
    embedding = next(module for module in model.modules() if isinstance(module, BottleneckedEmbedding))
    rows, width = embedding.product().shape
    assert (rows, width) == (8706, 64)
    assert sum(p.numel() for p in embedding.parameters()) == rows * K + K * width
    assert full - sum(p.numel() for p in model.parameters()) == rows * width - (rows * K + K * width)
    assert not any(isinstance(module, nn.Embedding) and module.embedding_dim == 64 for module in model.modules())


@pytest.mark.parametrize("columns", [4, 16, 96])
def test_it_starts_at_the_scale_of_the_table_it_replaces(columns):
    torch.manual_seed(0)
    table = nn.Embedding(5000, 768)
    nn.init.normal_(table.weight, std=0.02)
    assert BottleneckedEmbedding(table, columns).product().std().item() == pytest.approx(0.02, rel=0.1)


def test_the_rest_of_the_model_starts_as_without_it(folder):
    torch.manual_seed(0)
    plain = build.load(folder).model.state_dict()
    torch.manual_seed(0)
    model = build.load(folder).model
    bottleneck_tokens(model, K)
    for name, value in stock_weights(model).items():
        assert torch.equal(value, plain[name]) != name.endswith("token_embedding.weight"), name


def test_a_text_tower_of_the_hub_is_refused_before_anything_starts():
    with pytest.raises(
        InputError, match="token_bottleneck 96: the text tower of model xlm-roberta-base-ViT-B-32 is xlm"
    ):
        check_bottleneck("xlm-roberta-base-ViT-B-32", 96)
    with pytest.raises(InputError, match=r"the token embedding of model laptop is 64 wide; .* such as 8"):
        check_bottleneck("laptop", 64)
    with pytest.raises(InputError, match="model x: token_bottleneck 4: its text tower has no token embedding"):
        bottleneck_tokens(nn.Linear(2, 2), 4, "model x")


def test_a_bottlenecked_run_resumes_to_the_bit_and_leaves_stock_weights(make_spec, tmp_path):
    spec = make_spec(token_bottleneck=K)
    undisturbed, _ = trained(spec, tmp_path / "a")
    stopped = RunDirectory(tmp_path / "b")
    with pytest.raises(Interrupted):
        trained(spec, tmp_path / "b", stop=StopAfter(3))
    state = torch.load(next(stopped.checkpoints.glob("step-*.pt")), weights_only=True)
    assert state["model"]["token_embedding.table.weight"].shape == (8706, K)
    trained(spec, tmp_path / "b")
    assert_same_bits(undisturbed, stopped)
    assert open_clip.create_model(f"local-dir:{stopped.checkpoints}").token_embedding.weight.shape == (8706, 64)
