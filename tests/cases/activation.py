"""Activations: every option, and both sides of every kink."""

import torch

from tests.cases import Case, ModuleCase
from tests.cases.dropout import RANDOM

SHAPE = ((2, 6, 3),)

STRAIGHT = dict.fromkeys(
    ["second_derivatives", "every_element_of_the_derivatives"],
    "a choice of the largest has the gradient of the softmax",
)

CASES = [
    Case("relu", lambda F, x: F.relu(x), SHAPE),
    Case("leaky_relu", lambda F, x: F.leaky_relu(x, 0.3), SHAPE),
    Case("prelu", lambda F, x, w: F.prelu(x, w), ((2, 6, 3), (6,))),
    Case("prelu one weight", lambda F, x, w: F.prelu(x, w), ((2, 6, 3), (1,))),
    Case("rrelu", lambda F, x: F.rrelu(x, 0.1, 0.5), SHAPE),
    Case("relu6", lambda F, x: F.relu6(x), SHAPE, low=-4, high=9),
    Case("hardtanh", lambda F, x: F.hardtanh(x, -0.5, 1.2), SHAPE),
    Case("threshold", lambda F, x: F.threshold(x, 0.4, -3), SHAPE),
    Case("hardshrink", lambda F, x: F.hardshrink(x, 0.7), SHAPE),
    Case("softshrink", lambda F, x: F.softshrink(x, 0.7), SHAPE),
    Case("hardsigmoid", lambda F, x: F.hardsigmoid(x), SHAPE, low=-5, high=5, precision=torch.float32),
    Case("hardswish", lambda F, x: F.hardswish(x), SHAPE, low=-5, high=5),
    Case("sigmoid", lambda F, x: F.sigmoid(x), SHAPE),
    Case("tanh", lambda F, x: F.tanh(x), SHAPE),
    Case("logsigmoid", lambda F, x: F.logsigmoid(x), SHAPE),
    Case("silu", lambda F, x: F.silu(x), SHAPE),
    Case("mish", lambda F, x: F.mish(x), SHAPE),
    Case("softplus", lambda F, x: F.softplus(x, 1.5, 2), SHAPE),
    Case("tanhshrink", lambda F, x: F.tanhshrink(x), SHAPE),
    Case("softsign", lambda F, x: F.softsign(x), SHAPE),
    Case("elu", lambda F, x: F.elu(x, 1.7), SHAPE),
    Case("selu", lambda F, x: F.selu(x), SHAPE),
    Case("celu", lambda F, x: F.celu(x, 1.7), SHAPE, precision=torch.float32),
    Case("gelu", lambda F, x: F.gelu(x), SHAPE),
    Case("gelu tanh", lambda F, x: F.gelu(x, approximate="tanh"), SHAPE),
    Case("glu", lambda F, x: F.glu(x, 1), SHAPE),
    Case("softmax", lambda F, x: F.softmax(x, 1), SHAPE),
    Case("softmax last", lambda F, x: F.softmax(x, -1), SHAPE),
    Case("softmin", lambda F, x: F.softmin(x, 0), SHAPE),
    Case("log_softmax", lambda F, x: F.log_softmax(x, 1), SHAPE),
    Case("gumbel_softmax", lambda F, x: F.gumbel_softmax(x, tau=0.7), ((3, 4),), leave_out=RANDOM),
    Case(
        "gumbel_softmax hard",
        lambda F, x: F.gumbel_softmax(x, hard=True, dim=0),
        ((3, 4),),
        leave_out=RANDOM | STRAIGHT,
    ),
]

PICTURE = ((2, 6, 3, 4),)

MODULE_CASES = [
    ModuleCase("ReLU", lambda nn: nn.ReLU(), PICTURE),
    ModuleCase("ReLU inplace", lambda nn: nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True)), PICTURE),
    ModuleCase("LeakyReLU", lambda nn: nn.LeakyReLU(0.2), PICTURE),
    ModuleCase(
        "LeakyReLU inplace", lambda nn: nn.Sequential(nn.Linear(4, 4), nn.LeakyReLU(0.2, inplace=True)), PICTURE
    ),
    ModuleCase("PReLU", lambda nn: nn.PReLU(6), PICTURE),
    ModuleCase("RReLU", lambda nn: nn.RReLU(), PICTURE),
    ModuleCase("Hardtanh", lambda nn: nn.Hardtanh(-0.5, 1), PICTURE),
    ModuleCase("ReLU6", lambda nn: nn.ReLU6(), PICTURE),
    ModuleCase("Threshold", lambda nn: nn.Threshold(0.1, 20), PICTURE),
    ModuleCase("Hardshrink", lambda nn: nn.Hardshrink(), PICTURE),
    ModuleCase("Softshrink", lambda nn: nn.Softshrink(), PICTURE),
    ModuleCase("Hardsigmoid", lambda nn: nn.Hardsigmoid(), PICTURE, precision=torch.float32),
    ModuleCase("Hardswish", lambda nn: nn.Hardswish(), PICTURE),
    ModuleCase("Sigmoid", lambda nn: nn.Sigmoid(), PICTURE),
    ModuleCase("Tanh", lambda nn: nn.Tanh(), PICTURE),
    ModuleCase("LogSigmoid", lambda nn: nn.LogSigmoid(), PICTURE),
    ModuleCase("SiLU", lambda nn: nn.SiLU(), PICTURE),
    ModuleCase("Mish", lambda nn: nn.Mish(), PICTURE),
    ModuleCase("Softplus", lambda nn: nn.Softplus(2), PICTURE),
    ModuleCase("Tanhshrink", lambda nn: nn.Tanhshrink(), PICTURE),
    ModuleCase("Softsign", lambda nn: nn.Softsign(), PICTURE),
    ModuleCase("ELU", lambda nn: nn.ELU(0.8), PICTURE),
    ModuleCase("SELU", lambda nn: nn.SELU(), PICTURE),
    ModuleCase("CELU", lambda nn: nn.CELU(0.8), PICTURE, precision=torch.float32),
    ModuleCase("GELU", lambda nn: nn.GELU(), PICTURE),
    ModuleCase("GELU tanh", lambda nn: nn.GELU(approximate="tanh"), PICTURE),
    ModuleCase("GLU", lambda nn: nn.GLU(1), PICTURE),
    ModuleCase("Softmax", lambda nn: nn.Softmax(1), PICTURE),
    ModuleCase("Softmin", lambda nn: nn.Softmin(1), PICTURE),
    ModuleCase("LogSoftmax", lambda nn: nn.LogSoftmax(1), PICTURE),
    ModuleCase("Softmax2d", lambda nn: nn.Softmax2d(), PICTURE),
]
