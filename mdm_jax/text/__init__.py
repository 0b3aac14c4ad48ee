"""Text as tokens, and back: tokenizers and chat templates of Hugging Face folders, prompts, and the terminal."""
