"""The example runs as written, against a Hub on the loopback interface."""

import os
import subprocess
import sys
from pathlib import Path

from support.models import save_with_tokenizer, tiny


ROOT = Path(__file__).parents[2]


def test_it_prunes_measures_and_publishes(local_hub, tmp_path):
    text = Path(__file__).read_text()
    save_with_tokenizer(tiny("opt"), tmp_path / "model", text)
    (tmp_path / "notes.txt").write_text(text * 3)
    places = {"HF_ENDPOINT": local_hub.url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": "hf_fake"}
    switches = {"SI_QUICK": "1", "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    script = ROOT / "examples" / "prune_and_publish.py"
    done = subprocess.run(
        [sys.executable, str(script), "model", "notes.txt", "me/sparse"],
        cwd=tmp_path,
        env={**os.environ, **places, **switches},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "perplexity: " in done.stdout and f"{local_hub.url}/me/sparse/commit/" in done.stdout
    assert "| notes.txt | perplexity | " in local_hub.repositories["me/sparse"]["README.md"].decode()
    card = local_hub.repositories["me/sparse"]["README.md"].decode()
    assert "-m model --dataset notes.txt --method sparsegpt --pattern 2:4 --num-samples 8" in card
