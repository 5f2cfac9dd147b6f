"""A policy and its network as files that run elsewhere: one ONNX file per stage, the policy, what
decides, a runner, and a manifest that says what they are."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from offramp import OfframpError, __version__
from offramp.common.hashing import sha256
from offramp.common.progress import progress
from offramp.data.datasets import Dataset
from offramp.data.splits import blank
from offramp.inference import runner
from offramp.inference.backends import named, onnx_bytes
from offramp.inference.deployed import Cascade
from offramp.networks.features import Features, tensors_of
from offramp.networks.finding import read_about
from offramp.networks.multiexit import MultiExitNetwork
from offramp.scoring import criteria

MANIFEST, MADE_BY = "manifest.json", "offramp"
# How many images the runner's command line takes at a time.
BATCH_SIZE = 256


class Stage(nn.Module):
    """A block and its head, either of which may give an output."""

    def __init__(self, block: nn.Module, head: nn.Module, outputs: tuple[str, ...]):
        super().__init__()
        self.block, self.head, self.outputs = block, head, outputs

    def forward(self, x: Features) -> tuple[Tensor, ...]:
        """The outputs, in their order."""
        features = self.block(x)
        passed_on = tensors_of(features) if "features" in self.outputs else ()
        return (*passed_on, self.head(features)) if "logits" in self.outputs else passed_on


class FullNetwork(nn.Module):
    """All blocks and only the final head: what early exit is held against."""

    def __init__(self, network: MultiExitNetwork):
        super().__init__()
        self.stages = nn.Sequential(*network.blocks, network.heads[-1])

    def forward(self, x: Features) -> Tensor:
        """Inputs to logits."""
        return self.stages(x)


def export(
    policy: str | Path, weights: str | Path | None, folder: str | Path, network: Any = None
) -> dict[str, Any]:
    """Write the network and policy of a policy file into a folder, which then runs by itself;
    returns its manifest.

    ``weights`` and ``network`` as `Cascade.load` takes them. A stage gives its logits only where
    the policy looks at them, so a disabled exit costs nothing there either. Raises OfframpError as
    `Cascade.load` does, and when the folder holds what no export wrote, or a package is missing.
    """
    folder = Path(folder)
    deployed = Cascade.load(policy, weights, network=network)
    about, text = read_about(policy), Path(policy).read_text()  # it may lie in the folder itself
    make_room(folder)
    stages = write_stages(deployed, folder)
    (folder / "policy.json").write_text(text)
    source = Path(runner.__file__).read_text()
    (folder / "run.py").write_text(source.replace("offramp.scoring.criteria", "criteria"))
    shutil.copyfile(criteria.__file__, folder / "criteria.py")
    manifest = {
        "made_by": f"{MADE_BY} {__version__}",
        "network": about.get("network") or about["provenance"],
        "input": input_of(deployed.dataset),
        "classes": list(deployed.names),
        "opset": stages[0].pop("opset"),
        "stages": stages,
        "batch_size": BATCH_SIZE,
        "expected": about.get("expected"),
        "sha256": {file.name: sha256(file) for file in sorted(folder.iterdir())},
    }
    write_manifest(folder, manifest)
    return manifest


def input_of(dataset: Dataset) -> dict[str, Any]:
    """What the manifest says of a sample, and what the runner does with it."""
    about: dict[str, Any] = {"dtype": dataset.dtype, "shape": ["N", *dataset.shape]}
    if not dataset.pictures:
        return {**about, "preprocessing": "none"}
    channels = dataset.shape[2]
    about["channels"] = "RGB" if channels == 3 else "grey"
    steps = "to float32, divided by 255"
    if dataset.mean is not None and dataset.std is not None:
        about |= {"mean": [*dataset.mean], "std": [*dataset.std]}
        steps += ", less mean, divided by std"
    return {**about, "preprocessing": f"{steps}, transposed to N x {channels} x H x W"}


def make_room(folder: Path) -> None:
    """Make the folder, without the files that an export wrote there before, and no others.

    Raises OfframpError when there are other files, or something else is called so.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        written = manifest["sha256"] if manifest["made_by"].startswith(MADE_BY) else {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        written = {}
    old = {MANIFEST, *written, "__pycache__"} if written else set()
    if folder.exists() and (not folder.is_dir() or {f.name for f in folder.iterdir()} - old):
        raise OfframpError(f"{folder}: holds other files; name a new folder for the export")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def write_manifest(folder: str | Path, manifest: dict[str, Any]) -> None:
    """Write the manifest of an export."""
    (Path(folder) / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")


@torch.inference_mode()
def write_stages(deployed: Cascade, folder: Path) -> list[dict[str, Any]]:
    """Write one ONNX file per stage, each checked, and return what the manifest says of them."""
    network, policy = deployed.network, deployed.policy
    x = blank(deployed.dataset, 2)
    stages = []
    parts = list(zip(network.blocks, network.heads, strict=True))
    for k, (block, head) in enumerate(progress(parts, "ONNX", "stage")):
        final = k == len(policy.thresholds)
        outputs = ("logits",) if final else ("features", "logits")
        if not policy.runs[0, k]:
            outputs = ("features",)
        file, features = folder / f"stage_{k + 1}.onnx", block(x)
        names_of = {"features": named("features", features), "logits": ["logits"]}
        names = [name for output in outputs for name in names_of[output]]
        file.write_bytes(onnx_bytes(Stage(block, head, outputs), x, names))
        stages.append({"file": file.name, **checked_onnx(file)})
        x = features
    return stages


def checked_onnx(file: Path) -> dict[str, Any]:
    """Input, outputs and opset of an ONNX file that `onnx.checker` finds nothing wrong with."""
    import onnx

    model = onnx.load(file)
    onnx.checker.check_model(model, full_check=True)
    described = []
    for values in (model.graph.input, model.graph.output):
        tensors = {}
        for value in values:
            kind = value.type.tensor_type
            dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name
            shape = ["N" if axis.dim_param else axis.dim_value for axis in kind.shape.dim]
            tensors[value.name] = {"dtype": dtype, "shape": shape}
        described.append(tensors)
    return {"inputs": described[0], "outputs": described[1], "opset": model.opset_import[0].version}
