// Loaded for what it does: the drain.
export {}
