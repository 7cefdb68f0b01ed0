"""The files of an adapter: PEFT's checkpoint format, loading, and the embeddings saved beside the factors."""
