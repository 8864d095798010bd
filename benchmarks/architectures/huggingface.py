"""Architectures of the transformers library, from configurations: two layers, a few channels."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import transformers as hf
from convnets import Case
from torch import Tensor

Inputs = Callable[[], dict[str, Tensor]]
VOCABULARY = 90

WORDS: dict[str, Any] = {"vocab_size": VOCABULARY}
BERT = WORDS | {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 24,
}
GPT = BERT | {"use_cache": False, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
GROUPED = GPT | {"num_key_value_heads": 2}
"""Attention in which two heads of queries share the keys and values of one."""
BART = WORDS | {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 40,
    "max_position_embeddings": 24,
    "use_cache": False,
}
T5 = WORDS | {
    "d_model": 32,
    "d_kv": 6,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 4,
    "relative_attention_num_buckets": 8,
    "use_cache": False,
}
LABELS: dict[str, Any] = {"num_labels": 7}
VIT = LABELS | {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "image_size": 32,
    "patch_size": 8,
}
STAGES = LABELS | {"depths": [1, 2], "hidden_sizes": [16, 32]}
RESNET = STAGES | {"embedding_size": 16}


def text(*names: str, length: int = 9) -> dict[str, Tensor]:
    """Tokens, and a mask that hides the end of the second text."""
    inputs = {}
    for name in names:
        inputs[name] = torch.randint(5, VOCABULARY, (2, length))
        if name.endswith("mask"):
            inputs[name] = torch.ones(2, length, dtype=torch.int64)
            inputs[name][1, -2:] = 0
    return inputs


def masked() -> dict[str, Tensor]:
    return text("input_ids", "attention_mask")


def tokens() -> dict[str, Tensor]:
    return text("input_ids")


def texts() -> dict[str, Tensor]:
    return text("input_ids") | text("decoder_input_ids", length=6)


def image(size: int = 32) -> dict[str, Tensor]:
    return {"pixel_values": torch.randn(2, 3, size, size)}


def image_and_text() -> dict[str, Tensor]:
    return masked() | image()


def sound() -> dict[str, Tensor]:
    return {"input_values": torch.randn(2, 400)}


def spectrum() -> dict[str, Tensor]:
    heard = {"input_features": torch.randn(2, 20, 24)}
    return heard | text("decoder_input_ids", length=6)


def clip() -> hf.CLIPConfig:
    part = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    words = part | WORDS | {"max_position_embeddings": 24, "eos_token_id": 2}
    return hf.CLIPConfig(
        text_config=words,
        vision_config=part | {"image_size": 32, "patch_size": 8},
        projection_dim=24,
    )


def detr() -> hf.DetrConfig:
    body = hf.ResNetConfig(
        embedding_size=16, depths=[1, 1], hidden_sizes=[16, 32], layer_type="basic",
        out_features=["stage2"],
    )  # fmt: skip
    sizes = {name: value for name, value in BART.items() if "max" not in name}
    return hf.DetrConfig(
        backbone_config=body, use_timm_backbone=False, num_queries=6, num_labels=5, **sizes
    )


def case(make: Callable[..., Any], settings: dict[str, Any], model: Any, inputs: Inputs) -> Case:
    return model(make(**settings)), inputs()


# name: (configuration, settings, model, inputs)
TABLE: dict[str, tuple[Callable[..., Any], dict[str, Any], Any, Inputs]] = {
    "bert": (hf.BertConfig, BERT | LABELS, hf.BertForSequenceClassification, masked),
    "bert_mlm": (hf.BertConfig, BERT, hf.BertForMaskedLM, tokens),
    "distilbert": (
        hf.DistilBertConfig,
        WORDS
        | LABELS
        | {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "max_position_embeddings": 24},
        hf.DistilBertForSequenceClassification,
        masked,
    ),
    "roberta": (hf.RobertaConfig, BERT | LABELS, hf.RobertaForTokenClassification, masked),
    "albert": (
        hf.AlbertConfig,
        BERT | LABELS | {"embedding_size": 20},
        hf.AlbertForSequenceClassification,
        masked,
    ),
    "electra": (
        hf.ElectraConfig,
        BERT | {"embedding_size": 20},
        hf.ElectraForPreTraining,
        masked,
    ),
    "mpnet": (hf.MPNetConfig, BERT, hf.MPNetModel, masked),
    "deberta_v2": (
        hf.DebertaV2Config,
        BERT | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8},
        hf.DebertaV2ForMaskedLM,
        masked,
    ),
    "squeezebert": (
        hf.SqueezeBertConfig,
        BERT | {"embedding_size": 32} | {f"{x}_groups": 2 for x in ("q", "k", "v", "intermediate")},
        hf.SqueezeBertModel,
        masked,
    ),
    "modernbert": (
        hf.ModernBertConfig,
        BERT
        | {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1}
        | {"sep_token_id": 2, "local_attention": 8},
        hf.ModernBertForMaskedLM,
        tokens,
    ),
    "xlnet": (
        hf.XLNetConfig,
        WORDS | {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48},
        hf.XLNetModel,
        tokens,
    ),
    "fnet": (hf.FNetConfig, BERT, hf.FNetModel, tokens),
    "gpt2": (
        hf.GPT2Config,
        WORDS
        | {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 24, "use_cache": False}
        | {"attn_implementation": "eager"},
        hf.GPT2LMHeadModel,
        masked,
    ),
    "gpt_neo": (
        hf.GPTNeoConfig,
        {**GPT, "num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]]},
        hf.GPTNeoForCausalLM,
        tokens,
    ),
    "gpt_neox": (hf.GPTNeoXConfig, GPT, hf.GPTNeoXForCausalLM, tokens),
    "opt": (
        hf.OPTConfig,
        GPT | {"ffn_dim": 48, "word_embed_proj_dim": 32},
        hf.OPTForCausalLM,
        tokens,
    ),
    "bloom": (
        hf.BloomConfig,
        WORDS | {"hidden_size": 32, "n_layer": 2, "n_head": 4, "use_cache": False},
        hf.BloomForCausalLM,
        tokens,
    ),
    "falcon": (hf.FalconConfig, GPT | {"multi_query": True}, hf.FalconForCausalLM, tokens),
    "llama": (hf.LlamaConfig, GROUPED, hf.LlamaForCausalLM, masked),
    "mistral": (hf.MistralConfig, GROUPED | {"sliding_window": 4}, hf.MistralForCausalLM, tokens),
    "qwen2": (hf.Qwen2Config, GROUPED, hf.Qwen2ForCausalLM, tokens),
    "qwen3": (hf.Qwen3Config, GROUPED | {"head_dim": 10}, hf.Qwen3ForCausalLM, tokens),
    "gemma": (hf.GemmaConfig, GROUPED | {"head_dim": 10}, hf.GemmaForCausalLM, tokens),
    "phi3": (hf.Phi3Config, GROUPED, hf.Phi3ForCausalLM, tokens),
    "t5": (hf.T5Config, T5, hf.T5ForConditionalGeneration, texts),
    "t5_encoder": (
        hf.T5Config,
        T5 | {"feed_forward_proj": "gated-gelu"},
        hf.T5EncoderModel,
        masked,
    ),
    "bart": (hf.BartConfig, BART, hf.BartForConditionalGeneration, texts),
    "marian": (hf.MarianConfig, BART | {"pad_token_id": 0}, hf.MarianMTModel, texts),
    "whisper": (
        hf.WhisperConfig,
        {name: value for name, value in BART.items() if "max" not in name}
        | {"num_mel_bins": 20, "max_source_positions": 12, "max_target_positions": 24}
        | {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1},
        hf.WhisperForConditionalGeneration,
        spectrum,
    ),
    "wav2vec2": (
        hf.Wav2Vec2Config,
        BERT
        | {"conv_dim": [16, 24], "conv_stride": [5, 4], "conv_kernel": [10, 4]}
        | {"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 4, "layerdrop": 0.0},
        hf.Wav2Vec2ForCTC,
        sound,
    ),
    "vit": (hf.ViTConfig, VIT, hf.ViTForImageClassification, image),
    "deit": (hf.DeiTConfig, VIT, hf.DeiTForImageClassificationWithTeacher, image),
    "beit": (
        hf.BeitConfig,
        VIT | {"use_relative_position_bias": True},
        hf.BeitForImageClassification,
        image,
    ),
    "dinov2": (
        hf.Dinov2Config,
        VIT | {"mlp_ratio": 2, "use_swiglu_ffn": True},
        hf.Dinov2ForImageClassification,
        image,
    ),
    "yolos": (
        hf.YolosConfig,
        {**VIT, "image_size": [32, 32], "num_detection_tokens": 5},
        hf.YolosForObjectDetection,
        image,
    ),
    "swin": (
        hf.SwinConfig,
        LABELS
        | {"embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4]}
        | {"image_size": 32, "patch_size": 4, "window_size": 4},
        hf.SwinForImageClassification,
        image,
    ),
    "pvt": (
        hf.PvtConfig,
        LABELS
        | {"image_size": 32, "num_encoder_blocks": 2, "depths": [1, 1], "hidden_sizes": [16, 32]}
        | {"sequence_reduction_ratios": [2, 1], "patch_sizes": [4, 2], "strides": [4, 2]}
        | {"num_attention_heads": [1, 2], "mlp_ratios": [2, 2]},
        hf.PvtForImageClassification,
        image,
    ),
    "segformer": (
        hf.SegformerConfig,
        LABELS
        | {"num_encoder_blocks": 2, "depths": [1, 1], "hidden_sizes": [16, 32]}
        | {"sr_ratios": [2, 1], "patch_sizes": [7, 3], "strides": [4, 2]}
        | {"num_attention_heads": [1, 2], "mlp_ratios": [2, 2], "decoder_hidden_size": 24},
        hf.SegformerForSemanticSegmentation,
        image,
    ),
    "convnext": (
        hf.ConvNextConfig,
        STAGES | {"num_stages": 2, "patch_size": 4},
        hf.ConvNextForImageClassification,
        image,
    ),
    "convnextv2": (
        hf.ConvNextV2Config,
        STAGES | {"num_stages": 2, "patch_size": 4},
        hf.ConvNextV2ForImageClassification,
        image,
    ),
    "resnet_basic": (
        hf.ResNetConfig,
        RESNET | {"layer_type": "basic"},
        hf.ResNetForImageClassification,
        image,
    ),
    "resnet_bottleneck": (
        hf.ResNetConfig,
        RESNET | {"hidden_sizes": [32, 64]},
        hf.ResNetForImageClassification,
        image,
    ),
    "regnet": (
        hf.RegNetConfig,
        RESNET | {"groups_width": 8},
        hf.RegNetForImageClassification,
        image,
    ),
    "mobilenet_v1": (
        hf.MobileNetV1Config,
        LABELS | {"depth_multiplier": 0.25, "image_size": 32},
        hf.MobileNetV1ForImageClassification,
        image,
    ),
    "mobilenet_v2": (
        hf.MobileNetV2Config,
        LABELS | {"depth_multiplier": 0.25, "image_size": 32, "finegrained_output": False},
        hf.MobileNetV2ForImageClassification,
        image,
    ),
    "mobilevit": (
        hf.MobileViTConfig,
        LABELS
        | {"image_size": 32, "hidden_sizes": [16, 24, 32], "num_attention_heads": 4}
        | {"neck_hidden_sizes": [8, 8, 16, 16, 24, 32, 48], "expand_ratio": 2.0},
        hf.MobileViTForImageClassification,
        lambda: image(64),
    ),
    "efficientnet": (
        hf.EfficientNetConfig,
        LABELS
        | {"image_size": 32, "width_coefficient": 0.5, "depth_coefficient": 1.0}
        | {"kernel_sizes": [3, 3, 5], "in_channels": [32, 32, 48], "out_channels": [32, 48, 64]}
        | {"strides": [1, 2, 2], "num_block_repeats": [1, 2, 2], "expand_ratios": [1, 4, 4]}
        | {"hidden_dim": 640, "depthwise_padding": [1]},
        hf.EfficientNetForImageClassification,
        image,
    ),
    "poolformer": (
        hf.PoolFormerConfig,
        STAGES
        | {"num_encoder_blocks": 2, "patch_sizes": [7, 3], "strides": [4, 2], "padding": [2, 1]}
        | {"mlp_ratio": 2.0},
        hf.PoolFormerForImageClassification,
        image,
    ),
    "cvt": (
        hf.CvtConfig,
        LABELS | {"embed_dim": [16, 24, 32], "num_heads": [1, 2, 4], "depth": [1, 2, 3]},
        hf.CvtForImageClassification,
        image,
    ),
    "levit": (
        hf.LevitConfig,
        LABELS
        | {"image_size": 64, "hidden_sizes": [32, 48, 64], "num_attention_heads": [2, 3, 4]}
        | {"depths": [1, 1, 1], "key_dim": [8, 8, 8]},
        hf.LevitForImageClassification,
        lambda: image(64),
    ),
    "clip": (clip, {}, hf.CLIPModel, image_and_text),
    "detr": (detr, {}, hf.DetrForObjectDetection, image),
}
ARCHITECTURES: dict[str, Callable[[], Case]] = {
    name: partial(case, *row) for name, row in TABLE.items()
}
