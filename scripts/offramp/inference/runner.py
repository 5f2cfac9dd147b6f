"""This folder's network under its policy, by numpy and onnxruntime: run.py INPUTS.npy OUT.npz."""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
from onnxruntime import InferenceSession, SessionOptions

from offramp.scoring.criteria import CRITERIA, final_score, score_at


class Runner:
    """All stages. Threads may share one. ``threads`` are onnxruntime's, 0 being its own choice."""

    def __init__(self, folder=Path(__file__).parent, threads=0):
        self.manifest = json.loads(Path(folder, "manifest.json").read_text())
        for name, digest in self.manifest["sha256"].items():
            if hashlib.sha256(Path(folder, name).read_bytes()).hexdigest() != digest:
                raise ValueError(f"{Path(folder, name)}: not what was exported (by its sha256)")
        self.policy = json.loads(Path(folder, "policy.json").read_text())
        options = SessionOptions()
        options.intra_op_num_threads = threads
        # Each stage has its own threads; those that spin when done take the cores from the next.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        files, cpu = [s["file"] for s in self.manifest["stages"]], ["CPUExecutionProvider"]
        self.stages = [InferenceSession(Path(folder, file), options, cpu) for file in files]

    def __call__(self, images):
        """Labels int64, exits int64, scores float64 of inputs as the manifest says, one batch."""
        dtype, shape, mean, std = map(self.manifest["input"].get, ("dtype", "shape", "mean", "std"))
        if images.dtype != dtype or [*images.shape[1:]] != shape[1:]:
            raise ValueError(f"images: want {dtype} {shape}, not {images.dtype} {[*images.shape]}")
        if dtype == "uint8":
            images = np.ascontiguousarray(images.transpose(0, 3, 1, 2)) / np.float32(255)
        if mean:
            mean, std = np.array([mean, std], np.float32)[..., None, None]
            images = (images - mean) / std
        return self.cascade(images)

    def cascade(self, x):
        """The same of what the network takes, one array or a tuple (inputs_1, ...), by stages."""
        x, n = (x, len(x[0])) if isinstance(x, tuple) else ((x,), len(x))
        labels, exits, scores = np.zeros(n, int), np.zeros(n, int), np.zeros(n)
        places, thresholds = np.arange(n), [*self.policy["thresholds"], np.inf]
        seen, looks_back = list[np.ndarray](), CRITERIA[self.policy["criterion"]].looks_back
        for k, (stage, about) in enumerate(zip(self.stages, self.manifest["stages"], strict=True)):
            arrays = {"inputs": x[0]} | {f"inputs_{i}": array for i, array in enumerate(x, 1)}
            x = stage.run(None, {name: arrays[name] for name in about["inputs"]})
            if "logits" in about["outputs"]:  # else nobody looks at them
                seen = [*(seen if looks_back else []), x.pop()]
            if thresholds[k] is None:
                continue
            score = self.score(k, np.stack(seen, 1).astype(float))
            labels[places], exits[places], scores[places] = seen[-1].argmax(1), k + 1, score
            if not (stay := score > thresholds[k]).any():
                break
            if not stay.all():
                x, seen, places = [a[stay] for a in x], [a[stay] for a in seen], places[stay]
        return labels, exits, scores

    def score(self, k, logits):
        """Scores at stage k (from 0) of the logits (n, exits looked at, C), its own the last."""
        criterion, scale, weights = map(self.policy.get, ("criterion", "temperatures", "weights"))
        if k == len(self.stages) - 1:
            return final_score(criterion, logits[:, -1])
        logits /= np.array(scale[k + 1 - logits.shape[1] : k + 1])[:, None] if scale else 1
        return score_at(criterion, logits, weights=weights and weights[k])


if __name__ == "__main__":
    try:
        (source, target), runner = sys.argv[1:], Runner()
        images, size = np.load(source, "r", allow_pickle=False), runner.manifest["batch_size"]
        parts = [runner(images[i : i + size]) for i in range(0, max(1, len(images)), size)]
        labels, exits, scores = map(np.concatenate, zip(*parts, strict=True))
        np.savez(target, labels=labels, exits=exits, scores=scores)
    except (ValueError, OSError, EOFError, AttributeError) as error:
        sys.exit(f"run.py IMAGES.npy OUT.npz: {error}")
