"""Labels and their synonyms, manifests, corpora, noise and channels: what training and evaluation share."""
