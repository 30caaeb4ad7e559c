"""One module per corpus; `hri_emo_ros.training.corpus.available` finds them here."""
