"""One module per corpus; `hri_emo_ros.data.corpus.available` finds them here."""
