"""Each entry of docs/errata.md: what the notes print fails, what the errata say holds."""

import itertools
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from torchfromscratch import functional as F
from torchfromscratch import nn
from torchfromscratch.autograd.convolution import correlation, full_convolution
from torchfromscratch.kernels.windows import Windows
from torchfromscratch.notes import demonstrations, printed
from torchfromscratch.notes.examples import (
    FIRST_FILTER,
    VOLUME,
    X_PICTURE,
    match_feature,
    output_size,
    parameters,
    picture,
)
from torchfromscratch.notes.examples import X_FILTERS as MEANT
from torchfromscratch.summary import ReceptiveField

ERRATA = Path(__file__).parents[2] / "docs" / "errata.md"
double = torch.float64


def whole(*shape, seed=0):
    return torch.randint(-3, 4, shape, generator=torch.Generator().manual_seed(seed)).to(double)


def slopes(function, at, step=1e-6):
    """The gradient of a scalar function, measured by moving each input a little."""
    moves = step * torch.eye(at.numel(), dtype=double).view(-1, *at.shape)
    return torch.stack([(function(at + move) - function(at - move)) / (2 * step) for move in moves]).view(at.shape)


def test_every_entry_has_its_test_and_every_test_its_entry():
    named = re.findall(r"`(test_e\d+\w*)`", ERRATA.read_text(encoding="utf-8"))
    tests = [name for name in globals() if re.match(r"test_e\d", name)]
    assert sorted(named) == sorted(tests)
    headings = re.findall(r"^### E(\d+)$", ERRATA.read_text(encoding="utf-8"), re.M)
    assert [int(number) for number in headings] == list(range(1, len(headings) + 1))


# Numbers


def test_e1_output_of_5x5_with_padding_2_is_7x7():
    assert output_size(5, kernel=3, padding=2, stride=1) == (7, 7) != (6, 6)


def test_e2_feature_maps_are_cut_off_instead_of_rounded():
    computed = match_feature(MEANT["diagonal"])
    assert not torch.equal(printed.DIAGONAL_MAP, (computed * 100).round() / 100)
    torch.testing.assert_close(printed.DIAGONAL_MAP, (computed * 100 + 1e-4).trunc() / 100)


def test_e3_pooled_map_has_four_rows_and_needs_ceil_mode():
    map = picture(match_feature(MEANT["diagonal"]))
    pooled = F.max_pool2d(map, 2, ceil_mode=True)[0, 0]
    assert pooled.shape == (4, 4)
    torch.testing.assert_close(pooled[:3], printed.POOLED_DIAGONAL_MAP, atol=0.01, rtol=0)
    torch.testing.assert_close(pooled[3], torch.tensor([0.33, 0.55, 0.11, 0.77]), atol=0.01, rtol=0)
    assert F.max_pool2d(map, 2).shape[2:] == (3, 3)  # what the notes' own MaxPool2D gives
    assert not torch.allclose(F.max_pool2d(map, 3, ceil_mode=True)[0, 0], pooled[:3, :3])  # no 3×3 windows


def test_e4_filters_of_the_x_are_misprinted_and_the_picture_is_9x9():
    assert X_PICTURE.shape == (9, 9)
    assert torch.equal(printed.X_FILTERS["diagonal"], MEANT["diagonal"])
    assert (printed.X_FILTERS["cross"] != MEANT["cross"]).sum() == 1
    assert torch.equal(printed.X_FILTERS["antidiagonal"], -MEANT["diagonal"])
    ranges = {
        name: (float(match_feature(filter).min()), float(match_feature(filter).max())) for name, filter in MEANT.items()
    }
    assert ranges == {name: (pytest.approx(low), 1) for name, low in zip(MEANT, (-3 / 9, -7 / 9, -3 / 9), strict=True)}


def test_e5_one_row_of_the_volume_does_not_give_the_printed_output():
    weight, expected = printed.SECOND_FILTER[None], printed.VOLUME_OUTPUT[1]
    assert not torch.equal(F.conv2d(printed.VOLUME[None], weight, stride=2)[0, 0], expected)
    assert torch.equal(F.conv2d(VOLUME[None], weight, stride=2)[0, 0], expected)
    assert (VOLUME != printed.VOLUME).any(2).sum() == 1


