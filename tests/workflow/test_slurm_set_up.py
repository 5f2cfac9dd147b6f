"""What `make test-slurm` says where it cannot start; a Slurm of the machine's own is left alone."""

import fcntl
import os

import pytest
import real_slurm


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Where Slurm looks for its configuration, and a folder of ours with one."""
    monkeypatch.setattr(real_slurm, "CONF", tmp_path / "etc/slurm.conf")
    folder = tmp_path / f"{real_slurm.PREFIX}old"
    folder.mkdir()
    (folder / "lock").touch()
    return real_slurm.CONF, folder / "slurm.conf"


def test_a_configuration_of_the_machines_own_is_left_untouched(place):
    conf, ours = place
    conf.parent.mkdir()
    conf.write_text("ClusterName=theirs\n")
    with pytest.raises(AssertionError, match=r"slurm.conf exists, so .* it is left untouched"):
        real_slurm.take_place(ours)
    assert conf.read_text() == "ClusterName=theirs\n" and not conf.is_symlink()


def test_a_link_of_theirs_that_leads_nowhere_is_left_untouched_too(place):
    conf, ours = place
    conf.parent.mkdir()
    conf.symlink_to("/not/mounted/slurm.conf")
    with pytest.raises(AssertionError, match="it is left untouched"):
        real_slurm.take_place(ours)
    assert str(conf.readlink()) == "/not/mounted/slurm.conf"


@pytest.mark.parametrize("folder_is_left", [True, False])
def test_what_a_killed_test_run_has_left_is_replaced(place, tmp_path, folder_is_left):
    conf, ours = place
    real_slurm.take_place(ours)
    if not folder_is_left:
        (ours.parent / "lock").unlink()
        ours.parent.rmdir()
    real_slurm.take_place(tmp_path / "new.conf")
    assert conf.readlink() == tmp_path / "new.conf"


def test_another_test_run_at_work_is_not_disturbed(place, tmp_path):
    conf, ours = place
    real_slurm.take_place(ours)
    with (ours.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(AssertionError, match="in use by another run of these tests"):
            real_slurm.take_place(tmp_path / "new.conf")
    assert conf.readlink() == ours


def test_a_missing_slurm_fails_with_the_line_that_installs_it(monkeypatch, tmp_path):
    monkeypatch.setattr(real_slurm, "search_path", lambda: str(tmp_path))
    with pytest.raises(
        AssertionError, match=r"no munged, .*apt-get install -y .* slurmctld slurmd"
    ):
        real_slurm.check_installed()


def test_without_root_it_says_so(monkeypatch):
    monkeypatch.setattr(real_slurm, "PROGRAMS", [])
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(AssertionError, match="needs root"):
        real_slurm.check_installed()


def test_a_daemon_that_does_not_start_is_named_and_nothing_stays(place, tmp_path, monkeypatch):
    conf, _ = place
    monkeypatch.setattr(real_slurm, "check_installed", lambda: None)
    monkeypatch.setattr(real_slurm, "PROGRAMS", [])
    monkeypatch.setattr(real_slurm.tempfile, "tempdir", str(tmp_path))
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("munged", "slurmctld", "slurmd", "scancel", "squeue"):
        words = "echo broken; exit 1" if name == "slurmctld" else "exec sleep 60"
        (programs / name).write_text(f"#!/bin/sh\n{words if name[-1] == 'd' else 'true'}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    with pytest.raises(AssertionError, match="slurmctld ended: broken"), real_slurm.slurm():
        pass
    assert not conf.is_symlink()
    assert [path.name for path in tmp_path.glob(f"{real_slurm.PREFIX}*")] == ["offramp-slurm-old"]
