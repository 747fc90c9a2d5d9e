"""The long builds, one a chapter: the reference, the stages that check it, and near misses; `cNN` imports `bNN.BUILD`."""
