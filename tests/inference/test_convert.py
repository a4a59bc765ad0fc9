from __future__ import annotations

import io
import pickle
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from inference import checkpoint, convert
from inference.errors import CheckpointError
from inference.model import count_parameters
from tests.inference import published_network


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return published_network.vit_astro()


@pytest.fixture(scope="module")
def published(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("published") / "published.pt"
    published_network.save(network, path)
    return path


def test_every_parameter_of_the_published_checkpoint_arrives(network: nn.Module, published: Path) -> None:
    """One to one, without importing a package that the file names."""
    estimator = convert.convert(published)
    assert count_parameters(estimator.network) == count_parameters(network) == 15_902_889
    ours, theirs = estimator.network.state_dict(), network.state_dict()
    pairs = {
        "vision.class_token": "cls_token",
        "vision.blocks.11.attention.v_bias": "blocks.11.attn.v_bias",
        "vision.blocks.3.convolution.widen.norm.running_var": "blocks.3.PCM.1.running_var",
        "vision.blocks.0.mlp.2.weight": "blocks.0.mlp.fc2.weight",
        "inception.body.0.weight": "inception_model.conv2d_init.weight",
        "inception.body.8.three.conv.weight": "inception_model.vis_inception.8.branch2.1.conv.weight",
        "inception.body.6.pooled.norm.bias": "inception_model.vis_inception.6.branch4.1.bn.bias",
        "magnitudes.8.weight": "inception_model.magnitude_block.8.weight",
        "head.2.bias": "concat_block.2.bias",
    }
    for name, published_name in pairs.items():
        assert torch.equal(ours[name], theirs[published_name]), name
    shared = 2  # the first convolution of the Inception branch has two names
    assert len(ours) == len(theirs) - shared
    assert not {"blocks", "timm"} & {name.partition(".")[0] for name in sys.modules}


def test_the_command_writes_a_checkpoint_that_takes_raw_values(published: Path, tmp_path: Path) -> None:
    out = tmp_path / "network.safetensors"
    convert.main([str(published), "--out", str(out)])
    estimator = checkpoint.load(out)
    images, magnitudes = torch.randn(3, 5, 32, 32), torch.randn(3, 5).double()
    with torch.inference_mode():
        expected = estimator.network(images, magnitudes.float())[:, 0]
        torch.testing.assert_close(estimator(images, magnitudes), expected)
        torch.testing.assert_close(estimator.for_cpu()(images, magnitudes), expected, rtol=0.0, atol=1e-5)


def test_a_plain_dictionary_of_the_tensors_is_accepted(network: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    torch.save({f"module.{name}": tensor for name, tensor in network.state_dict().items()}, path)
    assert count_parameters(convert.convert(path).network) == 15_902_889


class Trap:
    """Calls a function when unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


def traps(victim: Path) -> dict[str, object]:
    layer = nn.Linear(1, 1)
    layer.extra = Trap(Path.write_text, victim, "executed")  # type: ignore[assignment]  # hidden in a layer
    return {
        "a method": Trap(Path.write_text, victim, "executed"),
        "eval": Trap(eval, f"open({str(victim)!r}, 'w')"),
        "open": Trap(open, str(victim), "w"),
        "in a layer": layer,
        "a function of torch": Trap(torch.save, 1, str(victim)),
        "getattr": Trap(getattr, victim, "touch"),
        "import": Trap(__import__, "this"),
    }


@pytest.mark.parametrize("kind", traps(Path("x")))
def test_a_hostile_pickle_is_refused_by_name_and_not_executed(tmp_path: Path, kind: str) -> None:
    victim, path = tmp_path / "victim", tmp_path / "hostile.pt"
    torch.save(traps(victim)[kind], path)
    with pytest.raises(CheckpointError, match=r"hostile\.pt: expected layers of torch .* the file was not read"):
        convert.convert(path)
    assert not victim.exists()


def archive(path: Path, stream: bytes) -> Path:
    """Write a pickle as the content of a file of torch.save."""
    buffer = io.BytesIO()
    torch.save({}, buffer)
    with zipfile.ZipFile(buffer) as template, zipfile.ZipFile(path, "w") as file:
        for member in template.namelist():
            file.writestr(member, stream if member.endswith("data.pkl") else template.read(member))
    return path


@pytest.mark.parametrize(
    "stream",
    [
        b"cos\nsystem\n(S'touch victim'\ntR.",
        b"ctimm.models\nsystem\n(S'touch victim'\ntR.",
        b"ctorch.nn.modules.linear\nLinear\n(I1\nI1\ntR}S'__class__'\nI1\nsb.",
        b"(lp0\n" + b"(l" * 2000 + b"." * 3,
        b"\x80\x02.",
        b"not a pickle",
    ],
)
def test_crafted_pickles_are_refused(tmp_path: Path, stream: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"hostile\.pt: expected"):
        convert.convert(archive(tmp_path / "hostile.pt", stream))
    assert not (tmp_path / "victim").exists()


def test_a_pickle_without_an_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "hostile.pt"
    path.write_bytes(pickle.dumps(Trap(Path.touch, tmp_path / "victim")))
    with pytest.raises(CheckpointError, match=r"expected a complete file saved by torch\.save"):
        convert.convert(path)
    with pytest.raises(CheckpointError, match="does not exist"):
        convert.convert(tmp_path / "none.pt")


def test_a_network_in_itself_is_refused(tmp_path: Path) -> None:
    loop = nn.Sequential(nn.ReLU())
    vars(loop)["_modules"]["0"] = loop
    torch.save(loop, tmp_path / "loop.pt")
    with pytest.raises(CheckpointError, match="expected at most 20 nested modules"):
        convert.convert(tmp_path / "loop.pt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extra.weight": torch.zeros(1)}, r"unknown tensors extra\.weight"),
        ({"head.weight": None}, r"missing are vision\.project\.weight, unknown are none"),
        ({"head.weight": torch.zeros(7, 192)}, r"got vision\.project\.weight \[7, 192\] for \[192, 192\]"),
        ({"head.bias": torch.full((192,), torch.nan)}, r"NaN or infinity in vision\.project\.bias"),
        ({"epoch": 7}, "expected tensors alone, got others at epoch"),
    ],
)
def test_what_is_not_understood_is_listed(
    network: nn.Module, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    state = {**network.state_dict(), **change}
    torch.save({name: value for name, value in state.items() if value is not None}, tmp_path / "other.pt")
    with pytest.raises(SystemExit, match=rf"^python -m inference\.convert: .*other\.pt: .*{message}"):
        convert.main([str(tmp_path / "other.pt"), "--out", str(tmp_path / "out.safetensors")])
    assert not (tmp_path / "out.safetensors").exists()
