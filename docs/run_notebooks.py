"""Run the code of the notebooks beside this file, each in an empty folder: ``python docs/run_notebooks.py``.

Cells are plain Python: no magic commands, no shell.
"""

import json
import os
import tempfile
from pathlib import Path


def code_of(path: Path) -> list[str]:
    """The code cells of a notebook, in their order."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


if __name__ == "__main__":
    for notebook in sorted(Path(__file__).parent.resolve().glob("*.ipynb")):
        names: dict[str, object] = {"__name__": "__main__"}
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            for number, cell in enumerate(code_of(notebook), 1):
                exec(compile(cell, f"{notebook.name}, code cell {number}", "exec"), names)
            os.chdir(notebook.parent)
        print(f"{notebook.name} runs")
