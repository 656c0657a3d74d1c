"""What commands do to files that are not theirs: they neither replace nor follow nor wait for them."""

import json
import os
import subprocess
import sys

import pytest

from sol_symbols import SolError, write_atomically
from sol_symbols.cli import main
from sol_symbols.files import append_text, check_target, file_name, lock_folder, read_regular


@pytest.fixture(params=["link", "dangling", "pipe", "device", "folder"])
def special(request, tmp_path):
    """A path that is not a regular file, and what must be as before."""
    mine, path = tmp_path / "mine", tmp_path / "special"
    mine.write_text("mine")
    if request.param == "pipe":
        os.mkfifo(path)
    elif request.param == "folder":
        path.mkdir()
    else:
        path.symlink_to({"link": mine, "dangling": tmp_path / "new", "device": "/dev/full"}[request.param])
    before = os.lstat(path)
    yield path
    assert os.lstat(path) == before
    assert mine.read_text() == "mine"
    assert {file.name for file in tmp_path.iterdir()} == {"mine", "special"}


@pytest.mark.parametrize(
    "use",
    [
        lambda path: write_atomically(path, "text"),
        lambda path: append_text(path, "text"),
        lambda path: read_regular(path, 100),
        check_target,
    ],
    ids=["write", "append", "read", "check"],
)
def test_only_regular_files_are_read_and_written(use, special):
    with pytest.raises(SolError, match=r"special: it is (a symbolic link|a pipe|a folder), not a regular file"):
        use(special)


@pytest.mark.parametrize(
    "words",
    [
        ["export", "adam", "--to", "torch", "--no-verify", "-o"],
        ["glossary", "-o"],
        ["compare", "quadratic", "adam", "--seeds", "1", "--json"],
        ["compare", "quadratic", "adam", "--seeds", "1", "--csv"],
    ],
    ids=" ".join,
)
def test_commands_leave_what_is_no_file_alone(words, special, capsys):
    assert main([*words, str(special)]) == 2
    assert "not a regular file" in capsys.readouterr().err


def test_a_device_is_no_output(capsys):
    kind = os.lstat("/dev/null").st_rdev
    assert main(["export", "adam", "--to", "latex", "-o", "/dev/null"]) == 2
    assert "it is a device" in capsys.readouterr().err
    assert os.lstat("/dev/null").st_rdev == kind


def test_a_report_never_replaces_its_source_nor_a_page_of_others(tmp_path, capsys):
    study = json.dumps({"study": {"shows": "it"}, "tables": [{"title": "t", "head": ["a"], "rows": [["b"]]}]})
    same = tmp_path / "c.html"
    same.write_text(study)
    assert main(["report", str(same)]) == 2
    assert "would replace it" in capsys.readouterr().err
    assert same.read_text() == study
    source, page = tmp_path / "s.json", tmp_path / "s.html"
    source.write_text(study)
    page.write_text("<p>mine")
    assert main(["report", str(source)]) == 2
    assert f"is no report; to replace it, pass -o {page}" in capsys.readouterr().err
    assert page.read_text() == "<p>mine"
    assert main(["report", str(source), "-o", str(page)]) == 0
    assert main(["report", str(source)]) == 0  # its own page
    assert main(["report", str(source), "-o", str(source)]) == 2
    assert source.read_text() == study


def test_a_folder_in_use_is_refused_and_freed_when_its_process_ends(tmp_path):
    code = "from sol_symbols.files import lock_folder\nfrom pathlib import Path\n"
    code += f"with lock_folder(Path({str(tmp_path)!r})):"
    holder = subprocess.Popen(
        [sys.executable, "-c", f"{code}\n print('held', flush=True)\n input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(SolError, match="is in use by another process"), lock_folder(tmp_path):
        pass
    assert main(["learn", "quadratic", "--out", str(tmp_path)]) == 2
    holder.kill()
    holder.communicate()
    with lock_folder(tmp_path):
        pass
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("text", ["../../x", "/etc/x", ".hidden", "", "a\nb", "\x1b[31m", "x" * 1000, "é", ".."])
def test_file_names_stay_in_their_folder(text, tmp_path):
    name = file_name(text)
    write_atomically(tmp_path / name, "text")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert name.isascii()
    assert not name.startswith(".")


@pytest.mark.parametrize("name", ["optimizer.py", "optimizer_optax.py", "formula.tex"])
def test_learning_does_not_replace_code_of_others(name, tmp_path, capsys):
    (tmp_path / name).write_text("mine")
    assert main(["learn", "quadratic", "--out", str(tmp_path)]) == 2
    assert f"contains {name}, but no run" in capsys.readouterr().err
    assert (tmp_path / name).read_text() == "mine"