def test_e6_lost_rows_of_the_first_filter_follow_from_the_output():
    solutions = []
    for cells in itertools.product((-1.0, 0.0, 1.0), repeat=6):
        filter = printed.FIRST_FILTER.clone()
        filter[2, :2] = torch.tensor(cells).view(2, 3)
        solutions.append(filter)
    outputs = F.conv2d(VOLUME[None], torch.stack(solutions), stride=2)[0] + printed.FILTER_BIASES[0]
    fitting = [
        filter
        for filter, output in zip(solutions, outputs, strict=True)
        if torch.equal(output, printed.VOLUME_OUTPUT[0])
    ]
    assert len(fitting) == 1
    assert torch.equal(fitting[0], FIRST_FILTER)


def test_e7_fully_connected_counts_are_ten_and_a_thousand_times_too_small():
    assert 200 * 200 * 3 == 120_000 != 12_000
    assert parameters(nn.Linear(200 * 200 * 3, 500, device="meta")) == 60_000_500 != 60_500
    assert 12_000 * 500 + 500 != 60_500  # not even from the printed factors


def test_e8_pixel_values_end_at_255():
    assert int(printed.PIXELS.max()) == 260 > torch.iinfo(torch.uint8).max
    assert max(printed.TURQUOISE) == 256 > torch.iinfo(torch.uint8).max


# Formulas


def test_e9_cross_entropy_and_its_derivative_need_a_minus():
    truth, y = torch.tensor([0.0, 1, 0], dtype=double), torch.tensor([0.2, 0.5, 0.3], dtype=double)
    as_printed = (truth * y.log()).sum()
    assert as_printed < 0
    assert F.nll_loss(y.log()[None], torch.tensor([1])) == -as_printed
    measured = slopes(lambda y: F.nll_loss(y.log()[None], torch.tensor([1])), y)
    torch.testing.assert_close(measured, -truth / y)


def test_e10_softmax_falls_where_another_score_rises():
    z = torch.tensor([2.0, 1, 0.1], dtype=double)
    y = F.softmax(z, 0)
    jacobian = torch.func.jacrev(lambda z: F.softmax(z, 0))(z)
    torch.testing.assert_close(jacobian, torch.diag(y) - torch.outer(y, y))
    truth = torch.tensor([1.0, 0, 0], dtype=double)
    with_printed_signs = (truth / y) @ (torch.diag(y) - torch.outer(y, y) + 2 * (torch.outer(y, y) - torch.diag(y * y)))
    assert not torch.allclose(with_printed_signs, y - truth)
    torch.testing.assert_close((-truth / y) @ jacobian, y - truth)


def test_e11_gradient_of_the_mean_loss_is_divided_by_the_batch_size():
    z, truth = whole(4, 3).requires_grad_(), torch.tensor([0, 2, 1, 1])
    (gradient,) = torch.autograd.grad(F.cross_entropy(z, truth), z)
    difference = F.softmax(z.detach(), 1) - torch.nn.functional.one_hot(truth, 3)
    torch.testing.assert_close(gradient, difference / 4)
    assert not torch.allclose(gradient, difference)


def test_e12_factors_of_the_linear_gradients_stand_in_the_other_order():
    weight, activation, bias = whole(3, 4).requires_grad_(), whole(4, 1).requires_grad_(), whole(3, 1)
    error = whole(3, 1, seed=1)  # y − Y, a column as Z = WA + b is one
    z = F.linear(activation.mT, weight, bias[:, 0]).mT
    of_weight, of_activation = torch.autograd.grad(z, (weight, activation), error)
    torch.testing.assert_close(of_activation, weight.mT @ error)
    torch.testing.assert_close(of_weight, error @ activation.mT)
    for as_printed in (lambda: error @ weight, lambda: error @ activation):
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            as_printed()


def test_e13_output_size_is_rounded_down():
    assert (6 - 3) / 2 + 1 == 2.5
    assert output_size(6, kernel=3, padding=0, stride=2) == (2, 2)


