"""Convert the published checkpoint to safetensors: ``python -m inference.convert CHECKPOINT --out FILE``.

The published file is a pickled ``DataParallel`` of classes outside of torch. Nothing of it is executed and none of its
packages is imported: torch's own layers are allowed by name, every other class is replaced by an inert module without
code, and whatever else the pickle names is refused before it is read. The tensors are then renamed and must be exactly
those of the published network.
"""

from __future__ import annotations

import argparse
import re
import signal
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from inference import checkpoint
from inference.errors import CheckpointError
from inference.estimator import Estimator, Normalisation
from inference.model import AstroMAE, AstroMAEConfig

SIZE_LIMIT = 2**30  # bytes, unpacked; the published checkpoint has 64 MB
MAX_DEPTH = 20  # of nested modules
LISTED = 10  # names in an error message

# What a pickled network may name besides torch's layers.
TORCH_LAYERS = re.compile(r"torch\.nn\.(modules\.\w+|parallel\.data_parallel)\.\w+")
# Packages whose classes are replaced: those of the published repository, and timm.
FOREIGN = re.compile(r"(blocks|timm|util|models?|networks?|__main__|Plot_Redshift)(\.\w+)+")

# The published names and ours. The first convolution of the Inception branch has two names in the published network.
NAMES = (
    (r"cls_token", "vision.class_token"),
    (r"pos_embed", "vision.position"),
    (r"patch_embed\.proj\.", "vision.patch_embed."),
    (r"blocks\.(\d+)\.(norm[12])\.", r"vision.blocks.\1.\2."),
    (r"blocks\.(\d+)\.attn\.", r"vision.blocks.\1.attention."),
    (r"blocks\.(\d+)\.PCM\.0\.", r"vision.blocks.\1.convolution.widen.conv."),
    (r"blocks\.(\d+)\.PCM\.1\.", r"vision.blocks.\1.convolution.widen.norm."),
    (r"blocks\.(\d+)\.PCM\.3\.", r"vision.blocks.\1.convolution.narrow."),
    (r"blocks\.(\d+)\.mlp\.fc1\.", r"vision.blocks.\1.mlp.0."),
    (r"blocks\.(\d+)\.mlp\.fc2\.", r"vision.blocks.\1.mlp.2."),
    (r"fc_norm\.", "vision.norm."),
    (r"head\.", "vision.project."),
    (r"vit_block\.", "vision.head."),
    (r"inception_model\.conv2d_init\.", "inception.body.0."),
    (r"inception_model\.vis_inception\.0\.", "inception.body.0."),
    (r"inception_model\.vis_inception\.([23568])\.branch1\.conv\.", r"inception.body.\1.one.conv."),
    (r"inception_model\.vis_inception\.([23568])\.branch1\.bn\.", r"inception.body.\1.one.norm."),
    (r"inception_model\.vis_inception\.([23568])\.branch2\.0\.conv\.", r"inception.body.\1.three_in.conv."),
    (r"inception_model\.vis_inception\.([23568])\.branch2\.0\.bn\.", r"inception.body.\1.three_in.norm."),
    (r"inception_model\.vis_inception\.([23568])\.branch2\.1\.conv\.", r"inception.body.\1.three.conv."),
    (r"inception_model\.vis_inception\.([23568])\.branch2\.1\.bn\.", r"inception.body.\1.three.norm."),
    (r"inception_model\.vis_inception\.([23568])\.branch3\.0\.conv\.", r"inception.body.\1.five_in.conv."),
    (r"inception_model\.vis_inception\.([23568])\.branch3\.0\.bn\.", r"inception.body.\1.five_in.norm."),
    (r"inception_model\.vis_inception\.([23568])\.branch3\.1\.conv\.", r"inception.body.\1.five.conv."),
    (r"inception_model\.vis_inception\.([23568])\.branch3\.1\.bn\.", r"inception.body.\1.five.norm."),
    (r"inception_model\.vis_inception\.([23568])\.branch4\.1\.conv\.", r"inception.body.\1.pooled.conv."),
    (r"inception_model\.vis_inception\.([23568])\.branch4\.1\.bn\.", r"inception.body.\1.pooled.norm."),
    (r"inception_model\.vis_inception\.10\.", "inception.head.0."),
    (r"inception_model\.vis_inception\.12\.", "inception.head.2."),
    (r"inception_model\.magnitude_block\.", "magnitudes."),
    (r"concat_block\.", "head."),
)


def convert(path: Path) -> Estimator:
    """Return the network of a published checkpoint; it takes images and magnitudes as they are.

    Raises
    ------
    CheckpointError
        The file is missing or no archive of ``torch.save``, names something that is neither a layer of torch nor a
        class of the published code, or its tensors are not those of the published network. The message lists what
        was found.
    """
    return _estimator(_rename(_tensors(_load(path), path), path), path)


def _load(path: Path) -> object:
    """Unpickle without executing anything that the file names."""
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: the file does not exist") from error
    except (OSError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path}: expected a complete file saved by torch.save: {error}") from error
    if unpacked > SIZE_LIMIT:
        raise CheckpointError(f"{path}: expected at most {SIZE_LIMIT} bytes, got {unpacked}")
    try:
        names = get_unsafe_globals_in_checkpoint(path)
    except Exception as error:  # a damaged pickle can raise any exception
        raise CheckpointError(f"{path}: expected a network saved by torch.save: {error}") from error
    refused = [name for name in names if not TORCH_LAYERS.fullmatch(name) and not FOREIGN.fullmatch(name)]
    if refused:
        raise CheckpointError(
            f"{path}: expected layers of torch and classes of the published code, got {_list(refused)}: the file was "
            "not read"
        )
    allowed = [_torch_layer(name, path) if TORCH_LAYERS.fullmatch(name) else _stand_in(name) for name in names]
    try:
        with safe_globals(allowed):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).strip().splitlines()
        raise CheckpointError(
            f"{path}: expected a network saved by torch.save: {reason[0] if reason else type(error).__name__}"
        ) from error


