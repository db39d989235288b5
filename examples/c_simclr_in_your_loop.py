"""C-SimCLR inside a training loop that knows nothing of compressl: one import, two lines.

    python examples/c_simclr_in_your_loop.py

The loop, the network, the augmentation and the data loader are anybody's: here a small convolutional network on the
8 x 8 digits of scikit-learn, jittered by a pixel and by noise. What compressl gives is the objective.
"""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from compressl.objectives import CSimCLRLoss


def augment(images: torch.Tensor) -> torch.Tensor:
    """Each image moved by up to a pixel either way, with noise: [N, 1, 8, 8] -> [N, 1, 8, 8]."""
    padded = nn.functional.pad(images, (1, 1, 1, 1))
    top, left = torch.randint(0, 3, (2, len(images)))
    moved = torch.stack([p[:, t : t + 8, s : s + 8] for p, t, s in zip(padded, top, left, strict=True)])
    return moved + 0.1 * torch.randn_like(moved)


def main(epochs: int = 5) -> dict[str, float]:
    torch.manual_seed(0)
    images = torch.from_numpy(load_digits().images).float()[:, None] / 16
    loader = DataLoader(TensorDataset(images), batch_size=256, shuffle=True, drop_last=True)
    encoder = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip
    projection = nn.Sequential(nn.Linear(64, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, 32))
    model = nn.Sequential(encoder, projection)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)

    objective = CSimCLRLoss(kappa_e=256.0, kappa_b=10.0, beta=0.1)  # <- this line
    for epoch in range(epochs):
        for (batch,) in loader:
            loss, terms = objective(model(augment(batch)), model(augment(batch)))  # <- and this
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        shared, kept = (terms[name] / 0.6931 for name in ("mutual_information_bound", "residual_information_excess"))
        print(f"epoch {epoch + 1}, last batch: the views shared at least {shared:.2f} bits; "
              f"the code kept {kept:.2f} bits that the other view lacked")  # fmt: skip
    return {name: float(value) for name, value in terms.items()}


if __name__ == "__main__":
    main()
