"""BERT and what else transformers opens as `BertForMaskedLM`, such as protein models."""

from mdm_jax.models.bert import BertConfig
from mdm_jax.models.pretrained.family import Family, Fixed, Setting, Tensor, linear

BERT = Family(
    name="bert",
    architecture="BertForMaskedLM",
    make=BertConfig,
    settings=(
        Setting("vocab_size", "vocab_size"),
        Setting("max_length", "max_position_embeddings", 512),
        Setting("num_layers", "num_hidden_layers"),
        Setting("num_heads", "num_attention_heads"),
        Setting("width", "hidden_size"),
        Setting("mlp_width", "intermediate_size"),
        Setting("norm_epsilon", "layer_norm_eps", 1e-12),
        Setting("num_types", "type_vocab_size", 2),
        Setting("dropout", "hidden_dropout_prob", 0.1),
    ),
    fixed={
        "hidden_act": Fixed(("gelu",)),
        "position_embedding_type": Fixed(("absolute",)),
        "is_decoder": Fixed((False,)),
        "add_cross_attention": Fixed((False,)),
        "tie_word_embeddings": Fixed((True,)),
    },
    ours={"norm": "layer", "positions": "learned", "mlp": "gelu_exact", "use_bias": True, "tie_head": True},
    passed_over="""
        attention_probs_dropout_prob classifier_dropout directionality pooler_fc_size
        pooler_num_attention_heads pooler_num_fc_layers pooler_size_per_head pooler_type""",
    layer="bert.encoder.layer.{i}.",
    tensors={
        "token_embedding/embedding": Tensor("bert.embeddings.word_embeddings.weight"),
        "position_embedding/embedding": Tensor("bert.embeddings.position_embeddings.weight"),
        "type_embedding/embedding": Tensor("bert.embeddings.token_type_embeddings.weight"),
        "embedding_norm/scale": Tensor("bert.embeddings.LayerNorm.weight"),
        "attention/query/kernel": linear("attention.self.query.weight"),
        "attention/key/kernel": linear("attention.self.key.weight"),
        "attention/value/kernel": linear("attention.self.value.weight"),
        "attention/output/kernel": linear("attention.output.dense.weight"),
        "attention_norm/scale": Tensor("attention.output.LayerNorm.weight"),
        "mlp/up/kernel": linear("intermediate.dense.weight"),
        "mlp/down/kernel": linear("output.dense.weight"),
        "mlp_norm/scale": Tensor("output.LayerNorm.weight"),
        "transform/kernel": linear("cls.predictions.transform.dense.weight"),
        "final_norm/scale": Tensor("cls.predictions.transform.LayerNorm.weight"),
        "head/kernel": linear("cls.predictions.decoder.weight"),
        "head/bias": Tensor("cls.predictions.bias"),
    },
    skipped=r"cls\.predictions\.decoder\.bias|cls\.seq_relationship\..*|bert\.pooler\..*|bert\.embeddings\.position_ids",
    canonical=lambda name: name.replace("LayerNorm.gamma", "LayerNorm.weight").replace(
        "LayerNorm.beta", "LayerNorm.bias"
    ),
)