def _torch_layer(name: str, path: Path) -> Any:
    """Return a layer of torch; its module is imported already."""
    module, _, attribute = name.rpartition(".")
    found = getattr(sys.modules.get(module), attribute, None)
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise CheckpointError(f"{path}: expected layers of torch {torch.__version__}, got {name}")
    return found


def _stand_in(name: str) -> Any:
    """Return a module class of this name without code of its own."""
    module, _, attribute = name.rpartition(".")
    return type(attribute, (nn.Module,), {"__module__": module, "__qualname__": attribute})


def _tensors(loaded: object, path: Path) -> dict[str, Tensor]:
    """Return the parameters and buffers of a network, or of a dictionary of tensors, by their published names."""
    if isinstance(loaded, nn.Module):
        found = dict(_walk(loaded, path, "", 0))
    elif isinstance(loaded, dict) and all(isinstance(name, str) for name in loaded):
        found = {name: value for name, value in loaded.items() if isinstance(value, Tensor)}
        if len(found) < len(loaded):
            others = [name for name, value in loaded.items() if not isinstance(value, Tensor)]
            raise CheckpointError(f"{path}: expected tensors alone, got others at {_list(others)}")
    else:
        raise CheckpointError(f"{path}: expected a network, got {type(loaded).__name__}")
    return {name.removeprefix("module."): tensor for name, tensor in found.items()}


def _walk(module: nn.Module, path: Path, prefix: str, depth: int) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a module and those in it, from its attributes alone: its methods may be the file's."""
    if depth > MAX_DEPTH:
        raise CheckpointError(f"{path}: expected at most {MAX_DEPTH} nested modules, got more at {prefix}")
    content = vars(module)
    for kind in ("_parameters", "_buffers"):
        for name, tensor in _mapping(content.get(kind)):
            if isinstance(tensor, Tensor):
                yield prefix + name, tensor
    for name, inner in _mapping(content.get("_modules")):
        if isinstance(inner, nn.Module):
            yield from _walk(inner, path, f"{prefix}{name}.", depth + 1)
    # The published code keeps two parameters of the transformer as they were in it.
    for name, value in content.items():
        if isinstance(value, Tensor):
            yield prefix + name, value


def _mapping(value: object) -> list[tuple[str, object]]:
    return [(name, entry) for name, entry in value.items() if isinstance(name, str)] if isinstance(value, dict) else []


def _rename(tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    renamed: dict[str, Tensor] = {}
    unknown = []
    for name, tensor in tensors.items():
        for pattern, replacement in NAMES:
            if match := re.match(pattern, name):
                ours = match.expand(replacement) + name[match.end() :]
                renamed.setdefault(ours, tensor.detach())
                break
        else:
            unknown.append(name)
    if unknown:
        raise CheckpointError(f"{path}: expected the published network, got unknown tensors {_list(unknown)}")
    return renamed


def _estimator(tensors: dict[str, Tensor], path: Path) -> Estimator:
    with torch.device("meta"):
        network = AstroMAE(AstroMAEConfig.published())
    expected = network.state_dict()
    missing, unknown = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    if missing or unknown:
        raise CheckpointError(
            f"{path}: expected the {len(expected)} tensors of the published network, missing are {_list(missing)}, "
            f"unknown are {_list(unknown)}"
        )
    other = [
        f"{name} {list(tensors[name].shape)} for {list(tensor.shape)}"
        for name, tensor in expected.items()
        if tensors[name].shape != tensor.shape
    ]
    if other:
        raise CheckpointError(f"{path}: expected the shapes of the published network, got {_list(other)}")
    not_finite = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if not_finite:
        raise CheckpointError(f"{path}: expected finite weights, got NaN or infinity in {_list(not_finite)}")
    own = {name: tensor.to(expected[name].dtype).clone() for name, tensor in tensors.items()}
    network.load_state_dict(own, strict=True, assign=True)
    return Estimator(network, Normalisation.identity()).eval()


def _list(names: list[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return (", ".join(names[:LISTED]) or "none") + more


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m inference.convert",
        description="Convert the published, pickled AstroMAE to safetensors without executing code of the file.",
        epilog="example: python -m inference.convert Mixed_Inception_z_VITAE_Base_Img_Full_New_Full.pt "
        "--out published.safetensors",
    )
    parser.add_argument("checkpoint", type=Path, help="the published checkpoint, a pickled DataParallel")
    parser.add_argument("--out", type=Path, required=True, help="the safetensors file to write")
    options = parser.parse_args(arguments)
    if not options.out.parent.is_dir():
        parser.error(f"--out: the folder {options.out.parent} does not exist")
    try:
        estimator = convert(options.checkpoint)
        checkpoint.save(estimator, options.out)
    except (CheckpointError, OSError) as error:
        sys.exit(f"python -m inference.convert: {error}")
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    parameters = sum(parameter.numel() for parameter in estimator.network.parameters())
    print(f"{options.out}: {parameters:,} parameters, {options.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
