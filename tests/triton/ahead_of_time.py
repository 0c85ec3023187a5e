"""What a call would launch, compiled for graphics cards that are not there.

The functions that launch kernels are called with meta tensors, and the launches recorded in the place of made: so what
is compiled is what a GPU would be given, its arguments' types, blocks and options.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.torch_version import TorchVersion

from torchfromscratch.kernels.triton import launch

# The shared memory that one program may have, in bytes, of A100 and H100; and of GeForce 30, 40 and 50.
CARDS = {80: 163 * 1024, 90: 227 * 1024}
CONSUMER_CARDS = {86: 99 * 1024, 89: 99 * 1024, 120: 99 * 1024}

POINTERS = {
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.float32: "*fp32",
    torch.float64: "*fp64",
    torch.int8: "*i8",
    torch.uint8: "*u8",
    torch.int32: "*i32",
    torch.int64: "*i64",
    torch.bool: "*i1",
}


@dataclass(frozen=True)
class Launch:
    """A kernel, the arguments in its order, and how it is launched."""

    kernel: Any
    programs: int
    args: tuple[Any, ...]
    options: dict[str, int]
    constants: dict[str, Any]


@dataclass(frozen=True)
class Compiled:
    """What the compiler made of a launch."""

    name: str
    ptx: str
    registers: int
    spilled: int
    shared: int

    @property
    def lacks_registers(self) -> bool:
        """Whether it spills for want of registers. Assemblers before Triton 3.7's park 8 bytes though 215 are left."""
        import triton

        parked = 8 if TorchVersion(triton.__version__) < "3.7" and self.registers <= 40 else 0
        return self.spilled > parked

    @property
    def uses_tensor_cores(self) -> bool:
        return "mma" in self.ptx


def launches(monkeypatch: pytest.MonkeyPatch, name: str, *args: Any) -> list[Launch]:
    """What `torchfromscratch::triton_<name>` would launch for these arguments, tensors on "meta"."""
    found: list[Launch] = []

    def record(kernel: Any, programs: int, *given: Any, warps: int = 4, stages: int = 3, **constants: Any) -> None:
        options = {"num_warps": warps, "num_stages": stages}
        found.append(Launch(kernel, programs, given, options, constants))

    families = [module for name, module in sys.modules.items() if name.startswith("torchfromscratch.kernels.triton.")]
    real = launch.launch
    with monkeypatch.context() as patched:
        for family in families:
            if getattr(family, "launch", None) is real:
                patched.setattr(family, "launch", record)
        launch.LAUNCHERS[f"triton_{name}"](*args)
    return found


def compile_for(card: int, launch: Launch) -> Compiled:
    """The launch compiled for a card of this compute capability."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature: dict[str, str] = {}
    constants, attributes = dict(launch.constants), {}
    for position, arg in enumerate(launch.args):
        name = launch.kernel.arg_names[position]
        signature[name] = type_of(arg)
        if signature[name] == "constexpr":
            constants[name] = arg
        elif is_divisible(arg):
            attributes[(position,)] = [["tt.divisibility", 16]]
    signature.update(dict.fromkeys(launch.constants, "constexpr"))
    source = ASTSource(launch.kernel, signature, constants, attributes)
    compiled = triton.compile(source, target=GPUTarget("cuda", card, 32), options=launch.options)
    registers, spilled = assemble(compiled.asm["ptx"], card)
    return Compiled(compiled.name, compiled.asm["ptx"], registers, spilled, compiled.metadata.shared)


def type_of(arg: Any) -> str:
    """As Triton specialises an argument: what is None or 1 is a constant."""
    if isinstance(arg, Tensor):
        return POINTERS[arg.dtype]
    if arg is None or arg is True or arg is False or (isinstance(arg, int) and arg == 1):
        return "constexpr" if not isinstance(arg, bool) else "i1"
    if isinstance(arg, float):
        return "fp32"
    return "i32" if -(2**31) <= arg < 2**31 else "i64"


def is_divisible(arg: Any) -> bool:
    """Whether Triton may count on it: memory of its own begins at a multiple of 16 bytes."""
    return isinstance(arg, Tensor) or (isinstance(arg, int) and not isinstance(arg, bool) and arg % 16 == 0)


def assemble(ptx: str, card: int) -> tuple[int, int]:
    """Registers, and bytes that are written to memory for want of them, as the assembler tells."""
    from triton import knobs

    name = f"sm_{card}a" if card >= 90 else f"sm_{card}"
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(ptx)
        file.flush()
        blackwell = getattr(knobs.nvidia, "ptxas_blackwell", knobs.nvidia.ptxas)  # which Triton 3.5 has not
        assembler = knobs.nvidia.ptxas if card < 100 else blackwell
        command = [assembler.path, "-v", f"--gpu-name={name}", "--output-file", os.devnull, file.name]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    return int(re.findall(r"Used (\d+) registers", told)[0]), int(re.findall(r"(\d+) bytes spill stores", told)[0])


def assert_fits(card: int, launch: Launch, products: bool = False, spilled: int = 0) -> None:
    """It compiles, spills no more bytes, has the memory, and multiplies matrices of narrow types on tensor cores."""
    compiled = compile_for(card, launch)
    assert not compiled.lacks_registers or compiled.spilled <= spilled, (
        f"{compiled.name} spills {compiled.spilled} bytes: {launch.options} {launch.constants}"
    )
    assert compiled.shared <= CARDS[card], f"{compiled.name} needs {compiled.shared} bytes of shared memory"
    if products:
        assert compiled.uses_tensor_cores, f"{compiled.name} multiplies without tensor cores"
