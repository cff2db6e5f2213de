"""Files that appear complete or not at all; folders are tested by those who write logs and bags."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys

import pytest

from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.files import held, new_file, remove_leftovers, remove_unfinished, writing_to


def test_a_file_appears_when_the_block_ends(tmp_path):
    path = tmp_path / "new" / "folder" / "a.txt"
    with new_file(path, "w") as file:
        file.write("größer")
        assert not path.exists() and all(there.name.startswith(".") for there in path.parent.iterdir())
    assert path.read_bytes() == "größer".encode()
    with new_file(path, "wb") as file:
        file.write(b"later")
    assert path.read_bytes() == b"later" and list(path.parent.iterdir()) == [path]


def test_a_file_has_the_rights_of_any_other(tmp_path):
    (tmp_path / "usual").write_text("")
    with new_file(tmp_path / "a", "w"):
        pass
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.parametrize("exception", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_block_that_fails_leaves_the_old_file(tmp_path, exception):
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(exception), new_file(path, "w") as file:
        file.write("new")
        raise exception
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_writers_of_one_file_do_not_meet(tmp_path):
    path = tmp_path / "a"
    with new_file(path, "w") as slow:
        slow.write("slow, ")
        with new_file(path, "w") as quick:
            quick.write("quick")
        assert path.read_text() == "quick"
        slow.write("but whole")
    assert path.read_text() == "slow, but whole" and list(tmp_path.iterdir()) == [path]


def test_what_the_file_system_refuses_is_told(tmp_path):
    path = tmp_path / "a"
    path.mkdir()
    with pytest.raises(ZeroFlowError, match=re.escape(f"cannot write {path}: Is a directory")), new_file(path, "w"):
        pass
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(ZeroFlowError, match=re.escape(f"cannot write {path}: No space left")), new_file(path, "w"):
        raise full
    assert list(tmp_path.iterdir()) == [path]


def test_what_killed_writers_left_is_removed_and_nothing_else(tmp_path):
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom zeroflow_core.files import new_file\n"
        "with new_file(Path(sys.argv[1]), 'w') as file:\n    file.write('half')\n    file.flush()\n    os._exit(9)\n"
    )
    path = tmp_path / "deep" / "a.txt"
    for _ in range(2):
        assert subprocess.run([sys.executable, "-c", program, str(path)], timeout=60).returncode == 9
    kept = [tmp_path / ".hidden", tmp_path / "deep" / ".notes.txt", tmp_path / "deep" / "a.txt"]
    for file in kept:
        file.write_text("mine")
    assert len(list(path.parent.iterdir())) == 4
    for folder, name in ((tmp_path, "a.txt"), (path.parent, "b.txt")):  # names are of the folder itself
        remove_unfinished(folder, [name])
        assert len(list(path.parent.iterdir())) == 4
    remove_unfinished(tmp_path)
    assert sorted(file for file in tmp_path.rglob("*") if file.is_file()) == sorted(kept)


def test_a_name_with_brackets_is_no_pattern(tmp_path):
    for name in ("drive[1]", "drive1"):
        (tmp_path / f".{name}.abcd1234").mkdir()
        (tmp_path / f".0123456789abcdef.{name}").write_text("half")
    remove_leftovers(tmp_path / "drive[1]")
    remove_unfinished(tmp_path, ["drive[1]"])
    assert {path.name for path in tmp_path.iterdir()} == {".drive1.abcd1234", ".0123456789abcdef.drive1"}


# A command's folder --------------------------------------------------------------------------------------------------


def test_a_folder_is_made_and_held_until_the_end(tmp_path):
    out = tmp_path / "a" / "b"
    with held(out, "writing into"):
        assert out.is_dir()
        with pytest.raises(ZeroFlowError, match=r"another process is writing into .*/a/b; wait for it, or .* --out"):
            with held(out, "writing into"):
                pytest.fail("both have it")
    with held(out, "writing into"):
        pass


def test_a_folder_that_is_a_file_or_can_not_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    refused = {"file": "file is a file; give the folder", "file/below": "cannot write to .*Not a directory"}
    for name, told in refused.items():
        with pytest.raises(ZeroFlowError, match=told), held(tmp_path / name, "writing into"):
            pytest.fail("it is held")


def test_what_goes_wrong_while_a_folder_is_held_is_not_the_folders_fault(tmp_path):
    with pytest.raises(FileNotFoundError), held(tmp_path, "writing into"):
        (tmp_path / "missing").read_text()


def test_what_the_file_system_refuses_is_told_with_the_folder(tmp_path):
    with pytest.raises(ZeroFlowError, match=f"cannot write to {tmp_path}: Is a directory"), writing_to(tmp_path):
        tmp_path.write_text("")
