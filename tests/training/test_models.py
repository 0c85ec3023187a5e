"""The networks: LeNet-5 and SmallVGG as they are known, and fitting every data set."""

import pytest
import torch

from torchfromscratch.training.models import (
    MODELS,
    Airbench,
    build_model,
    layer_namespace,
    optimizer_namespace,
    whitening_filters,
)

PICTURES = {"digits": (1, 8), "mnist": (1, 28), "cifar10": (3, 32), "photos": (3, 50)}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("dataset", PICTURES)
def test_model_fits_dataset(name: str, dataset: str) -> None:
    channels, size = PICTURES[dataset]
    model = build_model(name, nn=torch.nn, in_channels=channels, image_size=size, classes=7)
    assert model(torch.randn(2, channels, size, size)).shape == (2, 7)


def test_smallvgg_has_the_reference_network_s_weights() -> None:
    model = build_model("smallvgg", nn=torch.nn, in_channels=3, image_size=32, classes=10)
    shapes = [tuple(weight.shape) for weight in model.parameters() if weight.ndim > 1]
    convolutions = [(32, 3), (32, 32), (64, 32), (64, 64), (128, 64), (128, 128)]
    assert shapes == [(*pair, 3, 3) for pair in convolutions] + [(256, 2048), (10, 256)]


def test_lenet5_has_lecun_s_61706_weights() -> None:
    for size in (28, 32):
        model = build_model("lenet5", nn=torch.nn, in_channels=1, image_size=size, classes=10)
        assert sum(weight.numel() for weight in model.parameters()) == 61_706


@pytest.mark.parametrize("name", ["lenet5", "smallvgg"])
def test_signals_keep_their_size_through_layers_without_normalisation(name: str) -> None:
    torch.manual_seed(0)
    model = build_model(name, nn=torch.nn, in_channels=3, image_size=32, classes=10)
    *hidden, _ = (layer for layer in model.modules() if isinstance(layer, (torch.nn.Conv2d, torch.nn.Linear)))
    sizes: list[float] = []
    for layer in hidden:
        layer.register_forward_hook(lambda layer, input, output: sizes.append(output.pow(2).mean().sqrt().item()))
    model(torch.randn(64, 3, 32, 32))
    assert len(sizes) == len(hidden)
    # Pooling picks the largest values, so sizes grow a little; with torch's own initial values they shrink to 0.016.
    assert all(1 < size < 4 for size in sizes), sizes


@pytest.mark.parametrize("name", MODELS)
def test_loss_falls_step_by_step_as_on_torch(name: str, device: str) -> None:
    curves = []
    for layers in ("scratch", "torch"):
        torch.manual_seed(0)
        nn = layer_namespace(layers)
        model = build_model(name, nn=nn, in_channels=3, image_size=16, classes=5).to(device, torch.float64)
        optimizer = optimizer_namespace(layers).SGD(model.parameters(), lr=0.02, momentum=0.9, nesterov=True)
        images = torch.randn(4, 3, 16, 16, dtype=torch.float64).to(device)
        labels = torch.randint(5, (4,)).to(device)
        curve = []
        for _ in range(5):
            optimizer.zero_grad()
            loss = nn.CrossEntropyLoss()(model(images), labels)
            loss.backward()
            optimizer.step()
            curve.append(loss.item())
        curves.append(curve)
    scratch, built_in = curves
    assert scratch[-1] < scratch[0]
    # Sums in another order differ by 2e-16; five steps through up to 18 layers let that grow.
    assert scratch == pytest.approx(built_in, rel=1e-10)


@pytest.mark.parametrize("window", [2, 3])
def test_whitened_windows_are_uncorrelated_and_of_variance_1(window: int) -> None:
    images = torch.randn(40, 3, 10, 10, dtype=torch.float64).cumsum(2).cumsum(3)
    responses = torch.nn.functional.conv2d(images, whitening_filters(images, window, eps=0.0))
    columns = responses.permute(1, 0, 2, 3).flatten(1)
    count = 3 * window**2
    torch.testing.assert_close(columns @ columns.T / columns.shape[1], torch.eye(count).double(), atol=1e-8, rtol=0)


def test_airbench_begins_with_the_principal_windows_and_their_negatives() -> None:
    model = Airbench(torch.nn, 3, 32, 10)
    images = torch.randn(50, 3, 32, 32).cumsum(2).cumsum(3)
    images /= images.std()
    model.initialise_from(images)
    variances = torch.nn.functional.conv2d(images, model.whiten.weight).square().mean((0, 2, 3))
    assert torch.equal(model.whiten.weight[:12], -model.whiten.weight[12:])
    assert variances[0] > 0.99, "the component of the largest variance hardly feels ε"
    assert (variances < 1.001).all()
    assert (variances[:12].diff() < 1e-3).all(), "they come in the order of their variance, of which ε takes its share"


def test_airbench_has_the_published_number_of_weights() -> None:
    model = build_model("airbench", nn=torch.nn, in_channels=3, image_size=32, classes=10)
    convolutions = 12 * 24 + 9 * (24 * 64 + 64 * 64 + 64 * 256 + 3 * 256 * 256)
    assert sum(weight.numel() for weight in model.parameters()) == convolutions + 24 + 2 * 2 * (64 + 256 + 256) + 2560
