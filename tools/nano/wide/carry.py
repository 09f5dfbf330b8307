"""From carried shards to a model: a checkpoint folder in the published layout for the converter and transformers.

python -m wide.carry --shards RUN/carry --out RUN/export
"""

import argparse
import os
import shutil
import tempfile

import export
from vocabulary import MODEL_FILE, Vocabulary

from wide.checkpoints import read_shards


def model_of(prefix, folder=None):
    """-> (model, vocabulary) of shards; the vocabulary's file is laid into `folder` (a temporary one if None)"""
    weights, about = read_shards(prefix)
    path = os.path.join(folder or tempfile.mkdtemp(), MODEL_FILE)
    with open(path, "wb") as f:
        f.write(about["vocabulary"])
    vocabulary = Vocabulary(path)
    model = export.new_model(vocabulary, config=about["config"])
    model.load_state_dict(weights)
    return model.eval(), vocabulary


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--shards", required=True, help="prefix of the shards, as RUN/carry")
    ap.add_argument("--out", required=True)
    a = ap.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model, vocabulary = model_of(a.shards, folder)
        export.write(a.out, model, vocabulary)
    scope = read_shards(a.shards)[1].get("scope", "all")
    here = os.path.dirname(os.path.abspath(__file__))
    shutil.copy(os.path.join(here, f"about-{scope}.json"), os.path.join(a.out, "kosmos_edge.json"))
    print(f"{a.out}: {sum(p.numel() for p in model.parameters()):,} parameters, {len(vocabulary)} tokens")


if __name__ == "__main__":
    main()
