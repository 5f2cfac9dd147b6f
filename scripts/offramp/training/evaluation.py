"""How often each exit of a network is right."""

import numpy as np
import torch

from offramp.data.splits import Split, load_images
from offramp.networks.multiexit import MultiExitNetwork

BATCH = 500


@torch.inference_mode()
def correct_of(network: MultiExitNetwork, split: Split, device: torch.device) -> np.ndarray:
    """Which samples of a split each exit gets right, in evaluation mode: bool (N, K)."""
    network.eval()
    correct = np.zeros((len(split.order), len(network.heads)), dtype=bool)
    for rows in split.batches(BATCH):
        labels = torch.from_numpy(split.labels[rows]).to(device)
        logits = network(load_images(split, rows, device))
        correct[rows] = torch.stack([z.argmax(1) == labels for z in logits], dim=1).cpu().numpy()
    return correct
