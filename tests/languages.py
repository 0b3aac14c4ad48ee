"""A folder as people have them: a tiny model with random weights, and a tokenizer trained on the spot."""

import json

import jax
import tokenizers

from mdm_jax.models import kinds
from mdm_jax.models.config import TransformerConfig
from mdm_jax.models.weights import save_weights
from mdm_jax.training.config import write_config

SPECIAL = ["<end>", "<mask>", "<pad>", "<user>", "<model>"]
END, MASK, PAD, USER, MODEL = range(5)
TEMPLATE = (
    "{% for message in messages %}{% if message.role == 'system' %}{{ raise_exception('no system here') }}{% endif %}"
    "<user>{{ message.content }}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}<model>{% endif %}"
)


def write_tokenizer(folder):
    """Byte-level, so that it has every text; its folder names the mask, the end, and a chat template."""
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=280,
        special_tokens=SPECIAL,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(["def f(x): return x", "the cat sat on the mat, the rat on the cat"] * 20, trainer)
    backend.save(str(folder / "tokenizer.json"))
    settings = {"eos_token": {"content": "<end>"}, "mask_token": "<mask>", "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return backend


def write_model(folder, **fields):
    """A tiny Transformer of as many tokens as the tokenizer has; fields as of its config."""
    usual = {"vocab_size": 280, "max_length": 128, "num_layers": 1, "num_heads": 2, "width": 16, "mlp_width": 32}
    config = TransformerConfig(**usual | {"init_std": 0.5, "pad_id": PAD} | fields)
    write_config(folder, {"model": kinds.to_json(config)})
    save_weights(folder, kinds.init_params(config, jax.random.key(1)), dtype="float32")
    return folder
