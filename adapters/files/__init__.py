"""Read and write adapter files in PEFT's format, with the embeddings saved beside the factors."""