@pytest.mark.parametrize(("stride", "padding", "holds"), [(1, 0, True), (2, 0, False), (1, 1, False)])
def test_e14_formulas_of_the_convolution_hold_without_stride_and_padding_only(stride, padding, holds):
    x, w = whole(1, 1, 5, 5).requires_grad_(), whole(1, 1, 3, 3, seed=1).requires_grad_()
    z = F.conv2d(x, w, stride=stride, padding=padding)
    grad = whole(*z.shape, seed=2)
    of_x, of_w = torch.autograd.grad(z, (x, w), grad)
    size, x, w, g = z.shape[2], x.detach()[0, 0], w.detach()[0, 0], grad[0, 0]

    def as_printed(result, cells):
        for target, value in cells:
            result[target] += value
        return result

    inside = [(i, j, m, n) for i, j, m, n in np.ndindex(size, size, 3, 3) if i + m < 5 and j + n < 5]
    forward = as_printed(
        torch.zeros(size, size, dtype=double), [((i, j), x[i + m, j + n] * w[m, n]) for i, j, m, n in inside]
    )
    to_w = as_printed(torch.zeros(3, 3, dtype=double), [((m, n), g[i, j] * x[i + m, j + n]) for i, j, m, n in inside])
    to_x = as_printed(torch.zeros(5, 5, dtype=double), [((i + m, j + n), g[i, j] * w[m, n]) for i, j, m, n in inside])
    for computed, formula in ((z[0, 0], forward), (of_w[0, 0], to_w), (of_x[0, 0], to_x)):
        assert torch.equal(computed, formula) == holds


def test_e15_a_convolution_with_the_rotated_kernel_rotates_twice():
    x, w = whole(1, 1, 4, 4).requires_grad_(), whole(1, 1, 3, 3, seed=1)
    y = F.conv2d(x, w)
    grad = whole(*y.shape, seed=2)
    (of_x,) = torch.autograd.grad(y, x, grad)
    windows = Windows((3, 3), (1, 1), (0, 0), (1, 1))
    rotated = w.flip(2, 3)

    def convolve_fully(g, kernel):
        return full_convolution(g, kernel, None, windows, x.shape[2:], None)

    def correlate_fully(g, kernel):
        return correlation(F.pad(g, (2, 2, 2, 2)), kernel, None, windows, None)

    assert torch.equal(convolve_fully(grad, w), of_x)
    assert torch.equal(correlate_fully(grad, rotated), of_x)
    assert not torch.equal(convolve_fully(grad, rotated), of_x)


def test_e16_rotated_kernel_also_swaps_its_channels():
    x, w = whole(1, 2, 4, 4).requires_grad_(), whole(2, 2, 3, 3, seed=1)  # as many in as out: the mistake is silent
    y = F.conv2d(x, w)
    grad = whole(*y.shape, seed=2)
    (of_x,) = torch.autograd.grad(y, x, grad)
    padded = F.pad(grad, (2, 2, 2, 2))
    assert torch.equal(F.conv2d(padded, w.flip(2, 3).transpose(0, 1)), of_x)
    assert not torch.equal(F.conv2d(padded, w.flip(2, 3)), of_x)


def test_e17_torchs_recurrent_layers_have_two_biases():
    inputs, hidden = 8, 16
    rnn = inputs * hidden + hidden * hidden + hidden
    lstm = 4 * ((inputs + hidden) * hidden + hidden)
    assert parameters(torch.nn.RNN(inputs, hidden)) == rnn + hidden
    assert parameters(torch.nn.LSTM(inputs, hidden)) == lstm + 4 * hidden


def test_e18_recurrent_weights_are_printed_transposed():
    x, inputs, hidden = torch.ones(8), 8, 16
    with pytest.raises(RuntimeError, match="size mismatch"):
        torch.zeros(inputs, hidden) @ x  # W_ih ∈ R^{d_in × d_hidden} times x_t
    assert torch.nn.RNN(inputs, hidden).weight_ih_l0.shape == (hidden, inputs)
    assert torch.nn.LSTM(inputs, hidden).weight_ih_l0.shape == (4 * hidden, inputs)


def test_e19_attention_returns_values_of_size_d_v():
    tokens, d_k, d_v = 5, 4, 6
    q, k, v = torch.randn(tokens, d_k), torch.randn(tokens, d_k), torch.randn(tokens, d_v)
    y = F.softmax(q @ k.mT / math.sqrt(d_k), -1) @ v
    assert y.shape == (tokens, d_v)


