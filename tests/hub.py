"""Tiny folders as other programs write them, with the networks that they are of in a few lines: nothing of ours."""

import functools
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file, save_file

V, D, F, H, G, N, L, E = 40, 16, 24, 4, 2, 2, 9, 5
"""Vocabulary, width, hidden width, heads, heads of keys, layers, tokens, experts."""

TOKENS = jax.random.randint(jax.random.key(5), (2, L), 0, V)

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "bos_token_id": 1,
    "hidden_act": "silu",
    "hidden_size": D,
    "intermediate_size": F,
    "max_position_embeddings": 64,
    "model_type": "llama",
    "num_attention_heads": H,
    "num_hidden_layers": N,
    "num_key_value_heads": G,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-5,
    "rope_scaling": None,
    "rope_theta": 500.0,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "transformers_version": "4.46.2",
    "use_cache": True,
    "vocab_size": V,
}
QWEN2 = {
    **{name: value for name, value in LLAMA.items() if name not in ("attention_bias", "pretraining_tp")},
    "architectures": ["Qwen2ForCausalLM"],
    "max_window_layers": 28,
    "model_type": "qwen2",
    "sliding_window": 131072,
    "use_sliding_window": False,
}
QWEN3 = {
    **QWEN2,
    "architectures": ["Qwen3ForCausalLM"],
    "attention_bias": False,
    "head_dim": 6,
    "max_window_layers": N,
    "model_type": "qwen3",
    "sliding_window": None,
}
QWEN3_MOE = {
    **{name: value for name, value in QWEN3.items() if name != "head_dim"},
    "architectures": ["Qwen3MoeForCausalLM"],
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "model_type": "qwen3_moe",
    "moe_intermediate_size": F // 2,
    "norm_topk_prob": True,
    "num_experts": E,
    "num_experts_per_tok": 2,
    "output_router_logits": False,
    "router_aux_loss_coef": 0.001,
}
LLADA_MOE = {
    "architectures": ["LLaDAMoEModelLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "clip_qkv": None,
    "dense_intermediate_size": 4 * F,
    "eos_token_id": 3,
    "expert_intermediate_size": F // 2,
    "hidden_act": "silu",
    "hidden_size": D,
    "initializer_range": 0.02,
    "mask_token_id": V - 2,
    "max_position_embeddings": 64,
    "model_type": "llada",
    "moe_layer_freq": [1] * N,
    "moe_router_enable_expert_bias": False,
    "moe_router_score_function": "softmax",
    "norm_topk_prob": None,
    "num_attention_heads": H,
    "num_experts": E,
    "num_experts_per_tok": 3,
    "num_hidden_layers": N,
    "num_key_value_heads": G,
    "output_router_logits": False,
    "pad_token_id": 3,
    "partial_rotary_factor": 1,
    "qk_layernorm": True,
    "rms_norm_eps": 1e-5,
    "rope_scaling": None,
    "rope_theta": 500.0,
    "routed_scaling_factor": 1,
    "router_aux_loss_coef": 0.01,
    "router_num_group": None,
    "router_topk_group": None,
    "shared_expert_intermediate_size": None,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "use_cache": False,
    "vocab_size": V,
}
DREAM = QWEN2 | {"architectures": ["DreamModel"], "mask_token_id": V - 2, "model_type": "Dream", "sliding_window": None}
LLADA = {
    "activation_type": "silu",
    "alibi": False,
    "alibi_bias_max": 8.0,
    "architectures": ["LLaDAModelLM"],
    "attention_dropout": 0.0,
    "attention_layer_norm": False,
    "attention_layer_norm_with_affine": True,
    "bias_for_layer_norm": False,
    "block_group_size": 1,
    "block_type": "llama",
    "d_model": D,
    "embedding_dropout": 0.0,
    "embedding_size": V,
    "eos_token_id": 3,
    "flash_attention": False,
    "include_bias": False,
    "include_qkv_bias": False,
    "init_cutoff_factor": None,
    "init_device": "meta",
    "init_fn": "mitchell",
    "init_std": 0.02,
    "input_emb_norm": False,
    "layer_norm_type": "rms",
    "layer_norm_with_affine": True,
    "mask_token_id": V - 2,
    "max_sequence_length": 64,
    "mlp_hidden_size": F,
    "mlp_ratio": 4,
    "model_type": "llada",
    "multi_query_attention": None,
    "n_heads": H,
    "n_kv_heads": G,
    "n_layers": N,
    "pad_token_id": 3,
    "precision": "amp_bf16",
    "residual_dropout": 0.0,
    "rms_norm_eps": 1e-5,
    "rope": True,
    "rope_full_precision": True,
    "rope_theta": 500.0,
    "scale_logits": False,
    "transformers_version": "4.46.3",
    "use_cache": False,
    "vocab_size": V - 1,
    "weight_tying": False,
}
SMDM = {
    "_mlp_class": "LLaMAMLP",
    "_norm_class": "FusedRMSNorm",
    "bias": False,
    "block_size": 64,
    "condense_ratio": 1,
    "intermediate_size": F,
    "model_type": "smdm",
    "n_embd": D,
    "n_head": H,
    "n_layer": N,
    "n_query_groups": G,
    "name": "Diff_LLaMA_tiny",
    "norm_eps": 1e-5,
    "padding_multiple": 8,
    "parallel_residual": False,
    "rotary_percentage": 1.0,
    "vocab_size": V - 3,
}
GPT2 = {
    "activation_function": "gelu_new",
    "architectures": ["GPT2LMHeadModel"],
    "attn_pdrop": 0.1,
    "embd_pdrop": 0.1,
    "layer_norm_epsilon": 1e-5,
    "model_type": "gpt2",
    "n_ctx": 64,
    "n_embd": D,
    "n_head": H,
    "n_layer": N,
    "n_positions": 64,
    "n_special": 0,
    "predict_special_tokens": True,
    "resid_pdrop": 0.1,
    "summary_type": "cls_index",
    "vocab_size": V,
}
BERT = {
    "architectures": ["BertForMaskedLM"],
    "attention_probs_dropout_prob": 0.1,
    "classifier_dropout": None,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": D,
    "intermediate_size": F,
    "layer_norm_eps": 1e-5,
    "max_position_embeddings": 64,
    "model_type": "bert",
    "num_attention_heads": H,
    "num_hidden_layers": N,
    "pad_token_id": 0,
    "pooler_fc_size": 768,
    "pooler_num_attention_heads": 12,
    "pooler_num_fc_layers": 3,
    "pooler_size_per_head": 128,
    "pooler_type": "first_token_transform",
    "position_embedding_type": "absolute",
    "type_vocab_size": 2,
    "vocab_size": V,
}


def decoder(names, *, d=D // H, biases=(), is_tied=False):
    """The shapes of a network like Llama's: what each of `names` is called -> shape, as PyTorch has it."""
    shapes = {
        "tokens": (V, D),
        "norm_1": (D,),
        "q": (H * d, D),
        "k": (G * d, D),
        "v": (G * d, D),
        "o": (D, H * d),
        "q_norm": (d,),
        "k_norm": (d,),
        "norm_2": (D,),
        "gate": (F, D),
        "up": (F, D),
        "down": (D, F),
        "router": (E, D),
        "expert_gate": (F // 2, D),
        "expert_up": (F // 2, D),
        "expert_down": (D, F // 2),
        "norm": (D,),
        "head": (V, D),
    }
    found = {}
    for kind, name in names.items():
        for i, e in itertools.product(range(N if "{i}" in name else 1), range(E if "{e}" in name else 1)):
            found[name.format(i=i, e=e)] = shapes[kind]
            if kind in biases:
                found[name.format(i=i).replace("weight", "bias")] = shapes[kind][:1]
    if is_tied:
        del found[names["head"]]
    return found


HF = {
    "tokens": "model.embed_tokens.weight",
    "norm_1": "model.layers.{i}.input_layernorm.weight",
    "q": "model.layers.{i}.self_attn.q_proj.weight",
    "k": "model.layers.{i}.self_attn.k_proj.weight",
    "v": "model.layers.{i}.self_attn.v_proj.weight",
    "o": "model.layers.{i}.self_attn.o_proj.weight",
    "norm_2": "model.layers.{i}.post_attention_layernorm.weight",
    "gate": "model.layers.{i}.mlp.gate_proj.weight",
    "up": "model.layers.{i}.mlp.up_proj.weight",
    "down": "model.layers.{i}.mlp.down_proj.weight",
    "norm": "model.norm.weight",
    "head": "lm_head.weight",
}
HF_QK_NORM = HF | {
    "q_norm": "model.layers.{i}.self_attn.q_norm.weight",
    "k_norm": "model.layers.{i}.self_attn.k_norm.weight",
}
ROUTED = {kind: name for kind, name in HF_QK_NORM.items() if kind not in ("gate", "up", "down")} | {
    "router": "model.layers.{i}.mlp.gate.weight",
    "expert_gate": "model.layers.{i}.mlp.experts.{e}.gate_proj.weight",
    "expert_up": "model.layers.{i}.mlp.experts.{e}.up_proj.weight",
    "expert_down": "model.layers.{i}.mlp.experts.{e}.down_proj.weight",
}
OLMO = {
    "tokens": "model.transformer.wte.weight",
    "norm_1": "model.transformer.blocks.{i}.attn_norm.weight",
    "q": "model.transformer.blocks.{i}.q_proj.weight",
    "k": "model.transformer.blocks.{i}.k_proj.weight",
    "v": "model.transformer.blocks.{i}.v_proj.weight",
    "o": "model.transformer.blocks.{i}.attn_out.weight",
    "norm_2": "model.transformer.blocks.{i}.ff_norm.weight",
    "gate": "model.transformer.blocks.{i}.ff_proj.weight",
    "up": "model.transformer.blocks.{i}.up_proj.weight",
    "down": "model.transformer.blocks.{i}.ff_out.weight",
    "norm": "model.transformer.ln_f.weight",
    "head": "model.transformer.ff_out.weight",
}


def rotated(x, theta):
    """RoPE of [B, heads, L, d], with halves as pairs."""
    d = x.shape[-1]
    angles = np.arange(x.shape[2])[:, None] / theta ** (np.arange(0, d, 2) / d)
    angles = jnp.asarray(np.concatenate([angles, angles], axis=-1), jnp.float32)
    half = jnp.concatenate([-x[..., d // 2 :], x[..., : d // 2]], axis=-1)
    return x * jnp.cos(angles) + half * jnp.sin(angles)


def attended(q, k, v, *, is_causal, theta=None):
    """Attention of [B, L, heads · d] each; theta turns queries and keys."""
    d = q.shape[-1] // H
    q, k, v = (x.reshape(*x.shape[:2], -1, d).swapaxes(1, 2) for x in (q, k, v))
    q, k = (x if theta is None else rotated(x, theta) for x in (q, k))
    k, v = (jnp.repeat(x, H // x.shape[1], axis=1) for x in (k, v))
    scores = q @ k.swapaxes(2, 3) / np.sqrt(d)
    if is_causal:
        scores = jnp.where(np.tril(np.ones(scores.shape[2:], bool)), scores, -jnp.inf)
    out = jax.nn.softmax(scores, axis=-1) @ v
    return out.swapaxes(1, 2).reshape(*out.shape[:1], -1, H * d)


def rms(x, scale):
    return scale * x / jnp.sqrt((x * x).mean(axis=-1, keepdims=True) + 1e-5)


def rms_of_heads(x, scale):
    return rms(x.reshape(*x.shape[:2], -1, *scale.shape), scale).reshape(x.shape)


def routed(t, y, i, number, *, is_normalised):
    """The sum of the likeliest experts' outputs, expert by expert."""
    p = jax.nn.softmax(y @ t[ROUTED["router"].format(i=i)].T)
    p = jnp.where(p >= jnp.sort(p)[..., -number, None], p, 0.0)
    p = p / p.sum(axis=-1, keepdims=True) if is_normalised else p
    out = jnp.zeros_like(y)
    for e in range(E):
        gate, up, down = (t[ROUTED[f"expert_{kind}"].format(i=i, e=e)] for kind in ("gate", "up", "down"))
        out += p[..., e, None] * ((jax.nn.silu(y @ gate.T) * (y @ up.T)) @ down.T)
    return out


def llama_like(t, tokens, names, *, is_causal=True, is_shifted=False, experts=None):
    """Logits of the tensors `t`, called `names`, biases where there are any."""

    def linear(x, name):
        return x @ t[name].T + t.get(name.replace("weight", "bias"), 0.0)

    x = t[names["tokens"]][tokens]
    for i in range(N):
        own = {kind: name.format(i=i, e="{e}") for kind, name in names.items()}
        y = rms(x, t[own["norm_1"]])
        q, k, v = (linear(y, own[kind]) for kind in "qkv")
        if "q_norm" in own:
            q, k = (rms_of_heads(x, t[own[kind]]) for x, kind in ((q, "q_norm"), (k, "k_norm")))
        x = x + linear(attended(q, k, v, is_causal=is_causal, theta=500.0), own["o"])
        y = rms(x, t[own["norm_2"]])
        if experts is None:
            x = x + linear(jax.nn.silu(linear(y, own["gate"])) * linear(y, own["up"]), own["down"])
        else:
            x = x + experts(t, y, i)
    logits = rms(x, t[names["norm"]]) @ t.get(names["head"], t[names["tokens"]]).T
    return jnp.concatenate([logits[:, :1], logits[:, :-1]], axis=1) if is_shifted else logits


def smdm(t, tokens):
    """Logits by lit-gpt's names, with queries, keys and values in one tensor, group by group."""
    d, x = D // H, t["transformer.wte.weight"][tokens]
    for i in range(N):
        own = {name.removeprefix(f"transformer.h.{i}."): tensor for name, tensor in t.items()}
        y = rms(x, own["norm_1.weight"]) @ own["attn.attn.weight"].T
        y = y.reshape(*y.shape[:2], G, H // G + 2, d)
        q, k, v = (part.reshape(*y.shape[:2], -1) for part in (y[..., :-2, :], y[..., -2, :], y[..., -1, :]))
        x = x + attended(q, k, v, is_causal=False, theta=10_000.0) @ own["attn.proj.weight"].T
        y = rms(x, own["norm_2.weight"])
        gate, up = y @ own["mlp.swiglu.w1.weight"].T, y @ own["mlp.swiglu.w2.weight"].T
        x = x + (jax.nn.silu(gate) * up) @ own["mlp.swiglu.w3.weight"].T
    return rms(x, t["transformer.ln_f.weight"]) @ t["lm_head.weight"].T


def layer_norm(t, x, name):
    return rms(x - x.mean(axis=-1, keepdims=True), t[f"{name}.weight"]) + t[f"{name}.bias"]


def gpt2(t, tokens):
    """Logits by GPT-2's names, whose matrices are [in, out]."""

    norm = functools.partial(layer_norm, t)

    def linear(x, name):
        return x @ t[f"{name}.weight"] + t[f"{name}.bias"]

    x = t["transformer.wte.weight"][tokens] + t["transformer.wpe.weight"][: tokens.shape[1]]
    for i in range(N):
        h = f"transformer.h.{i}"
        q, k, v = jnp.split(linear(norm(x, f"{h}.ln_1"), f"{h}.attn.c_attn"), 3, axis=-1)
        x = x + linear(attended(q, k, v, is_causal=True), f"{h}.attn.c_proj")
        y = linear(norm(x, f"{h}.ln_2"), f"{h}.mlp.c_fc")
        y = 0.5 * y * (1 + jnp.tanh(np.sqrt(2 / np.pi) * (y + 0.044715 * y**3)))
        x = x + linear(y, f"{h}.mlp.c_proj")
    return norm(x, "transformer.ln_f") @ t["transformer.wte.weight"].T


def bert(t, tokens):
    """Logits by BERT's names."""
    norm = functools.partial(layer_norm, t)

    def linear(x, name):
        return x @ t[f"{name}.weight"].T + t[f"{name}.bias"]

    def gelu(x):
        return x * (1 + jax.scipy.special.erf(x / np.sqrt(2))) / 2

    e = "bert.embeddings"
    x = t[f"{e}.word_embeddings.weight"][tokens] + t[f"{e}.position_embeddings.weight"][: tokens.shape[1]]
    x = norm(x + t[f"{e}.token_type_embeddings.weight"][0], f"{e}.LayerNorm")
    for i in range(N):
        h = f"bert.encoder.layer.{i}"
        q, k, v = (linear(x, f"{h}.attention.self.{name}") for name in ("query", "key", "value"))
        y = linear(attended(q, k, v, is_causal=False), f"{h}.attention.output.dense")
        x = norm(x + y, f"{h}.attention.output.LayerNorm")
        y = linear(gelu(linear(x, f"{h}.intermediate.dense")), f"{h}.output.dense")
        x = norm(x + y, f"{h}.output.LayerNorm")
    p = "cls.predictions"
    x = norm(gelu(linear(x, f"{p}.transform.dense")), f"{p}.transform.LayerNorm")
    return x @ t[f"{e}.word_embeddings.weight"].T + t[f"{p}.bias"]


def with_biases(shapes, layout="[out, in]"):
    """Shapes of weights, and of a bias for each."""
    found = {f"{name}.weight": shape for name, shape in shapes.items()}
    return found | {
        f"{name}.bias": shape[:1] if layout == "[out, in]" else shape[-1:] for name, shape in shapes.items()
    }


def of_layers(layer, outside):
    """The shapes of both, the first for each layer."""
    return outside | {name.format(i=i): shape for name, shape in layer.items() for i in range(N)}


SMDM_SHAPES = of_layers(
    {
        "transformer.h.{i}.norm_1.weight": (D,),
        "transformer.h.{i}.attn.attn.weight": ((H + 2 * G) * D // H, D),
        "transformer.h.{i}.attn.proj.weight": (D, D),
        "transformer.h.{i}.norm_2.weight": (D,),
        "transformer.h.{i}.mlp.swiglu.w1.weight": (F, D),
        "transformer.h.{i}.mlp.swiglu.w2.weight": (F, D),
        "transformer.h.{i}.mlp.swiglu.w3.weight": (D, F),
    },
    {"transformer.wte.weight": (V + 1, D), "transformer.ln_f.weight": (D,), "lm_head.weight": (V, D)},
)
GPT2_SHAPES = of_layers(
    with_biases(
        {
            "transformer.h.{i}.ln_1": (D,),
            "transformer.h.{i}.attn.c_attn": (D, 3 * D),
            "transformer.h.{i}.attn.c_proj": (D, D),
            "transformer.h.{i}.ln_2": (D,),
            "transformer.h.{i}.mlp.c_fc": (D, 4 * D),
            "transformer.h.{i}.mlp.c_proj": (4 * D, D),
        },
        layout="[in, out]",
    ),
    with_biases({"transformer.ln_f": (D,)}) | {"transformer.wte.weight": (V, D), "transformer.wpe.weight": (64, D)},
)
BERT_SHAPES = of_layers(
    with_biases(
        {
            "bert.encoder.layer.{i}.attention.self.query": (D, D),
            "bert.encoder.layer.{i}.attention.self.key": (D, D),
            "bert.encoder.layer.{i}.attention.self.value": (D, D),
            "bert.encoder.layer.{i}.attention.output.dense": (D, D),
            "bert.encoder.layer.{i}.attention.output.LayerNorm": (D,),
            "bert.encoder.layer.{i}.intermediate.dense": (F, D),
            "bert.encoder.layer.{i}.output.dense": (D, F),
            "bert.encoder.layer.{i}.output.LayerNorm": (D,),
        }
    ),
    with_biases(
        {
            "bert.embeddings.LayerNorm": (D,),
            "cls.predictions.transform.dense": (D, D),
            "cls.predictions.transform.LayerNorm": (D,),
        }
    )
    | {
        "bert.embeddings.word_embeddings.weight": (V, D),
        "bert.embeddings.position_embeddings.weight": (64, D),
        "bert.embeddings.token_type_embeddings.weight": (2, D),
        "cls.predictions.bias": (V,),
    },
)
FAMILIES = {
    "llada": (LLADA, decoder(OLMO), lambda t, x: llama_like(t, x, OLMO, is_causal=False)),
    "dream": (DREAM, decoder(HF, biases="qkv"), lambda t, x: llama_like(t, x, HF, is_causal=False, is_shifted=True)),
    "qwen2": (QWEN2, decoder(HF, biases="qkv"), lambda t, x: llama_like(t, x, HF)),
    "qwen3": (QWEN3, decoder(HF_QK_NORM, d=6), lambda t, x: llama_like(t, x, HF_QK_NORM)),
    "qwen3_moe": (
        QWEN3_MOE,
        decoder(ROUTED),
        lambda t, x: llama_like(t, x, ROUTED, experts=lambda t, y, i: routed(t, y, i, 2, is_normalised=True)),
    ),
    "llada_moe": (
        LLADA_MOE,
        decoder(ROUTED),
        lambda t, x: llama_like(
            t, x, ROUTED, is_causal=False, experts=lambda t, y, i: routed(t, y, i, 3, is_normalised=False)
        ),
    ),
    "llama": (LLAMA, decoder(HF), lambda t, x: llama_like(t, x, HF)),
    "smollm2": (LLAMA | {"tie_word_embeddings": True}, decoder(HF, is_tied=True), lambda t, x: llama_like(t, x, HF)),
    "gpt2": (GPT2, GPT2_SHAPES, gpt2),
    "smdm": (SMDM, SMDM_SHAPES, smdm),
    "bert": (BERT, BERT_SHAPES, bert),
}
"""For each, the fields of config.json, the shapes of its tensors, and its network: tensors, tokens -> logits."""


def random_tensors(shapes, dtype="float32"):
    """For each shape, normal numbers; about 1 where it is a norm's scale."""
    rng = np.random.default_rng(3)
    return {
        name: (rng.normal(0, 0.3, shape) + (len(shape) == 1 and "bias" not in name)).astype(jnp.dtype(dtype))
        for name, shape in shapes.items()
    }


def write(folder, fields, tensors, *, parts=1):
    """A folder with config.json and one file, or several and their index."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(fields))
    if parts == 1:
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        return
    weight_map = {name: f"model-{i % parts + 1:05}-of-{parts:05}.safetensors" for i, name in enumerate(tensors)}
    for file in set(weight_map.values()):
        save_file({name: tensors[name] for name in tensors if weight_map[name] == file}, folder / file)
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def read(folder):
    """All tensors of a folder, as bytes with dtype and shape, so that only equal bits are equal."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= {name: (x.dtype.name, x.shape, x.tobytes()) for name, x in load_file(path).items()}
    return found
