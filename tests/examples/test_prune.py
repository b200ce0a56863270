"""``examples/prune.py`` runs as written."""


def test_prune_runs_as_written(run, checkpoint, text_file, tmp_path):
    finished = run("prune.py", checkpoint, text_file, tmp_path / "out")
    assert "sparsity: 50.00%" in finished.stdout and "'pattern': '2:4'" in finished.stdout