def test_e20_layer_norm_scales_each_feature_by_its_own_factor():
    x, scale, shift = whole(3, 4), whole(4, seed=1), whole(4, seed=2)
    normal = (x - x.mean(1, keepdim=True)) / (x.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(F.layer_norm(x, (4,), scale, shift), normal * scale + shift)
    assert torch.nn.LayerNorm(4).weight.shape == (4,)


def test_e21_running_variance_is_divided_by_n_minus_1():
    x, variance = whole(5, 2), torch.ones(2, dtype=double)
    F.batch_norm(x, torch.zeros(2, dtype=double), variance, training=True, momentum=1.0)
    torch.testing.assert_close(variance, x.var(0, correction=1))
    assert not torch.allclose(variance, x.var(0, correction=0))


def test_e22_batch_norm_of_feature_maps_averages_over_pixels_too_and_then_scales():
    x = whole(4, 2, 3, 3)
    y = F.batch_norm(x, None, None, training=True)
    torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(2, dtype=double))
    over_samples_alone = (x - x.mean(0)) / (x.var(0, correction=0) + 1e-5).sqrt()
    assert not torch.allclose(y, over_samples_alone)
    scaled = F.batch_norm(
        x, None, None, torch.tensor([2.0, 3], dtype=double), torch.ones(2, dtype=double), training=True
    )
    torch.testing.assert_close(scaled.mean((0, 2, 3)), torch.ones(2, dtype=double))


def test_e23_dropout_must_scale_what_it_keeps():
    x = torch.ones(100_000)
    torch.manual_seed(0)
    kept = F.dropout(x, 0.2)
    assert set(kept.unique().tolist()) == {0.0, 1.25}  # p is the share that is dropped
    assert float(kept.mean()) == pytest.approx(1, abs=0.01)
    assert float((kept > 0).float().mean()) == pytest.approx(0.8, abs=0.01)  # the mean without the scale


def test_e24_max_pooling_adds_up_over_windows_and_sends_ties_to_one_winner():
    overlapping = picture(torch.tensor([[0.0, 5, 0]])).requires_grad_()
    y = F.max_pool2d(overlapping, (1, 2), stride=1)
    (gradient,) = torch.autograd.grad(y, overlapping, torch.tensor([[[[2.0, 3.0]]]]))
    assert gradient.flatten().tolist() == [0, 5, 0]
    tied = torch.ones(1, 1, 2, 2, requires_grad=True)
    (gradient,) = torch.autograd.grad(F.max_pool2d(tied, 2), tied, torch.ones(1, 1, 1, 1))
    assert gradient.flatten().tolist() == [1, 0, 0, 0]


def test_e25_max_pooling_pads_with_minus_infinity():
    x = -torch.ones(1, 1, 2, 2)
    assert torch.equal(F.max_pool2d(x, 2, padding=1), -torch.ones(1, 1, 2, 2))
    assert torch.equal(F.max_pool2d(F.pad(x, (1, 1, 1, 1)), 2), torch.zeros(1, 1, 2, 2))


def test_e26_average_pooling_shares_the_gradient_out():
    x = picture(printed.POOLING_WINDOW).requires_grad_()
    (gradient,) = torch.autograd.grad(F.avg_pool2d(x, 2), x, torch.full((1, 1, 1, 1), 8.0))
    assert gradient.flatten().tolist() == [2, 2, 2, 2]
    (gradient,) = torch.autograd.grad(F.max_pool2d(x, 2), x, torch.full((1, 1, 1, 1), 8.0))
    assert gradient.flatten().tolist() == [0, 0, 8, 0]


# Code


class NotesConv2D:
    """The class of note 5, word for word; the kernels are given so that it can be compared."""

    def __init__(self, num_filters, kernel_size, input, padding=0, stride=1):
        self.num_filters = num_filters
        self.kernel_size = kernel_size
        self.input = input
        self.padding = padding
        self.stride = stride
        self.kernels = np.random.randn(num_filters, kernel_size, kernel_size) * np.sqrt(2.0 / input.shape[0])
        self.biases = np.zeros(num_filters)

    def forward(self):
        self.input = np.pad(self.input, ((self.padding, self.padding), (self.padding, self.padding)), "constant")
        output_height = int((self.input.shape[0] - self.kernel_size) / self.stride + 1)
        output_width = int((self.input.shape[1] - self.kernel_size) / self.stride + 1)
        self.output = np.zeros((output_height, output_width, self.num_filters))
        for i in range(0, output_height, self.stride):
            for j in range(0, output_width, self.stride):
                input_slice = self.input[i : i + self.kernel_size, j : j + self.kernel_size]
                for k in range(self.num_filters):
                    self.output[i, j, k] = np.sum(input_slice * self.kernels[k]) + self.biases[k]
        return self.output


