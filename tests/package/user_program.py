"""A small program of a user: it runs, and its types are checked as strictly as mypy can."""

import torch
from torch import Tensor

import torchfromscratch
import torchfromscratch.functional as F
from torchfromscratch import nn, optim


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 8, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.classifier = nn.Linear(8 * 4 * 4, 10)

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.pool(F.relu(self.convolution(images)))
        logits: Tensor = self.classifier(maps.flatten(1))
        return logits


def losses(steps: int) -> list[float]:
    """The losses of a network that learns 64 random pictures by heart."""
    torch.manual_seed(0)
    network = Network()
    optimizer = optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    images, labels = torch.randn(64, 1, 8, 8), torch.randint(10, (64,))
    curve = []
    with torchfromscratch.audit():
        for _ in range(steps):
            loss = F.cross_entropy(network(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            curve.append(loss.item())
    return curve


if __name__ == "__main__":
    first, *_, last = losses(100)
    assert last < first / 10, (first, last)
    print(f"torchfromscratch {torchfromscratch.__version__}: loss {first:.2f} to {last:.2f}")
