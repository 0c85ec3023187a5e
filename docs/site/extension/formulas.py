"""KaTeX as a process that answers, formula by formula, over its input and output.

The one of sphinxcontrib.katex answers over a socket, which may refuse a connection while the process still starts.
"""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from sphinxcontrib import katex

NODE = shutil.which("node")
OPTIONS = {"output": "mathml", "throwOnError": True, "strict": False}

PROGRAM = """
const katex = require(process.argv[1]);
require("readline").createInterface({ input: process.stdin }).on("line", line => {
  const [latex, options] = JSON.parse(line);
  console.log(JSON.stringify(katex.renderToString(latex, options)));
});
"""


@functools.cache
def _process() -> subprocess.Popen[str]:
    assert NODE is not None
    script = Path(katex.__file__).with_name("katex.min.js")
    return subprocess.Popen([NODE, "-e", PROGRAM, str(script)], stdin=-1, stdout=-1, encoding="utf-8")


def render(latex: str, options: dict[str, Any] | None = None) -> str:
    """The formula as MathML; ValueError for what KaTeX does not understand."""
    process = _process()
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps([latex, {**OPTIONS, **(options or {})}]) + "\n")
    process.stdin.flush()
    answer = process.stdout.readline()
    if not answer:
        raise ValueError(f"KaTeX does not understand {latex!r}")
    return str(json.loads(answer))