def of_this_package(layer: NotesConv2D, image: np.ndarray) -> np.ndarray:
    weight = torch.from_numpy(layer.kernels)[:, None]
    output = F.conv2d(torch.from_numpy(image)[None, None], weight, stride=layer.stride, padding=layer.padding)
    return output[0].permute(1, 2, 0).numpy()


def test_e27_loop_of_the_notes_breaks_for_strides_above_1():
    image = np.random.default_rng(0).random((8, 8))
    fine = NotesConv2D(2, 3, image, padding=2)
    np.testing.assert_allclose(fine.forward(), of_this_package(fine, image))
    broken = NotesConv2D(2, 3, image, stride=2)
    output = broken.forward()
    assert output.shape == of_this_package(broken, image).shape
    assert not np.allclose(output, of_this_package(broken, image))
    assert (output == 0).mean() > 0.5  # most of it was never written


def test_e28_forward_of_the_notes_pads_anew_at_each_call():
    layer = NotesConv2D(1, 3, np.ones((5, 5)), padding=2)
    assert layer.forward().shape == (7, 7, 1)
    assert layer.forward().shape == (11, 11, 1)


def test_e29_he_initialisation_divides_by_the_inputs_of_a_neuron():
    np.random.seed(24)
    kernels = NotesConv2D(200, 3, np.zeros((400, 400))).kernels
    assert kernels.std() == pytest.approx(math.sqrt(2 / 400), rel=0.1)  # the height of the picture
    weight = torch.nn.init.kaiming_normal_(torch.empty(200, 1, 3, 3), nonlinearity="relu")
    assert float(weight.std()) == pytest.approx(math.sqrt(2 / 9), rel=0.1)


def test_e30_averages_that_the_notes_call_for_but_never_define():
    maps = whole(1, 8, 6, 6)
    means = maps.unfold(2, 2, 2).unfold(3, 2, 2).mean((-2, -1))
    torch.testing.assert_close(F.avg_pool2d(maps, 2, stride=2), means)


# Claims


@pytest.mark.parametrize("kernel", [2, 4])
def test_e31_kernels_may_be_even(kernel):
    assert nn.Conv2d(3, 8, kernel, stride=kernel)(torch.zeros(1, 3, 8, 8)).shape == (1, 8, 8 // kernel, 8 // kernel)


def test_e32_result_stands_on_the_right():
    left, middle = torch.zeros(1, 1, 5, 5), torch.zeros(1, 1, 3, 3)
    assert F.conv2d(left, middle).shape == (1, 1, 3, 3) != left.shape


def times_used(padding):
    """How many windows of 3×3 use each cell of 5×5: the gradient of the sum under a kernel of ones."""
    x, ones = torch.zeros(1, 1, 5, 5, requires_grad=True), torch.ones(1, 1, 3, 3)
    return torch.autograd.grad(F.conv2d(x, ones, padding=padding).sum(), x)[0][0, 0]


def test_e33_only_the_corners_are_used_once():
    assert times_used(padding=0)[0].tolist() == [1, 2, 3, 2, 1]
    assert times_used(padding=1)[0].tolist() == [4, 6, 6, 6, 4]
    assert (times_used(padding=0) == 1).sum() == 4


def test_e34_outputs_may_be_larger_and_parameters_do_not_depend_on_the_picture():
    assert output_size(5, 3, padding=2, stride=1) == (7, 7)  # larger, as in the notes' own demonstration
    assert output_size(5, 3, padding=1, stride=1) == (5, 5)
    layer = nn.Conv2d(1, 8, 3)
    assert layer(torch.zeros(1, 1, 9, 9)).shape != layer(torch.zeros(1, 1, 90, 90)).shape  # the same 80 parameters


def test_e35_pooling_removes_parameters_of_a_later_linear_layer_alone():
    def network(pool):
        maps = [torch.nn.Conv2d(1, 4, 3, padding=1), *pool, torch.nn.Conv2d(4, 4, 3, padding=1)]
        return torch.nn.Sequential(*maps), torch.nn.LazyLinear(10)

    with_pool, without = network([torch.nn.MaxPool2d(2)]), network([])
    for maps, dense in (with_pool, without):
        dense(torch.nn.Flatten()(maps(torch.zeros(1, 1, 8, 8))))
    assert parameters(with_pool[0]) == parameters(without[0])
    assert 4 * with_pool[1].weight.numel() == without[1].weight.numel()
    assert parameters(nn.MaxPool2d(2)) == 0


def test_e36_relu_has_no_parameters_and_does_not_prevent_overfitting():
    assert parameters(nn.ReLU()) == 0
    torch.manual_seed(0)
    x, noise = torch.randn(20, 5), torch.randint(2, (20,))
    network = torch.nn.Sequential(nn.Linear(5, 100), nn.ReLU(), nn.Linear(100, 2))
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(100):
        optimizer.zero_grad()
        F.cross_entropy(network(x), noise).backward()
        optimizer.step()
    assert bool((network(x).argmax(1) == noise).all())  # it has learnt pure noise by heart


def test_e37_leaky_relu_answers_in_proportion():
    assert F.leaky_relu(torch.tensor([-1.0, -10.0]), 0.1).tolist() == pytest.approx([-0.1, -1.0])


def test_e38_relu_neither_passes_gradients_intact_nor_helps_by_being_unbounded():
    share = demonstrations.gradient_share
    assert share(20, F.sigmoid, 1.0) < 1e-9
    assert 0.1 < share(20, F.relu, 2**0.5) < 10  # not by itself: its weights must be scaled for it
    assert share(20, F.relu, 1.0) < 1e-2
    x = torch.tensor(1e6, requires_grad=True)
    (slope,) = torch.autograd.grad(x.asinh(), x)
    assert slope < 1e-5  # asinh is unbounded, and its derivative vanishes


def test_e39_receptive_field_is_12_for_one_arrangement_only():
    conv, pool = Windows((3, 3), (1, 1), (0, 0), (1, 1)), Windows((2, 2), (2, 2), (0, 0), (1, 1))

    def size(*layers):
        field = ReceptiveField.of_input(2)
        for windows in layers:
            field = field.through(windows)
        return field.size[0]

    assert size(conv) == 3
    assert size(conv, conv, conv) == 7
    assert size(conv, conv, pool, conv) == 10
    assert size(conv, pool, conv, conv) == 12
    assert size(conv, pool, conv, pool, conv) == 18


def test_e40_convolution_adds_up_and_does_not_average():
    window, filter = picture(MEANT["diagonal"]), picture(MEANT["diagonal"])
    assert float(F.conv2d(window, filter)) == 9
    assert float(F.conv2d(window, filter / 9)) == pytest.approx(1)


def test_e41_flipping_costs_nothing_since_the_kernel_is_learnt():
    x, w = whole(1, 1, 6, 6), whole(1, 1, 3, 3, seed=1)
    windows = Windows((3, 3), (1, 1), (2, 2), (1, 1))
    true_convolution = full_convolution(x, w, None, windows, (4, 4), None)
    assert torch.equal(true_convolution, F.conv2d(x, w.flip(2, 3)))  # the same functions, each weight in another place


def test_e42_tensors_differentiate_only_on_request():
    assert not torch.tensor([1.0, 2.0]).requires_grad
    with pytest.raises(RuntimeError, match="floating point"):
        torch.tensor([1, 2], requires_grad=True)


def test_e43_fully_connected_layers_overfit_with_little_data():
    def gap(samples):
        generator = torch.Generator().manual_seed(0)
        truth = torch.randn(50, 1, generator=generator, dtype=double)

        def data():
            x = torch.randn(samples, 50, generator=generator, dtype=double)
            return x, x @ truth + torch.randn(samples, 1, generator=generator, dtype=double)

        (x, y), (unseen, expected) = data(), data()
        weight = torch.linalg.lstsq(x, y).solution.mT
        errors = (F.linear(unseen, weight) - expected, F.linear(x, weight) - y)
        return float(errors[0].square().mean() - errors[1].square().mean())

    assert gap(samples=60) > 10 * gap(samples=6000)


def test_e44_gradient_of_the_bias_is_not_that_of_the_kernel():
    x, w, b = whole(2, 1, 4, 4), whole(3, 1, 3, 3, seed=1), torch.zeros(3, dtype=double, requires_grad=True)
    y = F.conv2d(x, w, b)
    grad = whole(*y.shape, seed=2)
    (of_bias,) = torch.autograd.grad(y, b, grad)
    assert torch.equal(of_bias, grad.sum((0, 2, 3)))
